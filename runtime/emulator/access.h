// The state of a running launch, and what is known of every access to memory.
#pragma once
#include <memory>
#include <random>

#include "core.h"

namespace emulator {

constexpr uint32_t kStackBytes = 128 * 1024;
constexpr uint32_t kPublishMax = 256;

struct Range {
  uintptr_t start, end;
};

// Bytes of one allocation that launches have touched.
struct Touched {
  uint64_t read, written, sectors_read, sectors_written;
};

enum class State : uint8_t { Ready, AtWarp, AtBlock, Done };

// One access of a lane; neighbouring ones of a lane are joined as the device's compiler joins them.
struct Access {
  uintptr_t at;
  uint32_t place;
  uint16_t bytes;
  bool write, shared;
};

struct Fiber {
  char* stack = nullptr;
  void* stack_pointer = nullptr;
  State state = State::Done;
  bool orders = false;
  uint8_t published = 0, given = 0;
  const void* place = nullptr;
  uint64_t mask = 0;
  std::vector<Access> log;
  alignas(16) unsigned char slots[2][kPublishMax];

  void prepare(void (*start)(), uint64_t canary);
};

// Who touched a byte of shared memory last, and between which barriers.
struct Shadow {
  uint32_t write_epoch, read_epoch;
  uint32_t write_stretch, read_stretch;
  uint16_t writer, reader;
};

struct Core {
  const Launch* launch = nullptr;
  std::shared_ptr<const std::vector<Range>> ranges;
  std::vector<Fiber> fibers;
  std::vector<Shadow> shadow;
  std::vector<uint32_t> stretch;
  char* dynamic = nullptr;
  void* scheduler = nullptr;
  uintptr_t stack_start = 0;
  uint32_t current = 0, threads = 0, warp = 32;
  uint32_t epoch = 0, next_stretch = 1;
  Dim block = {0, 0, 0};
  Range last = {0, 0};
  // What the lanes that went on together have computed of their exchange.
  bool answered = false;
  alignas(16) unsigned char answer[16];
  bool failed = false, races = false, count = false;
  std::string error;
  std::mt19937_64 random;
  EmulatorCounters counters = {};

  void begin_launch(const Launch& l, const EmulatorOptions& options);
  void end_launch();
  void begin_block();
  // Counts what the lanes did since the last barrier.
  void flush_block();
  void fail(const std::string& why);
  [[noreturn]] void fail_in_fiber(const std::string& why);

  void touch(uintptr_t at, uint32_t bytes, bool write, uint32_t place);
  void touch_shared(uint32_t offset, uint32_t bytes, bool write);
  void touch_global(uintptr_t at, uint32_t bytes, bool write);
  void keep(uintptr_t at, uint32_t bytes, bool write, bool shared, uint32_t place);
  void count_warp(uint32_t warp);
  void count_access(const Access* lanes, size_t n);
};

extern thread_local Core* core __attribute__((tls_model("initial-exec")));

}  // namespace emulator

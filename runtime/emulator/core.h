// The emulated device: memory that knows its bounds, and blocks of fibers that run a kernel.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

// The C face of the emulator beside the driver's own entry points; `runtime/src/device/emulator.rs`
// has the same structs.
extern "C" {
struct EmulatorOptions {
  uint32_t order;   // of blocks, warps and lanes: 0 ascending, 1 descending, 2 random
  uint32_t races;   // report accesses to shared memory that no barrier orders
  uint32_t count;   // count memory accesses
  uint32_t unused;
  uint64_t seed;    // of the random order
};
struct EmulatorCounters {
  uint64_t launches;
  uint64_t bytes_read;       // of global memory, by every lane
  uint64_t bytes_written;
  uint64_t sectors_read;     // of 32 bytes, touched by one access of a warp
  uint64_t sectors_written;
  uint64_t shared_accesses;  // of a warp
  uint64_t bank_conflicts;   // further passes that such an access needs
  uint64_t barriers;         // of a block
};
}

namespace emulator {

struct Dim {
  uint32_t x, y, z;
  uint64_t count() const { return (uint64_t)x * y * z; }
};

// A kernel text that is loaded.
struct Module {
  void* library = nullptr;
  uint32_t warp = 32;
  std::vector<std::string> entries;
  // Static shared memory and everything else of the library.
  uintptr_t shared_start = 0, shared_end = 0;
  std::vector<std::pair<uintptr_t, uintptr_t>> image;
};

struct Launch {
  const Module* module;
  void (*entry)(void** params);
  void** params;
  Dim grid, block;
  uint32_t shared_bytes;
};

constexpr uint32_t kThreadsMax = 1024;
constexpr uint32_t kSharedMax = 228 * 1024;

// Memory of the device, filled with ones bits. Null where the device has not as much.
void* allocate(uint64_t bytes);
// Whether there was such an allocation.
bool release(void* at);
// Lets kernels read memory of the host, and no longer; what is lent may overlap.
void lend(void* at, uint64_t bytes);
void take_back(void* at, uint64_t bytes);
// Whether all bytes lie inside one allocation or what is lent.
bool inside(const void* at, uint64_t bytes);
uint64_t memory_total();
uint64_t memory_free();

// Runs a launch to its end; an empty answer, or what went wrong.
std::string run(const Launch& launch);

// Keeps the message for `emulator_message`.
void set_message(const std::string& text);

}  // namespace emulator

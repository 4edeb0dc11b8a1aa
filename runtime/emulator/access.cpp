// Every access of a kernel comes through here: bounds, races in shared memory, counters.
//
// The functions at the end have the names that a compiler's instrumentation for the thread sanitizer
// calls; the sanitizer itself is not there.
#include "access.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

namespace emulator {

namespace {

constexpr uint16_t kManyThreads = 0xffff;
constexpr uint16_t kManyLanes = 0x8000;
// So far behind its end an access still says which memory it overruns.
constexpr uint64_t kNear = 4096;

std::mutex touched_lock;
std::map<uintptr_t, Touched> touched;

std::string hex(uintptr_t x) {
  char text[32];
  snprintf(text, sizeof text, "%#llx", (unsigned long long)x);
  return text;
}

}  // namespace

void Core::begin_launch(const Launch& l, const EmulatorOptions& options) {
  launch = &l;
  threads = (uint32_t)l.block.count();
  warp = l.module->warp;
  if (fibers.size() < threads) fibers.resize(threads);
  if (shadow.empty()) shadow.resize(kSharedMax + 64);
  stretch.assign(kThreadsMax, 0);
  if (!dynamic) dynamic = (char*)aligned_alloc(4096, (kSharedMax + 4095) / 4096 * 4096);
  last = {0, 0};
  failed = false;
  races = options.races != 0;
  count = options.count != 0;
  random.seed(options.seed);
  counters = {};
  counters.launches = 1;
}

void Core::end_launch() {
  for (Fiber& f : fibers) f.log.clear();
  launch = nullptr;
  ranges = nullptr;
}

void Core::begin_block() {
  epoch++;
  memset(dynamic, 0xff, launch->shared_bytes);
  const Module& m = *launch->module;
  if (m.shared_end > m.shared_start) memset((void*)m.shared_start, 0xff, m.shared_end - m.shared_start);
}

inline void Core::touch(uintptr_t at, uint32_t bytes, bool write, uint32_t place) {
  if (at - stack_start < kStackBytes) return;
  uintptr_t offset = at - (uintptr_t)dynamic;
  if (offset < kSharedMax) {
    if (offset + bytes > launch->shared_bytes) {
      fail_in_fiber("shared memory: expected an access below " + std::to_string(launch->shared_bytes) +
                    " bytes, got " + std::to_string(bytes) + " bytes at " + std::to_string(offset));
    }
    if (races) touch_shared((uint32_t)offset, bytes, write);
    if (count) keep(at, bytes, write, true, place);
    return;
  }
  if (last.start <= at && at + bytes <= last.end) {
    if (count) keep(at, bytes, write, false, place);
    return;
  }
  const Module& m = *launch->module;
  if (m.shared_start <= at && at < m.shared_end) {
    if (at + bytes > m.shared_end) fail_in_fiber("shared memory: an access beyond its end");
    if (races) touch_shared(launch->shared_bytes + (uint32_t)(at - m.shared_start), bytes, write);
    if (count) keep(at, bytes, write, true, place);
    return;
  }
  touch_global(at, bytes, write);
  if (count && last.start <= at && at < last.end) keep(at, bytes, write, false, place);
}

void Core::touch_global(uintptr_t at, uint32_t bytes, bool write) {
  auto after = std::upper_bound(ranges->begin(), ranges->end(), at,
                                [](uintptr_t a, const Range& r) { return a < r.start; });
  if (after != ranges->begin()) {
    const Range& r = after[-1];
    if (at + bytes <= r.end) {
      last = r;
      return;
    }
  }
  for (auto& [start, end] : launch->module->image) {
    // Constants of the text.
    if (!write && start <= at && at + bytes <= end) return;
  }
  const Module& m = *launch->module;
  if (m.shared_start && at >= m.shared_end && at < m.shared_end + kNear) {
    fail_in_fiber("shared memory: an access " + std::to_string(at - m.shared_end) + " bytes beyond its end");
  }
  std::string near = "every allocation";
  if (after != ranges->begin() && at < after[-1].end + kNear) {
    const Range& r = after[-1];
    near = "an allocation of " + std::to_string(r.end - r.start) + " bytes: it ends at byte " +
           std::to_string(at + bytes - r.start);
  }
  fail_in_fiber(std::string("global memory: a ") + (write ? "write" : "read") + " of " +
                std::to_string(bytes) + " bytes at " + hex(at) + " lies outside " + near);
}

void Core::touch_shared(uint32_t offset, uint32_t bytes, bool write) {
  uint16_t self = (uint16_t)current;
  uint32_t own_warp = current / warp, now = stretch[own_warp];
  // Whether what `other` did in stretch `then` of this epoch may happen at the same time.
  auto races_with = [&](uint16_t other, uint32_t then) {
    if (other == self) return false;
    if (other == kManyThreads) return true;
    uint32_t of = other & kManyLanes ? other & ~kManyLanes : other / warp;
    return of != own_warp || then >= now;
  };
  for (uint32_t i = 0; i < bytes; i++) {
    Shadow& s = shadow[offset + i];
    bool written = s.write_epoch == epoch, read = s.read_epoch == epoch;
    if (written && races_with(s.writer, s.write_stretch)) {
      fail_in_fiber("missing barrier: shared memory at " + std::to_string(offset + i) + " is " +
                    (write ? "written" : "read") + " here and written by thread " +
                    std::to_string(s.writer) + " with no barrier between");
    }
    if (write) {
      if (read && races_with(s.reader, s.read_stretch)) {
        fail_in_fiber("missing barrier: shared memory at " + std::to_string(offset + i) +
                      " is written here and read by another thread with no barrier between");
      }
      s.write_epoch = epoch;
      s.write_stretch = now;
      s.writer = self;
    } else {
      if (!read || s.reader == self) {
        s.reader = self;
      } else if (s.reader != kManyThreads) {
        uint32_t of = s.reader & kManyLanes ? s.reader & ~kManyLanes : s.reader / warp;
        s.reader = of == own_warp ? (uint16_t)(kManyLanes | own_warp) : kManyThreads;
      }
      s.read_epoch = epoch;
      s.read_stretch = now;
    }
  }
}

void Core::keep(uintptr_t at, uint32_t bytes, bool write, bool shared, uint32_t place) {
  std::vector<Access>& log = fibers[current].log;
  if (!log.empty()) {
    Access& before = log.back();
    bool joins = before.at + before.bytes == at && before.at / 16 == (at + bytes - 1) / 16 &&
                 before.write == write && before.shared == shared && before.place != place;
    if (joins) {
      before.bytes = (uint16_t)(before.bytes + bytes);
      return;
    }
  }
  log.push_back({at, place, (uint16_t)bytes, write, shared});
}

void Core::flush_block() {
  if (!count) return;
  for (uint32_t w = 0; w * warp < threads; w++) count_warp(w);
}

// Joins the accesses of the lanes by instruction and by how often the lane came there.
void Core::count_warp(uint32_t w) {
  struct Keyed {
    uint64_t key;
    Access access;
  };
  std::vector<Keyed> all;
  for (uint32_t t = w * warp; t < std::min((w + 1) * warp, threads); t++) {
    std::map<uint32_t, uint32_t> visits;
    for (const Access& a : fibers[t].log) all.push_back({(uint64_t)a.place << 32 | visits[a.place]++, a});
    fibers[t].log.clear();
  }
  std::sort(all.begin(), all.end(), [](const Keyed& a, const Keyed& b) { return a.key < b.key; });
  std::vector<Access> lanes;
  for (size_t i = 0; i < all.size();) {
    lanes.clear();
    size_t end = i;
    for (; end < all.size() && all[end].key == all[i].key; end++) lanes.push_back(all[end].access);
    count_access(lanes.data(), lanes.size());
    i = end;
  }
}

void Core::count_access(const Access* lanes, size_t n) {
  const Access& first = lanes[0];
  if (!first.shared) {
    std::vector<uintptr_t> sectors;
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
      bytes += lanes[i].bytes;
      uintptr_t end = (lanes[i].at + lanes[i].bytes - 1) / 32;
      for (uintptr_t s = lanes[i].at / 32; s <= end; s++) sectors.push_back(s);
    }
    std::sort(sectors.begin(), sectors.end());
    uint64_t distinct = (uint64_t)(std::unique(sectors.begin(), sectors.end()) - sectors.begin());
    auto after = std::upper_bound(ranges->begin(), ranges->end(), first.at,
                                  [](uintptr_t a, const Range& r) { return a < r.start; });
    std::lock_guard<std::mutex> guard(touched_lock);
    Touched& t = touched[after[-1].start];
    (first.write ? counters.bytes_written : counters.bytes_read) += bytes;
    (first.write ? counters.sectors_written : counters.sectors_read) += distinct;
    (first.write ? t.written : t.read) += bytes;
    (first.write ? t.sectors_written : t.sectors_read) += distinct;
    return;
  }
  // 32 banks of 4 bytes; wide accesses are served in as many parts as fill the banks once.
  size_t part = std::max<size_t>(1, 128 / std::max<uint32_t>(4, first.bytes));
  for (size_t start = 0; start < n; start += part) {
    std::vector<uintptr_t> words;
    for (size_t i = start; i < std::min(n, start + part); i++) {
      for (uintptr_t word = lanes[i].at / 4; word <= (lanes[i].at + lanes[i].bytes - 1) / 4; word++) {
        words.push_back(word);
      }
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    uint32_t banks[32] = {}, most = 0;
    for (uintptr_t word : words) most = std::max(most, ++banks[word % 32]);
    counters.shared_accesses++;
    counters.bank_conflicts += most - 1;
  }
}

}  // namespace emulator

using emulator::core;

extern "C" {

// What launches with `count` have touched of the allocation that starts at `at`.
void emulator_touched(uint64_t at, emulator::Touched* out) {
  std::lock_guard<std::mutex> guard(emulator::touched_lock);
  auto found = emulator::touched.find((uintptr_t)at);
  *out = found == emulator::touched.end() ? emulator::Touched{} : found->second;
}
void emulator_reset_touched() {
  std::lock_guard<std::mutex> guard(emulator::touched_lock);
  emulator::touched.clear();
}

void simt_atomic(const volatile void* at, unsigned bytes) {
  // Atomic accesses race with nothing.
  bool races = core->races;
  core->races = false;
  core->touch((uintptr_t)at, bytes, true, (uint32_t)(uintptr_t)__builtin_return_address(0));
  core->races = races;
}

#define PLACE ((uint32_t)(uintptr_t)__builtin_return_address(0))
#define HOOK(n)                                                                                    \
  void __tsan_read##n(void* at) { core->touch((uintptr_t)at, n, false, PLACE); }                   \
  void __tsan_write##n(void* at) { core->touch((uintptr_t)at, n, true, PLACE); }                   \
  void __tsan_unaligned_read##n(void* at) { core->touch((uintptr_t)at, n, false, PLACE); }         \
  void __tsan_unaligned_write##n(void* at) { core->touch((uintptr_t)at, n, true, PLACE); }         \
  void __tsan_read_write##n(void* at) {                                                            \
    core->touch((uintptr_t)at, n, false, PLACE);                                                   \
    core->touch((uintptr_t)at, n, true, PLACE);                                                    \
  }
HOOK(1)
HOOK(2)
HOOK(4)
HOOK(8)
HOOK(16)

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}

// Copies of whole structs, in pieces of a vector register.
static void touch_all(const void* at, size_t bytes, bool write, uint32_t place) {
  for (size_t i = 0; i < bytes; i += 16) {
    core->touch((uintptr_t)at + i, (uint32_t)std::min<size_t>(16, bytes - i), write, place);
  }
}
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  touch_all(from, bytes, false, PLACE);
  touch_all(to, bytes, true, PLACE);
  return memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  touch_all(from, bytes, false, PLACE);
  touch_all(to, bytes, true, PLACE);
  return memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  touch_all(to, bytes, true, PLACE);
  return memset(to, value, bytes);
}
}

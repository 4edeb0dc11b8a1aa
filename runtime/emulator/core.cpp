// Blocks of fibers: who runs next, who waits for whom, and what a kernel may not do.
//
// A block's threads are fibers of one host thread. A fiber runs until it waits for its warp or its
// block; a warp's exchange happens as soon as none of its lanes can run on.
#include "core.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <random>

#include "fiber.h"
#include "access.h"

namespace emulator {

thread_local Core* core __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

constexpr uint64_t kCanary = 0x5afe5afe5afe5afeull;

thread_local std::string message;
thread_local EmulatorOptions options = {0, 1, 0, 0, 0};
thread_local EmulatorCounters counters;

// Memory of the device: allocations by address, each with a gap behind it, and memory of the host that is lent.
struct Heap {
  std::mutex lock;
  std::map<uintptr_t, uint64_t> blocks;
  std::multimap<uintptr_t, uint64_t> lent;
  // Both in order, what is lent as stretches that do not overlap.
  std::shared_ptr<const std::vector<Range>> ranges = std::make_shared<std::vector<Range>>();
  uint64_t used = 0;

  void publish() {
    auto all = std::make_shared<std::vector<Range>>();
    for (auto& [at, bytes] : lent) {
      bool joins = !all->empty() && at <= all->back().end;
      if (joins) all->back().end = std::max<uintptr_t>(all->back().end, at + bytes);
      if (!joins) all->push_back({at, at + bytes});
    }
    for (auto& [at, bytes] : blocks) all->push_back({at, at + bytes});
    std::sort(all->begin(), all->end(), [](const Range& a, const Range& b) { return a.start < b.start; });
    ranges = all;
  }
};
Heap& heap() {
  static Heap* heap = new Heap;
  return *heap;
}
constexpr uint64_t kMemory = 8ull << 30;
constexpr uint64_t kGap = 4096;

Core& core_of_thread() {
  if (!core) core = new Core;
  return *core;
}

void to_scheduler() {
  Core& c = *core;
  Fiber& self = c.fibers[c.current];
  emulator_switch(&self.stack_pointer, c.scheduler);
}

void start_fiber() {
  Core& c = *core;
  c.launch->entry(c.launch->params);
  core->fibers[core->current].state = State::Done;
  to_scheduler();
  __builtin_unreachable();
}

void resume(Core& c, uint32_t thread) {
  Fiber& fiber = c.fibers[thread];
  c.current = thread;
  c.stack_start = (uintptr_t)fiber.stack;
  emulator_switch(&c.scheduler, fiber.stack_pointer);
  if (*(uint64_t*)fiber.stack != kCanary) c.fail("a thread needs more than 128 KiB of stack");
}

// Lanes of a warp that wait at one place go on together; the mask says who they are.
bool release_warp(Core& c, uint32_t warp) {
  uint32_t start = warp * c.warp, end = std::min(start + c.warp, c.threads);
  const void* place = nullptr;
  uint64_t mask = 0;
  for (uint32_t t = start; t < end; t++) {
    Fiber& f = c.fibers[t];
    if (f.state != State::AtWarp) continue;
    if (!place) place = f.place;
    if (f.place == place) mask |= 1ull << (t - start);
  }
  if (!mask) return false;
  for (uint32_t t = start; t < end; t++) {
    if (!(mask >> (t - start) & 1)) continue;
    Fiber& f = c.fibers[t];
    f.mask = mask;
    f.given = f.published;
    f.state = State::Ready;
    if (f.orders) c.stretch[warp] = c.next_stretch;
  }
  c.answered = false;
  c.next_stretch++;
  return true;
}

void release_block(Core& c) {
  uint32_t waiting = 0;
  const void* place = nullptr;
  for (uint32_t t = 0; t < c.threads; t++) {
    Fiber& f = c.fibers[t];
    if (f.state != State::AtBlock) continue;
    if (waiting++ && f.place != place) {
      return c.fail("divergent barrier: threads of a block wait at different barriers");
    }
    place = f.place;
  }
  if (waiting != c.threads) {
    return c.fail("divergent barrier: " + std::to_string(waiting) + " of " + std::to_string(c.threads) +
                  " threads reach it, the others have returned");
  }
  for (uint32_t t = 0; t < c.threads; t++) c.fibers[t].state = State::Ready;
  c.flush_block();
  c.epoch++;
  c.counters.barriers++;
}

void ordered(Core& c, std::vector<uint32_t>& list) {
  if (options.order == 1) std::reverse(list.begin(), list.end());
  if (options.order == 2) std::shuffle(list.begin(), list.end(), c.random);
}

void run_warp(Core& c, uint32_t warp, std::vector<uint32_t>& lanes) {
  do {
    lanes.clear();
    uint32_t end = std::min((warp + 1) * c.warp, c.threads);
    for (uint32_t t = warp * c.warp; t < end; t++) {
      if (c.fibers[t].state == State::Ready) lanes.push_back(t);
    }
    ordered(c, lanes);
    for (uint32_t t : lanes) {
      resume(c, t);
      if (c.failed) return;
    }
  } while (release_warp(c, warp));
}

void run_block(Core& c) {
  uint32_t warps = (c.threads + c.warp - 1) / c.warp;
  std::vector<uint32_t> order, lanes;
  for (uint32_t t = 0; t < c.threads; t++) {
    Fiber& fiber = c.fibers[t];
    fiber.prepare(start_fiber, kCanary);
  }
  c.begin_block();
  for (;;) {
    order.clear();
    for (uint32_t w = 0; w < warps; w++) order.push_back(w);
    ordered(c, order);
    for (uint32_t w : order) {
      run_warp(c, w, lanes);
      if (c.failed) return;
    }
    bool done = true;
    for (uint32_t t = 0; t < c.threads; t++) done &= c.fibers[t].state == State::Done;
    if (done) break;
    release_block(c);
    if (c.failed) return;
  }
  c.flush_block();
}

void run_blocks(Core& c) {
  const Launch& l = *c.launch;
  std::vector<uint32_t> blocks(l.grid.count());
  for (uint32_t i = 0; i < blocks.size(); i++) blocks[i] = i;
  ordered(c, blocks);
  for (uint32_t i : blocks) {
    c.block = {i % l.grid.x, i / l.grid.x % l.grid.y, i / l.grid.x / l.grid.y};
    run_block(c);
    if (c.failed) return;
  }
}

}  // namespace

void Fiber::prepare(void (*start)(), uint64_t canary) {
  if (!stack) stack = (char*)aligned_alloc(4096, kStackBytes);
  *(uint64_t*)stack = canary;
  stack_pointer = fiber_stack(stack + kStackBytes, start);
  state = State::Ready;
  published = 0;
}

void Core::fail(const std::string& why) {
  if (failed) return;
  failed = true;
  error = why;
}

void Core::fail_in_fiber(const std::string& why) {
  fail("block (" + std::to_string(block.x) + ", " + std::to_string(block.y) + ", " +
       std::to_string(block.z) + "), thread " + std::to_string(current) + ": " + why);
  to_scheduler();
  __builtin_unreachable();
}

void* allocate(uint64_t bytes) {
  Heap& h = heap();
  std::lock_guard<std::mutex> guard(h.lock);
  uint64_t size = (bytes + 255) / 256 * 256;
  if (h.used + size > kMemory) return nullptr;
  // What lies behind the last byte belongs to nobody, so an overrun is seen.
  void* at = aligned_alloc(4096, (size + kGap + 4095) / 4096 * 4096);
  if (!at) return nullptr;
  memset(at, 0xff, size);
  h.blocks[(uintptr_t)at] = bytes;
  h.used += size;
  h.publish();
  return at;
}

bool release(void* at) {
  Heap& h = heap();
  std::lock_guard<std::mutex> guard(h.lock);
  auto found = h.blocks.find((uintptr_t)at);
  if (found == h.blocks.end()) return false;
  h.used -= (found->second + 255) / 256 * 256;
  h.blocks.erase(found);
  h.publish();
  free(at);
  return true;
}

void lend(void* at, uint64_t bytes) {
  Heap& h = heap();
  std::lock_guard<std::mutex> guard(h.lock);
  h.lent.emplace((uintptr_t)at, bytes);
  h.publish();
}

void take_back(void* at, uint64_t bytes) {
  Heap& h = heap();
  std::lock_guard<std::mutex> guard(h.lock);
  auto [first, end] = h.lent.equal_range((uintptr_t)at);
  auto found = std::find_if(first, end, [&](auto& lent) { return lent.second == bytes; });
  if (found != end) h.lent.erase(found);
  h.publish();
}

bool inside(const void* at, uint64_t bytes) {
  Heap& h = heap();
  std::lock_guard<std::mutex> guard(h.lock);
  auto after = std::upper_bound(h.ranges->begin(), h.ranges->end(), (uintptr_t)at,
                                [](uintptr_t a, const Range& r) { return a < r.start; });
  if (after == h.ranges->begin()) return false;
  const Range& range = after[-1];
  return (uintptr_t)at <= range.end && bytes <= range.end - (uintptr_t)at;
}

uint64_t memory_total() { return kMemory; }
uint64_t memory_free() {
  std::lock_guard<std::mutex> guard(heap().lock);
  return kMemory - heap().used;
}

void set_message(const std::string& text) { message = text; }

std::string run(const Launch& launch) {
  uint64_t threads = launch.block.count();
  if (threads == 0 || threads > kThreadsMax) {
    return "expected 1 to 1024 threads in a block, got " + std::to_string(threads);
  }
  if (launch.grid.count() == 0 || launch.grid.count() > (1ull << 31)) return "expected a grid of blocks";
  uint64_t fixed = launch.module->shared_end - launch.module->shared_start;
  if (launch.shared_bytes + fixed > kSharedMax) {
    return "expected at most " + std::to_string(kSharedMax) + " bytes of shared memory, got " +
           std::to_string(launch.shared_bytes + fixed);
  }
  // Static shared memory belongs to the library: one launch of a text at a time.
  static std::mutex texts[64];
  std::unique_lock<std::mutex> alone;
  if (fixed) alone = std::unique_lock<std::mutex>(texts[(uintptr_t)launch.module->library / 64 % 64]);
  Core& c = core_of_thread();
  {
    std::lock_guard<std::mutex> guard(heap().lock);
    c.ranges = heap().ranges;
  }
  c.begin_launch(launch, options);
  run_blocks(c);
  c.end_launch();
  if (c.failed) return c.error;
  auto* total = (uint64_t*)&counters;
  auto* more = (const uint64_t*)&c.counters;
  for (size_t i = 0; i < sizeof(counters) / 8; i++) total[i] += more[i];
  return "";
}

}  // namespace emulator

using namespace emulator;

extern "C" {

void emulator_configure(const EmulatorOptions* o) { options = *o; }
void emulator_counters(EmulatorCounters* out) { *out = counters; }
void emulator_reset_counters() { counters = {}; }
const char* emulator_message() { return message.c_str(); }

static uint32_t axis_of(const Dim& d, unsigned axis) { return axis == 0 ? d.x : axis == 1 ? d.y : d.z; }
unsigned simt_thread(unsigned axis) {
  const Dim& b = core->launch->block;
  uint32_t t = core->current;
  return axis == 0 ? t % b.x : axis == 1 ? t / b.x % b.y : t / b.x / b.y;
}
unsigned simt_block(unsigned axis) { return axis_of(core->block, axis); }
unsigned simt_block_size(unsigned axis) { return axis_of(core->launch->block, axis); }
unsigned simt_grid_size(unsigned axis) { return axis_of(core->launch->grid, axis); }
unsigned simt_linear() { return core->current; }
unsigned simt_lane() { return core->current % core->warp; }
unsigned simt_warp() { return core->current / core->warp; }
unsigned simt_warp_size() { return core->warp; }
char* simt_dynamic_shared() { return core->dynamic; }

// A copy of few bytes, most often those of a register.
static inline void copy(void* to, const void* from, unsigned bytes) {
  if (bytes == 4) {
    memcpy(to, from, 4);
  } else if (bytes == 8) {
    memcpy(to, from, 8);
  } else {
    memcpy(to, from, bytes);
  }
}

static void wait(State state, const void* place, bool orders) {
  Fiber& self = core->fibers[core->current];
  self.state = state;
  self.place = place;
  self.orders = orders;
  to_scheduler();
}

void simt_barrier() { wait(State::AtBlock, __builtin_return_address(0), true); }
void simt_warp_barrier() { wait(State::AtWarp, __builtin_return_address(0), true); }

unsigned long long simt_publish(const void* value, unsigned bytes) {
  Core& c = *core;
  if (bytes > kPublishMax) c.fail_in_fiber("an exchange of more than 256 bytes");
  Fiber& self = c.fibers[c.current];
  self.published ^= 1;
  copy(self.slots[self.published], value, bytes);
  wait(State::AtWarp, __builtin_return_address(0), false);
  return core->fibers[core->current].mask;
}

void simt_read(unsigned lane, void* value, unsigned bytes) {
  Core& c = *core;
  Fiber& self = c.fibers[c.current];
  uint32_t thread = c.current / c.warp * c.warp + lane;
  if (lane >= c.warp || thread >= c.threads || !(self.mask >> lane & 1)) {
    memset(value, 0xff, bytes);
    return;
  }
  // A lane may have published its next value already, in its other slot; it cannot be further,
  // because the exchange of that value waits for this lane to come to rest.
  const Fiber& other = c.fibers[thread];
  copy(value, other.slots[other.given], bytes);
}

void simt_read_all(void* values, unsigned bytes) {
  Core& c = *core;
  const Fiber* lanes = &c.fibers[c.current / c.warp * c.warp];
  for (uint64_t rest = c.fibers[c.current].mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctzll(rest);
    copy((char*)values + lane * bytes, lanes[lane].slots[lanes[lane].given], bytes);
  }
}

void* simt_answer(bool* known) {
  Core& c = *core;
  *known = c.answered;
  c.answered = true;
  return c.answer;
}

unsigned long long simt_live() {
  Core& c = *core;
  uint32_t start = c.current / c.warp * c.warp;
  unsigned long long mask = 0;
  for (uint32_t t = start; t < std::min(start + c.warp, c.threads); t++) {
    if (c.fibers[t].state != State::Done) mask |= 1ull << (t - start);
  }
  return mask;
}

void simt_fail(const char* why) { core->fail_in_fiber(why); }
}

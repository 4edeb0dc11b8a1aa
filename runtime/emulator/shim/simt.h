// What a kernel text sees of the emulated device. Freestanding: no header of the host is included,
// because kernel texts define `uint8_t` and its kin themselves.
//
// Every load and store of a text calls back into `core.cpp` (the text is compiled with the hooks of
// the thread sanitizer); functions marked SIMT_HIDDEN do not.
#pragma once

typedef __SIZE_TYPE__ size_t;

#define SIMT_HIDDEN __attribute__((no_sanitize("thread"), noinline))
// Memory of a block with a static size: poisoned before each block, bounds known to the core.
#ifdef __APPLE__
#define SIMT_SHARED static __attribute__((section("__DATA,ds4_shared")))
#else
#define SIMT_SHARED static __attribute__((section("ds4_shared")))
extern "C" {
extern char __start_ds4_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_ds4_shared[] __attribute__((weak, visibility("hidden")));
void* simt_shared_start = __start_ds4_shared;
void* simt_shared_end = __stop_ds4_shared;
}
#endif

extern "C" {
// What does not change while a thread runs; `axis` is 0, 1 or 2.
unsigned simt_thread(unsigned axis) __attribute__((const));
unsigned simt_block(unsigned axis) __attribute__((const));
unsigned simt_block_size(unsigned axis) __attribute__((const));
unsigned simt_grid_size(unsigned axis) __attribute__((const));
unsigned simt_linear() __attribute__((const));
unsigned simt_lane() __attribute__((const));
unsigned simt_warp() __attribute__((const));
unsigned simt_warp_size() __attribute__((const));

// Memory of a block whose size the launch gives.
char* simt_dynamic_shared() __attribute__((const));

// All threads of the block meet here.
void simt_barrier() __attribute__((noduplicate, convergent));
// The lanes of the warp that are here meet; `order` makes their writes visible to each other.
void simt_warp_barrier() __attribute__((noduplicate, convergent));
// Publishes `bytes` (at most 256) of this lane and waits for the other lanes of the warp that come to
// the same place. The answer has a bit for every lane that came.
unsigned long long simt_publish(const void* value, unsigned bytes)
    __attribute__((noduplicate, convergent));
// Reads what `lane` published last; all ones where it did not come.
void simt_read(unsigned lane, void* value, unsigned bytes);
// Reads what every lane that came published last, each at its place in `values`.
void simt_read_all(void* values, unsigned bytes);
// 16 bytes that the lanes of an exchange share until their next one, and whether one of them was given
// them before.
void* simt_answer(bool* known);
// The lanes of the warp that have not returned.
unsigned long long simt_live();
// An atomic operation is about to touch these bytes.
void simt_atomic(const volatile void* at, unsigned bytes);
// Ends the launch with a message.
[[noreturn]] void simt_fail(const char* message);
// An element wise check of the shims: `index` must lie below `count`.
}

namespace simt {

struct Dim {
  unsigned x, y, z;
  unsigned operator[](int i) const { return i == 0 ? x : i == 1 ? y : z; }
};
inline Dim dim(unsigned (*axis)(unsigned)) { return Dim{axis(0), axis(1), axis(2)}; }

// A pointer argument of whatever type the parameter has.
struct Arg {
  void* pointer;
  template <class T> operator T*() const { return (T*)pointer; }
};

// An exchange within the warp: every lane gives `value` and takes that of lane `from`.
template <class T> SIMT_HIDDEN T shuffle(T value, unsigned from) {
  simt_publish(&value, sizeof(T));
  T taken;
  simt_read(from, &taken, sizeof(T));
  return taken;
}

// Most lanes of a warp.
constexpr unsigned kLanesMax = 64;

// A reduction over the lanes that are here, in ascending order of lanes.
template <class T, class F> SIMT_HIDDEN T reduce(T value, F join) {
  unsigned long long here = simt_publish(&value, sizeof(T));
  // The same for every lane: the first to go on computes it.
  bool known;
  T* answer = (T*)simt_answer(&known);
  static_assert(sizeof(T) <= 16, "an answer has 16 bytes");
  if (known) return *answer;
  T lanes[kLanesMax];
  simt_read_all(lanes, sizeof(T));
  T all = lanes[__builtin_ctzll(here)];
  while (here &= here - 1) all = join(all, lanes[__builtin_ctzll(here)]);
  return *answer = all;
}

// The join of the lanes below this one, and this one where `inclusive`.
template <class T, class F> SIMT_HIDDEN T prefix(T value, T start, bool inclusive, F join) {
  unsigned long long here = simt_publish(&value, sizeof(T));
  T lanes[kLanesMax];
  simt_read_all(lanes, sizeof(T));
  T all = start;
  unsigned end = simt_lane() + (inclusive ? 1 : 0);
  for (unsigned lane = 0; lane < end; lane++) {
    if (here >> lane & 1) all = join(all, lanes[lane]);
  }
  return all;
}

template <class T> SIMT_HIDDEN T load_hidden(const volatile T* at) { return *at; }
template <class T> SIMT_HIDDEN void store_hidden(volatile T* at, T value) { *at = value; }

// Replaces what lies at `at` by `next(old)`, undivided; answers the old value.
template <class T, class F> T atomic(volatile T* at, F next) {
  simt_atomic(at, sizeof(T));
  T old = load_hidden(at);
  store_hidden(at, (T)next(old));
  return old;
}

template <class T, class U> T bits(U from) {
  static_assert(sizeof(T) == sizeof(U), "a reinterpretation keeps the size");
  T to;
  __builtin_memcpy(&to, &from, sizeof(T));
  return to;
}

}  // namespace simt

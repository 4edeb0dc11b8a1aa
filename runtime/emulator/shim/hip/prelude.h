// HIP C++ as the texts use it, for wavefronts of 32 (SIMT_WAVE 32) and of 64 lanes.
#pragma once
#include "../threads.h"
#include "amdgcn.h"

using __hip_bfloat16 = simt::Bfloat;
using hip_bfloat16 = simt::Bfloat;
inline float __bfloat162float(__hip_bfloat16 x) { return x; }
inline __hip_bfloat16 __float2bfloat16(float x) { return __hip_bfloat16(x); }

inline unsigned long long __activemask() { return simt_live(); }
template <class T> T __shfl(T v, int lane, int width = SIMT_WAVE) {
  return simt::shuffle(v, (simt_lane() & ~(unsigned)(width - 1)) | ((unsigned)lane & (unsigned)(width - 1)));
}
template <class T> T __shfl_xor(T v, int mask, int = SIMT_WAVE) {
  return simt::shuffle(v, simt_lane() ^ (unsigned)mask);
}
template <class T> T __shfl_up(T v, unsigned delta, int = SIMT_WAVE) {
  return simt::shuffle(v, simt_lane() < delta ? simt_lane() : simt_lane() - delta);
}
template <class T> T __shfl_down(T v, unsigned delta, int = SIMT_WAVE) {
  return simt::shuffle(v, simt_lane() + delta >= SIMT_WAVE ? simt_lane() : simt_lane() + delta);
}
inline unsigned long long __ballot(int v) {
  unsigned long long bit = v ? 1ull << simt_lane() : 0;
  return simt::reduce(bit, [](unsigned long long a, unsigned long long b) { return a | b; });
}
inline int __all(int v) {
  return simt::reduce((int)(v != 0), [](int a, int b) { return a & b; });
}
inline int __any(int v) {
  return simt::reduce((int)(v != 0), [](int a, int b) { return a | b; });
}

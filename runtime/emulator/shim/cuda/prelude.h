// CUDA C++ as the texts use it.
#pragma once
#include "../threads.h"
#include "../fragments.h"

#define __cluster_dims__(...)
#define __grid_constant__

using __nv_bfloat16 = simt::Bfloat;
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return __nv_bfloat16::of(x); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.raw; }

inline unsigned __activemask() { return (unsigned)simt_live(); }
inline __attribute__((always_inline)) void __syncwarp(unsigned = ~0u) { simt_warp_barrier(); }
template <class T> T __shfl_sync(unsigned, T v, int lane, int width = 32) {
  return simt::shuffle(v, (simt_lane() & ~(unsigned)(width - 1)) | ((unsigned)lane & (unsigned)(width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned, T v, int mask, int = 32) {
  return simt::shuffle(v, simt_lane() ^ (unsigned)mask);
}
template <class T> T __shfl_up_sync(unsigned, T v, unsigned delta, int = 32) {
  return simt::shuffle(v, simt_lane() < delta ? simt_lane() : simt_lane() - delta);
}
template <class T> T __shfl_down_sync(unsigned, T v, unsigned delta, int = 32) {
  return simt::shuffle(v, simt_lane() + delta > 31 ? simt_lane() : simt_lane() + delta);
}
inline unsigned __ballot_sync(unsigned, int v) {
  unsigned bit = v ? 1u << simt_lane() : 0;
  return simt::reduce(bit, [](unsigned a, unsigned b) { return a | b; });
}
inline int __all_sync(unsigned, int v) {
  return simt::reduce((int)(v != 0), [](int a, int b) { return a & b; });
}
inline int __any_sync(unsigned, int v) {
  return simt::reduce((int)(v != 0), [](int a, int b) { return a | b; });
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
  return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 4; i++) c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
  return c;
}

// cuda_fp8.h, cuda_fp4.h
enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };
enum __nv_fp4_interpretation_t { __NV_E2M1 };
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
enum cudaRoundMode { cudaRoundNearest, cudaRoundZero, cudaRoundPosInf, cudaRoundMinInf };
using __nv_fp8_storage_t = unsigned char;
using __nv_fp8x2_storage_t = unsigned short;
using __nv_fp4_storage_t = unsigned char;
using __nv_fp4x2_storage_t = unsigned char;
using __half_raw = __half;
using __half2_raw = __half2;
using __nv_bfloat16_raw = __nv_bfloat16;

inline __half __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t x, __nv_fp8_interpretation_t as) {
  return as == __NV_E4M3 ? __half(simt::small_to_float<4, 3>(x)) : __half::of(x << 8);
}
inline __half2 __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t x, __nv_fp8_interpretation_t as) {
  return {__nv_cvt_fp8_to_halfraw((unsigned char)x, as), __nv_cvt_fp8_to_halfraw((unsigned char)(x >> 8), as)};
}
inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t, __nv_fp8_interpretation_t as) {
  if (as != __NV_E4M3) simt_fail("the emulator rounds to e4m3 only");
  return (unsigned char)simt::float_to_small<4, 3>(x);
}
inline __half __nv_cvt_fp4_to_halfraw(__nv_fp4_storage_t x, __nv_fp4_interpretation_t) {
  return __half(simt::small_to_float<2, 1>(x & 15));
}
inline __half2 __nv_cvt_fp4x2_to_halfraw2(__nv_fp4x2_storage_t x, __nv_fp4_interpretation_t) {
  return {__half(simt::small_to_float<2, 1>(x & 15)), __half(simt::small_to_float<2, 1>(x >> 4))};
}
inline __nv_bfloat16 __nv_cvt_e8m0_to_bf16raw(unsigned char x) {
  return __nv_bfloat16(simt::e8m0_to_float(x));
}

namespace nvcuda::wmma {
SIMT_FRAGMENTS(32)
}

// What CUDA and HIP name alike: indices, barriers, bit tricks, atomics.
#pragma once
#include "math.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __align__(n) alignas(n)
#define __shared__ SIMT_SHARED
#define __constant__ static const

#define threadIdx (simt::dim(simt_thread))
#define blockIdx (simt::dim(simt_block))
#define blockDim (simt::dim(simt_block_size))
#define gridDim (simt::dim(simt_grid_size))
#define warpSize (simt_warp_size())

using namespace simt_math;
using uint = unsigned;
struct alignas(8) uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using __half = simt::Half;
struct alignas(4) __half2 {
  __half x, y;
};

inline __attribute__((always_inline)) void __syncthreads() { simt_barrier(); }
inline void __threadfence() {}
inline void __threadfence_block() {}

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __brev(unsigned v) { return __builtin_bitreverse32(v); }
inline unsigned long long __brevll(unsigned long long v) { return __builtin_bitreverse64(v); }
inline int __mulhi(int a, int b) { return (int)(((long long)a * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffff) * (b & 0xffffff); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
  unsigned long long both = (unsigned long long)b << 32 | a;
  unsigned all = 0;
  for (int i = 0; i < 4; i++) all |= (unsigned)(both >> 8 * (select >> 4 * i & 7) & 255) << 8 * i;
  return all;
}
inline unsigned __float_as_uint(float x) { return simt::bits<unsigned>(x); }
inline int __float_as_int(float x) { return simt::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits<float>(x); }
inline float __int_as_float(int x) { return simt::bits<float>(x); }
template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> T __ldcg(const T* at) { return *at; }

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __ushort_as_half(unsigned short x) { return __half::of(x); }
inline unsigned short __half_as_ushort(__half x) { return x.raw; }
inline __half __habs(__half x) { return fabs(x); }
inline __half __hmin(__half a, __half b) { return min(a, b); }
inline __half __hmax(__half a, __half b) { return max(a, b); }
inline bool __hisnan(__half x) { return isnan((float)x); }
#define SIMT_HALF(name) \
  inline __half h##name(__half x) { return name(x); }
SIMT_HALF(exp)
SIMT_HALF(log)
SIMT_HALF(sin)
SIMT_HALF(cos)
SIMT_HALF(sqrt)
SIMT_HALF(rsqrt)
SIMT_HALF(ceil)
SIMT_HALF(floor)
SIMT_HALF(trunc)
SIMT_HALF(rint)
#undef SIMT_HALF

template <class T, class U> T atomicAdd(T* at, U v) { return simt::atomic(at, [=](T o) { return o + (T)v; }); }
template <class T, class U> T atomicSub(T* at, U v) { return simt::atomic(at, [=](T o) { return o - (T)v; }); }
template <class T, class U> T atomicMin(T* at, U v) { return simt::atomic(at, [=](T o) { return o < (T)v ? o : (T)v; }); }
template <class T, class U> T atomicMax(T* at, U v) { return simt::atomic(at, [=](T o) { return o > (T)v ? o : (T)v; }); }
template <class T, class U> T atomicAnd(T* at, U v) { return simt::atomic(at, [=](T o) { return o & (T)v; }); }
template <class T, class U> T atomicOr(T* at, U v) { return simt::atomic(at, [=](T o) { return o | (T)v; }); }
template <class T, class U> T atomicXor(T* at, U v) { return simt::atomic(at, [=](T o) { return o ^ (T)v; }); }
template <class T, class U> T atomicExch(T* at, U v) { return simt::atomic(at, [=](T) { return (T)v; }); }
template <class T> T atomicCAS(T* at, T expected, T v) {
  return simt::atomic(at, [=](T o) { return o == expected ? v : o; });
}

// What hiprtc gives a text of ours, for a plain clang without ROCm: enough to make code for an AMD GPU
// and to count its registers. Nothing is ever run with it: `exp` and `log` are the instructions, without
// the care that ROCm's library takes at the ends of their range.
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(n) __attribute__((amdgpu_flat_work_group_size(1, n)))
#define DS4_DEVICE static __attribute__((device)) inline __attribute__((always_inline))

typedef unsigned long size_t;
typedef _Float16 __half;
typedef __bf16 __hip_bfloat16;

// threadIdx.x and the like are properties that read a register.
#define DS4_INDEX(name, prefix)                                              \
  struct name##_type {                                                       \
    __declspec(property(get = read_x)) unsigned x;                           \
    __declspec(property(get = read_y)) unsigned y;                           \
    __declspec(property(get = read_z)) unsigned z;                           \
    __device__ unsigned read_x() const { return prefix##_x(); }              \
    __device__ unsigned read_y() const { return prefix##_y(); }              \
    __device__ unsigned read_z() const { return prefix##_z(); }              \
  };                                                                         \
  static const __device__ name##_type name {}
DS4_INDEX(threadIdx, __builtin_amdgcn_workitem_id);
DS4_INDEX(blockIdx, __builtin_amdgcn_workgroup_id);
DS4_INDEX(blockDim, __builtin_amdgcn_workgroup_size);
#define DS4_BLOCKS(axis) \
  (__builtin_amdgcn_grid_size_##axis() / __builtin_amdgcn_workgroup_size_##axis())
struct gridDim_type {
  __declspec(property(get = read_x)) unsigned x;
  __declspec(property(get = read_y)) unsigned y;
  __declspec(property(get = read_z)) unsigned z;
  __device__ unsigned read_x() const { return DS4_BLOCKS(x); }
  __device__ unsigned read_y() const { return DS4_BLOCKS(y); }
  __device__ unsigned read_z() const { return DS4_BLOCKS(z); }
};
static const __device__ gridDim_type gridDim{};
#undef DS4_INDEX
#define warpSize __builtin_amdgcn_wavefrontsize()

DS4_DEVICE void __threadfence() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }
DS4_DEVICE void __syncthreads() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

DS4_DEVICE unsigned ds4_lane() { return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)); }
template <class T> DS4_DEVICE T ds4_fetch(T value, unsigned lane) {
  static_assert(sizeof(T) == 4, "registers of 32 bits are exchanged");
  return __builtin_bit_cast(T, __builtin_amdgcn_ds_bpermute((int)(lane << 2), __builtin_bit_cast(int, value)));
}
template <class T> DS4_DEVICE T __shfl(T value, unsigned lane) { return ds4_fetch(value, lane); }
template <class T> DS4_DEVICE T __shfl_xor(T value, unsigned mask) { return ds4_fetch(value, ds4_lane() ^ mask); }

template <class T> DS4_DEVICE T min(T a, T b) { return a < b ? a : b; }
template <class T> DS4_DEVICE T max(T a, T b) { return a > b ? a : b; }
DS4_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DS4_DEVICE int __popc(unsigned a) { return __builtin_popcount(a); }
DS4_DEVICE float fabs(float a) { return __builtin_fabsf(a); }
DS4_DEVICE float sqrt(float a) { return __builtin_sqrtf(a); }
DS4_DEVICE float exp(float a) { return __builtin_amdgcn_exp2f(a * 1.44269504f); }
DS4_DEVICE float log(float a) { return __builtin_amdgcn_logf(a) * 0.69314718f; }

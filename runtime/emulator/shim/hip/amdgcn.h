// AMD's builtins, with the layouts of their instruction set manuals.
#pragma once
#include "../simt.h"
#include "../numbers.h"

#define __builtin_amdgcn_wave_barrier() simt_warp_barrier()
#define __builtin_amdgcn_s_barrier() simt_barrier()
#define __builtin_amdgcn_fence(order, scope) ((void)0)
#define __builtin_amdgcn_wavefrontsize() simt_warp_size()
#define __builtin_amdgcn_readfirstlane(x) (x)

inline int simt_dot4(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
  return c;
}
// v_dot4_i32_i8 of RDNA 3 (signs given) and of CDNA.
#define __builtin_amdgcn_sudot4(sign_a, a, sign_b, b, c, clamp) simt_dot4(a, b, c)
#define __builtin_amdgcn_sdot4(a, b, c, clamp) simt_dot4(a, b, c)

namespace simt {

// An element of a matrix; bfloat16 comes as the bits of a short.
inline float element(_Float16 x) { return (float)x; }
inline float element(short x) { return bf16_to_float((unsigned short)x); }

// The operands of one lane of a matrix instruction, and those of all.
template <int A, int B> struct Operands {
  float a[A], b[B];
};
template <int A, int B> struct Wave {
  Operands<A, B> lanes[64];
  template <class VA, class VB> SIMT_HIDDEN Wave(VA a, VB b) {
    Operands<A, B> own;
    for (int i = 0; i < A; i++) own.a[i] = element(a[i]);
    for (int i = 0; i < B; i++) own.b[i] = element(b[i]);
    simt_publish(&own, sizeof own);
    for (unsigned l = 0; l < simt_warp_size(); l++) simt_read(l, &lanes[l], sizeof own);
  }
};

// D = A · B + C of 16 × 16 × 16 in a wave of 32: lane l holds row (A) or column (B) l mod 16 whole;
// element i of C and D is row 2i + l / 16, column l mod 16.
template <class V, class C> SIMT_HIDDEN C wmma_16x16x16(V a, V b, C c) {
  Wave<16, 16> wave(a, b);
  unsigned lane = simt_lane();
  for (int i = 0; i < 8; i++) {
    float sum = c[i];
    for (int k = 0; k < 16; k++) sum += wave.lanes[2 * i + lane / 16].a[k] * wave.lanes[lane % 16].b[k];
    c[i] = sum;
  }
  return c;
}

// The same of RDNA 4: lane l holds half a row or column, 8 elements from k = 8 (l / 16); element i of C and D
// is row 8 (l / 16) + i.
template <class V, class C> SIMT_HIDDEN C wmma_16x16x16_halves(V a, V b, C c) {
  Wave<8, 8> wave(a, b);
  unsigned lane = simt_lane();
  for (unsigned i = 0; i < 8; i++) {
    float sum = c[i];
    for (unsigned k = 0; k < 16; k++) {
      sum += wave.lanes[k / 8 * 16 + 8 * (lane / 16) + i].a[k % 8] * wave.lanes[k / 8 * 16 + lane % 16].b[k % 8];
    }
    c[i] = sum;
  }
  return c;
}

// D = A · B + C of N × N × K in a wave of 64: lane l holds 4 elements of row or column l mod N from
// k = 4 (l / N); element i of C and D is row 8 (i / 4) + 4 (l / N) + i mod 4 (N = 32) or
// 4 (l / N) + i (N = 16), column l mod N.
template <int N, class V, class C> SIMT_HIDDEN C mfma(V a, V b, C c) {
  Wave<4, 4> wave(a, b);
  unsigned lane = simt_lane();
  for (unsigned i = 0; i < N * N / 64; i++) {
    unsigned row = N == 32 ? 8 * (i / 4) + 4 * (lane / N) + i % 4 : 4 * (lane / N) + i;
    float sum = c[i];
    for (unsigned k = 0; k < 4 * 64 / N; k++) {
      sum += wave.lanes[k / 4 * N + row].a[k % 4] * wave.lanes[k / 4 * N + lane % N].b[k % 4];
    }
    c[i] = sum;
  }
  return c;
}

}  // namespace simt

#define __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c) simt::wmma_16x16x16(a, b, c)
#define __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c) simt::wmma_16x16x16(a, b, c)
#define __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c) simt::wmma_16x16x16_halves(a, b, c)
#define __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c) simt::wmma_16x16x16_halves(a, b, c)
#define __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, x, y, z) simt::mfma<16>(a, b, c)
#define __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, x, y, z) simt::mfma<16>(a, b, c)
#define __builtin_amdgcn_mfma_f32_32x32x8f16(a, b, c, x, y, z) simt::mfma<32>(a, b, c)

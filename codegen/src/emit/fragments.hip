// Fragments of 16 by 16 by 16 for the matrix instructions of AMD's GPUs: elements of f16 or bfloat16, sums of f32.
// Matrices on the left lie by rows, those on the right by columns, so that a lane's elements are neighbours.
//
//              elements of a lane            sums of a lane, column lane % 16
// RDNA 3       row lane % 16, all 16         rows 2i + lane / 16
// RDNA 4       row lane % 16, a half         rows 8 (lane / 16) + i
// CDNA         row lane % 16, a quarter      rows 4 (lane / 16) + i
typedef unsigned short ds4_bf16;
namespace fragments {
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout { mem_row_major };

#if DS4_MATRIX == 11
constexpr unsigned lanes = 32, held = 16, summed = 8, step = 2, above = 1;
#elif DS4_MATRIX == 12
constexpr unsigned lanes = 32, held = 8, summed = 8, step = 1, above = 8;
#else
constexpr unsigned lanes = 64, held = 4, summed = 4, step = 1, above = 4;
#endif
// What one load brings.
constexpr unsigned loaded = held < 8 ? held : 8;
typedef float sums __attribute__((ext_vector_type(summed)));

// What the instructions take: bfloat16 as bits.
template <class T> struct registers {
  typedef _Float16 elements __attribute__((ext_vector_type(held)));
  typedef _Float16 group __attribute__((ext_vector_type(loaded), may_alias));
};
template <> struct registers<ds4_bf16> {
  typedef short elements __attribute__((ext_vector_type(held)));
  typedef short group __attribute__((ext_vector_type(loaded), may_alias));
};

template <class Use, int M, int N, int K, class T, class L = void> struct fragment {
  static_assert(M == 16 && N == 16 && K == 16, "there are no others");
  typename registers<T>::elements x;
};
template <class T> struct fragment<accumulator, 16, 16, 16, T, void> {
  sums x;
};
typedef fragment<accumulator, 16, 16, 16, float> summation;

__device__ inline unsigned lane() { return threadIdx.x % lanes; }
__device__ inline unsigned place(unsigned i, unsigned stride) {
  return (i * step + lane() / 16 * above) * stride + lane() % 16;
}

__device__ inline void fill_fragment(summation& f, float value) {
  for (unsigned i = 0; i < summed; i++) f.x[i] = value;
}

template <class F, class T> __device__ inline void load_matrix_sync(F& f, const T* from, unsigned stride) {
  typedef typename registers<T>::group group;
  unsigned first = held < 16 ? lane() / 16 * held : 0;
  const group* groups = (const group*)(from + lane() % 16 * stride + first);
  for (unsigned i = 0; i < held / loaded; i++) {
    group g = groups[i];
    for (unsigned j = 0; j < loaded; j++) f.x[i * loaded + j] = g[j];
  }
}
__device__ inline void load_matrix_sync(summation& f, const float* from, unsigned stride, layout) {
  for (unsigned i = 0; i < summed; i++) f.x[i] = from[place(i, stride)];
}
__device__ inline void store_matrix_sync(float* to, const summation& f, unsigned stride, layout) {
  for (unsigned i = 0; i < summed; i++) to[place(i, stride)] = f.x[i];
}

typedef registers<float>::elements halves;
typedef registers<ds4_bf16>::elements bfloats;
#if DS4_MATRIX == 11
__device__ inline sums product(halves a, halves b, sums c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c);
}
__device__ inline sums product(bfloats a, bfloats b, sums c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c);
}
#elif DS4_MATRIX == 12
__device__ inline sums product(halves a, halves b, sums c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c);
}
__device__ inline sums product(bfloats a, bfloats b, sums c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c);
}
#else
__device__ inline sums product(halves a, halves b, sums c) {
  return __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0);
}
__device__ inline sums product(bfloats a, bfloats b, sums c) {
  return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0);
}
#endif
template <class A, class B>
__device__ inline void mma_sync(summation& d, const A& a, const B& b, const summation& c) {
  d.x = product(a.x, b.x, c.x);
}
}  // namespace fragments

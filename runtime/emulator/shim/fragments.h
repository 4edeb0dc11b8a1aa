// Matrix fragments of a warp. How elements are spread over lanes is nobody's business in CUDA: here lane
// `l` holds the `l`-th equal part of the row-major matrix.
#pragma once
#include "simt.h"

namespace simt {

struct Matrix_a;
struct Matrix_b;
struct Accumulator;
struct Row_major;
struct Col_major;
enum Layout { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K> struct Extent;
template <int M, int N, int K> struct Extent<Matrix_a, M, N, K> {
  static constexpr int rows = M, columns = K;
};
template <int M, int N, int K> struct Extent<Matrix_b, M, N, K> {
  static constexpr int rows = K, columns = N;
};
template <int M, int N, int K> struct Extent<Accumulator, M, N, K> {
  static constexpr int rows = M, columns = N;
};

// `Lanes` is the size of the warp.
template <int Lanes, class Use, int M, int N, int K, class T, class L = void> struct Fragment {
  static constexpr int rows = Extent<Use, M, N, K>::rows, columns = Extent<Use, M, N, K>::columns;
  static constexpr int num_elements = rows * columns / Lanes;
  using element_type = T;
  using layout = L;
  T x[num_elements];
};

template <class A, class B> struct Same {
  static constexpr bool value = false;
};
template <class A> struct Same<A, A> {
  static constexpr bool value = true;
};

template <class F, class T> void fill_fragment(F& f, T value) {
  for (int i = 0; i < F::num_elements; i++) f.x[i] = (typename F::element_type)value;
}

template <class F, class P> void load_fragment(F& f, P source, unsigned stride, bool by_column) {
  simt_publish(&stride, sizeof stride);
  for (int i = 0; i < F::num_elements; i++) {
    unsigned at = simt_lane() * F::num_elements + (unsigned)i;
    unsigned row = at / F::columns, column = at % F::columns;
    f.x[i] = (typename F::element_type)source[by_column ? column * stride + row : row * stride + column];
  }
}

template <class F, class P> void store_fragment(P to, const F& f, unsigned stride, bool by_column) {
  simt_publish(&stride, sizeof stride);
  for (int i = 0; i < F::num_elements; i++) {
    unsigned at = simt_lane() * F::num_elements + (unsigned)i;
    unsigned row = at / F::columns, column = at % F::columns;
    to[by_column ? column * stride + row : row * stride + column] = f.x[i];
  }
}

// d = a · b + c. Products are added one after the other in the accumulator's precision.
template <class D, class A, class B, class C>
SIMT_HIDDEN void multiply(D& d, const A& a, const B& b, const C& c) {
  struct Parts {
    decltype(a.x[0] + 0.0f) a[A::num_elements], b[B::num_elements];
  } parts;
  for (int i = 0; i < A::num_elements; i++) parts.a[i] = (float)a.x[i];
  for (int i = 0; i < B::num_elements; i++) parts.b[i] = (float)b.x[i];
  if (simt_publish(&parts, sizeof parts) + 1 != (simt_warp_size() == 64 ? 0 : 1ull << simt_warp_size())) {
    simt_fail("a product of fragments needs every lane of the warp");
  }
  float whole_a[A::rows * A::columns], whole_b[B::rows * B::columns];
  for (unsigned lane = 0; lane < simt_warp_size(); lane++) {
    Parts of;
    simt_read(lane, &of, sizeof of);
    for (int i = 0; i < A::num_elements; i++) whole_a[lane * A::num_elements + i] = of.a[i];
    for (int i = 0; i < B::num_elements; i++) whole_b[lane * B::num_elements + i] = of.b[i];
  }
  for (int i = 0; i < D::num_elements; i++) {
    unsigned at = simt_lane() * D::num_elements + (unsigned)i;
    unsigned row = at / D::columns, column = at % D::columns;
    float sum = (float)c.x[i];
    for (int k = 0; k < A::columns; k++) {
      sum += whole_a[row * A::columns + k] * whole_b[k * B::columns + column];
    }
    d.x[i] = (typename D::element_type)sum;
  }
}

}  // namespace simt

// The names under which CUDA knows all this.
#define SIMT_FRAGMENTS(Lanes)                                                                      \
  using matrix_a = simt::Matrix_a;                                                                 \
  using matrix_b = simt::Matrix_b;                                                                 \
  using accumulator = simt::Accumulator;                                                           \
  using row_major = simt::Row_major;                                                               \
  using col_major = simt::Col_major;                                                               \
  using simt::mem_col_major;                                                                       \
  using simt::mem_row_major;                                                                       \
  template <class Use, int M, int N, int K, class T, class L = void>                               \
  using fragment = simt::Fragment<Lanes, Use, M, N, K, T, L>;                                      \
  template <class F, class T> void fill_fragment(F& f, T value) { simt::fill_fragment(f, value); } \
  template <class F, class P> void load_matrix_sync(F& f, P source, unsigned stride) {             \
    simt::load_fragment(f, source, stride, simt::Same<typename F::layout, col_major>::value);      \
  }                                                                                                \
  template <class F, class P>                                                                      \
  void load_matrix_sync(F& f, P source, unsigned stride, simt::Layout layout) {                    \
    simt::load_fragment(f, source, stride, layout == mem_col_major);                               \
  }                                                                                                \
  template <class F, class P>                                                                      \
  void store_matrix_sync(P to, const F& f, unsigned stride, simt::Layout layout) {                 \
    simt::store_fragment(to, f, stride, layout == mem_col_major);                                  \
  }                                                                                                \
  template <class D, class A, class B, class C>                                                    \
  void mma_sync(D& d, const A& a, const B& b, const C& c) {                                        \
    simt::multiply(d, a, b, c);                                                                    \
  }

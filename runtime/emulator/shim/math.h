// Functions that all three languages name alike. They are those of the host's library, which are
// at least as exact as a device's.
#pragma once
#include "numbers.h"

namespace simt_math {

#define SIMT_UNARY(name, builtin)                                             \
  inline float name(float x) { return builtin(x); }                           \
  inline simt::Half name(simt::Half x) { return simt::Half(builtin((float)x)); } \
  inline simt::Bfloat name(simt::Bfloat x) { return simt::Bfloat(builtin((float)x)); }
SIMT_UNARY(exp, __builtin_expf)
SIMT_UNARY(exp2, __builtin_exp2f)
SIMT_UNARY(log, __builtin_logf)
SIMT_UNARY(log2, __builtin_log2f)
SIMT_UNARY(sin, __builtin_sinf)
SIMT_UNARY(cos, __builtin_cosf)
SIMT_UNARY(tan, __builtin_tanf)
SIMT_UNARY(tanh, __builtin_tanhf)
SIMT_UNARY(sqrt, __builtin_sqrtf)
SIMT_UNARY(ceil, __builtin_ceilf)
SIMT_UNARY(floor, __builtin_floorf)
SIMT_UNARY(trunc, __builtin_truncf)
SIMT_UNARY(rint, __builtin_rintf)
SIMT_UNARY(round, __builtin_roundf)
SIMT_UNARY(fabs, __builtin_fabsf)
#undef SIMT_UNARY

inline float expm1(float x) { return __builtin_expm1f(x); }
inline float log1p(float x) { return __builtin_log1pf(x); }
inline float erf(float x) { return __builtin_erff(x); }
inline double exp(double x) { return __builtin_exp(x); }
inline double log(double x) { return __builtin_log(x); }
inline double sqrt(double x) { return __builtin_sqrt(x); }
inline float rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
inline simt::Half rsqrt(simt::Half x) { return simt::Half(rsqrt((float)x)); }
inline float pow(float x, float y) { return __builtin_powf(x, y); }
inline float fmod(float x, float y) { return __builtin_fmodf(x, y); }
inline float atan2(float x, float y) { return __builtin_atan2f(x, y); }
inline float hypot(float x, float y) { return __builtin_hypotf(x, y); }
inline float ldexp(float x, int n) { return __builtin_ldexpf(x, n); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline simt::Half fma(simt::Half a, simt::Half b, simt::Half c) {
  // Products of two halves are exact in single precision, sums of such in double.
  return simt::Half((float)((double)((float)a * (float)b) + (double)(float)c));
}
inline bool isnan(float x) { return x != x; }
inline bool isinf(float x) { return __builtin_fabsf(x) == __builtin_inff(); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline long abs(long x) { return x < 0 ? -x : x; }
inline float abs(float x) { return __builtin_fabsf(x); }

// As the devices do: of a number and no number, the number.
inline float min(float a, float b) { return __builtin_fminf(a, b); }
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline simt::Half min(simt::Half a, simt::Half b) { return simt::Half(min((float)a, (float)b)); }
inline simt::Half max(simt::Half a, simt::Half b) { return simt::Half(max((float)a, (float)b)); }
#define SIMT_MINMAX(T)                              \
  inline T min(T a, T b) { return a < b ? a : b; } \
  inline T max(T a, T b) { return a > b ? a : b; }
SIMT_MINMAX(int)
SIMT_MINMAX(unsigned)
SIMT_MINMAX(long)
SIMT_MINMAX(unsigned long)
SIMT_MINMAX(long long)
SIMT_MINMAX(unsigned long long)
SIMT_MINMAX(double)
#undef SIMT_MINMAX

}  // namespace simt_math

// Number formats that C++ lacks: binary16, bfloat16, and the small floats of matrix units. Every
// operation rounds once, to nearest even.
#pragma once
#include "simt.h"

namespace simt {

inline float half_to_float(unsigned short h) {
  unsigned sign = (unsigned)(h >> 15) << 31, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return bits<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) return bits<float>(sign | bits<unsigned>((float)mantissa * 0x1p-24f));
  return bits<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

inline unsigned short float_to_half(float x) {
  unsigned u = bits<unsigned>(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000u) return (unsigned short)(sign | 0x7e00);
  if (magnitude >= 0x477ff000u) return (unsigned short)(sign | 0x7c00);
  if (magnitude < 0x38800000u) {
    // Below the smallest normal number: adding a half shifts the bits that stay to the bottom.
    float shifted = bits<float>(magnitude) + 0.5f;
    return (unsigned short)(sign | (bits<unsigned>(shifted) - 0x3f000000u));
  }
  unsigned rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return (unsigned short)(sign | (rounded - 0x38000000u) >> 13);
}

inline float bf16_to_float(unsigned short b) { return bits<float>((unsigned)b << 16); }

inline unsigned short float_to_bf16(float x) {
  unsigned u = bits<unsigned>(x);
  if ((u & 0x7fffffff) > 0x7f800000u) return (unsigned short)(u >> 16 | 0x40);
  return (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

template <float (*Decode)(unsigned short), unsigned short (*Encode)(float)> struct Short {
  unsigned short raw;
  Short() = default;
  Short(float x) : raw(Encode(x)) {}
  Short(double x) : raw(Encode((float)x)) {}
  Short(int x) : raw(Encode((float)x)) {}
  Short(unsigned x) : raw(Encode((float)x)) {}
  Short(long x) : raw(Encode((float)x)) {}
  Short(unsigned long x) : raw(Encode((float)x)) {}
  Short(long long x) : raw(Encode((float)x)) {}
  Short(unsigned long long x) : raw(Encode((float)x)) {}
  template <float (*D)(unsigned short), unsigned short (*E)(float)>
  explicit Short(Short<D, E> x) : raw(Encode((float)x)) {}
  operator float() const { return Decode(raw); }
  Short operator-() const { return of(raw ^ 0x8000); }
  Short& operator+=(Short o) { return *this = *this + o; }
  Short& operator-=(Short o) { return *this = *this - o; }
  Short& operator*=(Short o) { return *this = *this * o; }
  Short& operator/=(Short o) { return *this = *this / o; }
  static Short of(int raw) {
    Short x;
    x.raw = (unsigned short)raw;
    return x;
  }
  friend Short operator+(Short a, Short b) { return Short((float)a + (float)b); }
  friend Short operator-(Short a, Short b) { return Short((float)a - (float)b); }
  friend Short operator*(Short a, Short b) { return Short((float)a * (float)b); }
  friend Short operator/(Short a, Short b) { return Short((float)a / (float)b); }
  // With a float the result is a float.
  friend float operator+(Short a, float b) { return (float)a + b; }
  friend float operator-(Short a, float b) { return (float)a - b; }
  friend float operator*(Short a, float b) { return (float)a * b; }
  friend float operator/(Short a, float b) { return (float)a / b; }
  friend float operator+(float a, Short b) { return a + (float)b; }
  friend float operator-(float a, Short b) { return a - (float)b; }
  friend float operator*(float a, Short b) { return a * (float)b; }
  friend float operator/(float a, Short b) { return a / (float)b; }
  friend bool operator<(Short a, float b) { return (float)a < b; }
  friend bool operator>(Short a, float b) { return (float)a > b; }
  friend bool operator==(Short a, Short b) { return (float)a == (float)b; }
  friend bool operator!=(Short a, Short b) { return (float)a != (float)b; }
  friend bool operator<(Short a, Short b) { return (float)a < (float)b; }
  friend bool operator<=(Short a, Short b) { return (float)a <= (float)b; }
  friend bool operator>(Short a, Short b) { return (float)a > (float)b; }
  friend bool operator>=(Short a, Short b) { return (float)a >= (float)b; }
};

using Half = Short<half_to_float, float_to_half>;
using Bfloat = Short<bf16_to_float, float_to_bf16>;

// A float of `E` exponent and `M` mantissa bits with a sign, without infinities: e4m3 and e2m1.
template <int E, int M> float small_to_float(unsigned code) {
  unsigned exponent = code >> M & ((1u << E) - 1), mantissa = code & ((1u << M) - 1);
  int bias = (1 << (E - 1)) - 1;
  float scale = exponent == 0 ? bits<float>((unsigned)(127 + 1 - bias - M) << 23)
                              : bits<float>((unsigned)(127 + (int)exponent - bias - M) << 23);
  float magnitude = (float)(exponent == 0 ? mantissa : mantissa | 1u << M) * scale;
  if (E == 4 && (code & 127) == 127) magnitude = __builtin_nanf("");
  return code >> (E + M) & 1 ? -magnitude : magnitude;
}

// The nearest code, ties to even, saturating.
template <int E, int M> unsigned float_to_small(float x) {
  unsigned sign = bits<unsigned>(x) >> 31 << (E + M);
  if (x != x) return E == 4 ? sign | 127 : sign | ((1u << (E + M)) - 1);
  float magnitude = x < 0 ? -x : x;
  unsigned top = (1u << (E + M)) - 1 - (E == 4 ? 1 : 0), best = 0;
  if (magnitude >= small_to_float<E, M>(top)) return sign | top;
  while (best < top && small_to_float<E, M>(best + 1) <= magnitude) best++;
  float below = magnitude - small_to_float<E, M>(best), above = small_to_float<E, M>(best + 1) - magnitude;
  if (above < below || (above == below && (best & 1))) best++;
  return sign | best;
}

// 2^(code - 127); 255 is no number.
inline float e8m0_to_float(unsigned char code) {
  if (code == 255) return __builtin_nanf("");
  return code == 0 ? 0x1p-127f : bits<float>((unsigned)code << 23);
}

}  // namespace simt

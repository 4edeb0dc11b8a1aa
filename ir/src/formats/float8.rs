//! Floats of eight and four bits, and their power-of-two scales (spec 4.4).
//!
//! Encoding rounds to nearest, ties to the even code, and keeps the sign of zero. What is too large,
//! infinity included, becomes the largest number: these formats have no infinity.
use super::minifloat::{magnitude, nearest_code};

/// The value of an FP8 E4M3 code, exact; `0x7f` and `0xff` are NaN.
#[inline]
pub fn e4m3_to_f32(code: u8) -> f32 {
    let code = u32::from(code);
    let finite = magnitude::<4, 3>(code & 0x7f).to_bits();
    let bits = if code & 0x7f == 0x7f { 0x7fc0_0000 } else { finite };
    f32::from_bits(bits | (code & 0x80) << 24)
}

/// The FP8 E4M3 code nearest to `x`, at most ±448; NaN becomes `0x7f` or `0xff` after its sign.
#[inline]
pub fn f32_to_e4m3(x: f32) -> u8 {
    let sign = (x.to_bits() >> 24 & 0x80) as u8;
    let code = nearest_code::<4, 3>(x.abs().min(448.0)) as u8;
    sign | if x.is_nan() { 0x7f } else { code }
}

/// The value of the FP4 E2M1 code in the low four bits, exact.
#[inline]
pub fn e2m1_to_f32(code: u8) -> f32 {
    let code = u32::from(code);
    f32::from_bits(magnitude::<2, 1>(code & 7).to_bits() | (code & 8) << 28)
}

/// The FP4 E2M1 code nearest to `x`, at most ±6; NaN, which the format lacks, becomes ±6 after its sign.
#[inline]
pub fn f32_to_e2m1(x: f32) -> u8 {
    let sign = (x.to_bits() >> 28 & 8) as u8;
    // `min` answers 6 for NaN.
    sign | nearest_code::<2, 1>(x.abs().min(6.0)) as u8
}

/// 2^(code - 127), exact; 255 is NaN.
#[inline]
pub fn e8m0_to_f32(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

/// The E8M0 code of the smallest power of two ≥ `x`, read off the bits of `x` (spec 6.2).
///
/// `x` is positive, normal and at most 2^127; anything else gives some code, see the bits.
#[inline]
pub fn pow2_ceil(x: f32) -> u8 {
    let bits = x.to_bits();
    ((bits >> 23) + u32::from(bits & 0x7f_ffff != 0)) as u8
}

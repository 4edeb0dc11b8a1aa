//! Sixteen bit floats. Every code survives decoding and encoding, NaN payloads included.
//!
//! Encoding rounds to nearest, ties to even; what is too large becomes infinity. A NaN keeps its sign
//! and the upper bits of its payload, or becomes the quiet NaN where those bits are all zero.
use super::minifloat::{magnitude, nearest_code};

/// The value of an IEEE binary16 code, exact.
#[inline]
pub fn f16_to_f32(code: u16) -> f32 {
    let code = u32::from(code);
    let magnitude_code = code & 0x7fff;
    let finite = magnitude::<5, 10>(magnitude_code).to_bits();
    let special = magnitude_code << 13 | 0x7f80_0000;
    let bits = if magnitude_code < 0x7c00 { finite } else { special };
    f32::from_bits(bits | (code & 0x8000) << 16)
}

/// The IEEE binary16 code nearest to `x`.
#[inline]
pub fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    if x.is_nan() {
        let payload = (x.to_bits() >> 13 & 0x3ff) as u16;
        return sign | 0x7c00 | if payload == 0 { 0x200 } else { payload };
    }
    // The code of 65536 is the code of infinity.
    sign | nearest_code::<5, 10>(x.abs().min(65536.0)) as u16
}

/// The value of a bfloat16 code (the upper half of a binary32), exact.
#[inline]
pub fn bf16_to_f32(code: u16) -> f32 {
    f32::from_bits(u32::from(code) << 16)
}

/// The bfloat16 code nearest to `x`.
#[inline]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let upper = (bits >> 16) as u16;
    if x.is_nan() {
        return if upper & 0x7f == 0 { upper | 0x40 } else { upper };
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

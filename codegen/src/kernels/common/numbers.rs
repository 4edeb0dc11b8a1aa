//! Plain numbers of weights, read one by one, and the values of small float codes.
#[cfg(feature = "gpu")]
use {super::words::halves, cubecl::prelude::*, half::f16};

use ds4_ir::Scalar;

/// A plain number as a file holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Number {
    F32,
    F16,
    Bf16,
}

impl Number {
    /// The number of that element type, if it is a plain one.
    pub(crate) fn of(scalar: Scalar) -> Option<Number> {
        match scalar {
            Scalar::F32 => Some(Number::F32),
            Scalar::F16 => Some(Number::F16),
            Scalar::Bf16 => Some(Number::Bf16),
            _ => None,
        }
    }
}

/// Number `i` of a weight.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn number(w: &[u32], i: usize, #[comptime] kind: Number) -> f32 {
    if comptime!(kind == Number::F32) {
        f32::reinterpret(w[i])
    } else if comptime!(kind == Number::F16) {
        f16_value(u32::cast_from(halves(w)[i]))
    } else {
        bf16_value(u32::cast_from(halves(w)[i]))
    }
}

/// The number whose binary16 bits are the low half of `bits`.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn f16_value(bits: u32) -> f32 {
    f32::cast_from(f16::reinterpret(u16::cast_from(bits)))
}

/// The number whose upper half is the low half of `bits`.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn bf16_value(bits: u32) -> f32 {
    f32::reinterpret(bits << 16u32)
}

/// The value of the E4M3 code in the low byte of `bits`; what lies above it is ignored.
///
/// The code shifted into a binary16 is its value times 2^-8, subnormal codes included.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn e4m3_value(bits: u32) -> f32 {
    let magnitude = bits & 0x7fu32;
    let value = f16_value((magnitude << 7u32) | ((bits & 0x80u32) << 8u32)) * 256.0f32;
    select(magnitude == 0x7fu32, f32::reinterpret(0x7fc0_0000u32), value)
}

/// The value of the E2M1 code in the low four bits of `bits`; what lies above them is ignored.
///
/// The code shifted into a binary16 is its value times 2^-14.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn e2m1_value(bits: u32) -> f32 {
    f16_value(((bits & 7u32) << 9u32) | ((bits & 8u32) << 12u32)) * 16384.0f32
}

/// 2^(code - 127) for a code of 0 to 254, NaN for 255.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn e8m0_value(code: u32) -> f32 {
    let normal = select(code == 255u32, 0x7fc0_0000u32, code << 23u32);
    f32::reinterpret(select(code == 0u32, 0x0040_0000u32, normal))
}

/// The signed value of byte `i` of a word.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn signed_byte(word: u32, #[comptime] i: u32) -> f32 {
    let shift = comptime!(24 - 8 * i);
    f32::cast_from(i32::reinterpret(word << shift) >> 24i32)
}

/// The integer nearest to `x`, ties to even; `x` is below 2^22 in magnitude.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn nearest(x: f32) -> f32 {
    // In [2^23, 2^24) floats are the integers, so the addition rounds.
    let shifted = x + 12_582_912.0f32;
    f32::cast_from(i32::reinterpret(shifted) - 0x4b40_0000i32)
}

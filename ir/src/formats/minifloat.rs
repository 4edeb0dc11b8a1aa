//! Floats with fewer bits than `f32`, IEEE-like, without a sign: `E` exponent bits over `M` mantissa bits.
//!
//! Both directions are exact on the finite codes and free of branches, so loops over them vectorise.
//! What the top exponent means (infinity, NaN, numbers) is the business of each format.

const fn bias(e: u32) -> u32 {
    (1 << (e - 1)) - 1
}

const fn pow2(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

/// The value of a code below `2^(E + M)`, every exponent read as a number.
#[inline]
pub(super) fn magnitude<const E: u32, const M: u32>(code: u32) -> f32 {
    let unit = const { pow2(1 - bias(E) as i32 - M as i32) };
    let subnormal = code as i32 as f32 * unit;
    let normal = f32::from_bits((code << (23 - M)) + ((127 - bias(E)) << 23));
    if code < 1 << M { subnormal } else { normal }
}

/// The code nearest to `a`, ties to the even code; `0 ≤ a ≤ 2^(2^E - bias)`, one binade above the
/// largest exponent, whose code is `2^(E + M)`.
#[inline]
pub(super) fn nearest_code<const E: u32, const M: u32>(a: f32) -> u32 {
    let per_unit = const { pow2(bias(E) as i32 + M as i32 - 1) };
    // Adding 2^23 pushes the fraction out, and the hardware rounds it to nearest even.
    let subnormal = (a * per_unit + 8_388_608.0).to_bits() & 0x7f_ffff;
    let bits = a.to_bits();
    let half = const { (1 << (22 - M)) - 1 };
    let normal = (bits + half + (bits >> (23 - M) & 1)) >> (23 - M);
    let rebased = normal.wrapping_sub((127 - bias(E)) << M);
    if a < const { pow2(1 - bias(E) as i32) } { subnormal } else { rebased }
}

//! Numbers rounded to small float codes: to nearest, ties to the even code.
use super::nearest;
use cubecl::prelude::*;

/// The E4M3 code nearest to `x`, which is at most ±448 and no NaN.
#[cube]
pub(crate) fn e4m3_code(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    let magnitude = bits & 0x7fff_ffffu32;
    // Three bits of fraction stay, and the exponent loses 120 of its bias.
    let rounded = magnitude + 0x7_ffffu32 + ((magnitude >> 20u32) & 1u32);
    let normal = (rounded >> 20u32) - comptime!(120u32 << 3);
    let subnormal = u32::cast_from(nearest(f32::reinterpret(magnitude) * 512.0f32));
    let code = select(magnitude < 0x3c80_0000u32, subnormal, normal);
    code | ((bits >> 24u32) & 0x80u32)
}

/// The E2M1 code nearest to `x`, which is at most ±6 and no NaN.
#[cube]
pub(crate) fn e2m1_code(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    let magnitude = bits & 0x7fff_ffffu32;
    // One bit of fraction stays, and the exponent loses 126 of its bias.
    let rounded = magnitude + 0x1f_ffffu32 + ((magnitude >> 22u32) & 1u32);
    let normal = (rounded >> 22u32) - comptime!(126u32 << 1);
    let subnormal = u32::cast_from(nearest(f32::reinterpret(magnitude) * 2.0f32));
    let code = select(magnitude < 0x3f80_0000u32, subnormal, normal);
    code | ((bits >> 28u32) & 8u32)
}

/// The E8M0 code of the smallest power of two that is at least `x`, a positive normal number.
#[cube]
pub(crate) fn pow2_ceil(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    (bits >> 23u32) + select((bits & 0x7f_ffffu32) != 0u32, 1u32, 0u32)
}

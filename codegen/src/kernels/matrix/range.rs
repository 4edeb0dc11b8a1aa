//! Powers of two that keep elements in the range of f16.
//!
//! A power of two is held by the exponent that an f32 has for it, 127 for 1.
use super::{Element, Matrix};
use crate::kernels::common::{byte_at, e8m0_value, f16_value, half_at};
use crate::kernels::formats::Staged;
use crate::kernels::product::round_bf16;
use cubecl::prelude::*;
use ds4_ir::Scalar;
use half::f16;

/// Least and largest exponent of a factor: its inverse is a normal number too.
const EXPONENTS: (u32, u32) = (1, 253);
/// A number whose exponent is e times one of exponent `TOP - e` is below 2^15.
const TOP: u32 = 127 + 127 + 14;
/// Matrices begin so many powers of two below: chunks of a matrix have scales that are alike.
const HEADROOM: u32 = 6;

/// 2^(exponent - 127).
#[cube]
pub(super) fn power(exponent: u32) -> f32 {
    f32::reinterpret(exponent << 23u32)
}

/// The bits of a magnitude, which order as magnitudes do.
#[cube]
pub(super) fn magnitude(x: f32) -> u32 {
    u32::reinterpret(x) & 0x7fff_ffffu32
}

/// The exponent of the factor for an input whose largest magnitude has these bits.
#[cube]
pub(super) fn input_exponent(top: u32) -> u32 {
    clamp(TOP - (top >> 23u32), EXPONENTS.0, EXPONENTS.1)
}

/// The exponent for a block of rows under `exponent` (0: under none yet) whose next elements are below what these
/// bits say.
#[cube]
pub(super) fn matrix_exponent(exponent: u32, bound: u32) -> u32 {
    let most = TOP - (bound >> 23u32);
    let fresh = clamp(most - HEADROOM, EXPONENTS.0, EXPONENTS.1);
    select(exponent == 0u32 || exponent > most, fresh, exponent)
}

/// What sums become where the exponent falls from one to another; below the smallest number nothing is left of them.
#[cube]
pub(super) fn fall(from: u32, to: u32) -> f32 {
    power(max(127u32 + to, from) - from)
}

/// The largest over the block, the same in every thread. All threads call it; `partial` holds a number per subgroup
/// and is free again behind the next barrier.
#[cube]
pub(super) fn block_max(x: u32, partial: &mut Shared<[u32]>, #[comptime] subgroups: u32) -> u32 {
    let top = plane_max(x);
    if UNIT_POS_PLANE == 0 {
        partial[(UNIT_POS / PLANE_DIM) as usize] = top;
    }
    sync_cube();
    let mut all = 0u32;
    #[unroll]
    for i in 0..subgroups {
        all = max(all, partial[i as usize]);
    }
    all
}

/// Two numbers rounded to elements, the first in the low half.
#[cube]
pub(super) fn both(low: f32, high: f32, #[comptime] element: Element) -> u32 {
    if comptime!(element == Element::Bf16) {
        (u32::reinterpret(round_bf16(low)) >> 16u32) | u32::reinterpret(round_bf16(high))
    } else {
        let low = u32::cast_from(u16::reinterpret(f16::cast_from(low)));
        low | (u32::cast_from(u16::reinterpret(f16::cast_from(high))) << 16u32)
    }
}

/// Heads of a chunk of a row: blocks, or scales that lie apart.
pub(super) fn heads(m: Matrix) -> u32 {
    m.chunk / columns_of_head(m)
}

/// Columns under a head.
fn columns_of_head(m: Matrix) -> u32 {
    match m.weight.staged() {
        Staged::Scales => m.weight.units_per_scale() * m.weight.unit(),
        _ => m.weight.scalar.block() as u32,
    }
}

/// Heads of a whole row.
pub(super) fn all_heads(m: Matrix) -> u32 {
    m.weight.width.div_ceil(columns_of_head(m))
}

/// What no magnitude under head `head` exceeds, where the staged bytes of the chunk begin with byte `first` of the
/// window.
#[cube]
pub(super) fn bound(window: &[u32], first: usize, head: usize, #[comptime] m: Matrix) -> f32 {
    let scalar = comptime!(m.weight.scalar);
    if comptime!(m.weight.staged() == Staged::Scales) {
        let largest = comptime!(if scalar == Scalar::Fp8 { 448.0f32 } else { 6.0f32 });
        e8m0_value(byte_at(window, first + head)) * largest
    } else {
        let at = first + head * comptime!(m.weight.code_bytes(scalar.block() as u32) as usize);
        if comptime!(scalar == Scalar::Mxfp4) {
            e8m0_value(byte_at(window, at)) * 6.0f32
        } else if comptime!(scalar == Scalar::Q4K) {
            size(window, at) * comptime!(63.0f32 * 15.0) + size(window, at + 2) * 63.0f32
        } else if comptime!(scalar == Scalar::Q2K) {
            size(window, at + 80) * comptime!(15.0f32 * 3.0) + size(window, at + 82) * 15.0f32
        } else if comptime!(scalar == Scalar::Iq2Xxs) {
            size(window, at) * comptime!(15.5f32 * 0.25 * 43.0)
        } else {
            size(window, at) * 128.0f32
        }
    }
}

/// The magnitude of the binary16 from the even byte `byte` on.
#[cube]
fn size(window: &[u32], byte: usize) -> f32 {
    f16_value(half_at(window, byte)).abs()
}

//! Units as signed bytes: what a product with an input of signed bytes sums exactly.
//!
//! The value of an element is `scale · byte - min`. A unit is 16 elements, four words of four neighbours.
use super::iq2xxs::Vectors;
use super::unit::fetch;
use super::{Place, RowFormat, kquant, scaled};
use crate::kernels::common::{byte_at, e8m0_value, f16_value, half_at, words_at};
use cubecl::prelude::*;
use ds4_ir::Scalar;

/// The lowest bit of every byte.
const ONES: u32 = 0x0101_0101;

/// Scale and minimum of unit `unit` of the row at `place`, its bytes into `out`. A format without minimums
/// has 0.
#[cube]
pub(crate) fn decode_bytes(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    place: &Place,
    unit: usize,
    out: &mut Array<u32>,
    #[comptime] format: RowFormat,
) -> (f32, f32) {
    let scalar = comptime!(format.scalar);
    let row = place.codes;
    if comptime!(scalar == Scalar::Q4K) {
        masked(&kquant::q4_k_words(codes, row, unit), 15u32, out);
        kquant::q4_k_scales(codes, row, unit)
    } else if comptime!(scalar == Scalar::Q2K) {
        masked(&kquant::q2_k_words(codes, row, unit), 3u32, out);
        kquant::q2_k_scales(codes, row, unit)
    } else if comptime!(scalar == Scalar::Q8_0) {
        (q8_0(codes, row, unit, out), 0.0f32.runtime())
    } else if comptime!(scalar == Scalar::Mxfp4) {
        (mxfp4(codes, row, unit, out), 0.0f32.runtime())
    } else if comptime!(scalar == Scalar::Fp4) {
        fp4(codes, row, unit, out);
        (scaled::scale_of(scales, place, unit, format) * 0.5f32, 0.0f32.runtime())
    } else {
        (iq2_xxs(codes, table, row, unit, out), 0.0f32.runtime())
    }
}

/// The low bits `mask` of every byte.
#[cube]
fn masked(words: &Array<u32>, #[comptime] mask: u32, out: &mut Array<u32>) {
    #[unroll]
    for i in 0..4usize {
        out[i] = words[i] & comptime!(mask * ONES);
    }
}

/// Bytes as they are; answers the scale, as the functions below do.
#[cube]
fn q8_0(codes: &[u32], row: usize, unit: usize, out: &mut Array<u32>) -> f32 {
    let block = row + unit / 2usize * 34usize;
    let words = words_at(codes, block + 2usize + unit % 2usize * 16usize, 4u32);
    #[unroll]
    for i in 0..4usize {
        out[i] = words[i];
    }
    f16_value(half_at(codes, block))
}

/// Twice the values, under half the scale.
#[cube]
fn mxfp4(codes: &[u32], row: usize, unit: usize, out: &mut Array<u32>) -> f32 {
    let block = row + unit / 2usize * 17usize;
    let words = words_at(codes, block + 1usize, 4u32);
    let nibble = 4u32 * u32::cast_from(unit % 2usize);
    #[unroll]
    for i in 0..4usize {
        out[i] = doubled_e2m1(words[i] >> nibble);
    }
    e8m0_value(byte_at(codes, block)) * 0.5f32
}

/// Twice the values.
#[cube]
fn fp4(codes: &[u32], row: usize, unit: usize, out: &mut Array<u32>) {
    let words = fetch(codes, row + unit * 8usize, 8u32);
    #[unroll]
    for i in 0..2usize {
        let (low, high) = (doubled_e2m1(words[i]), doubled_e2m1(words[i] >> 4u32));
        out[2 * i] = alternating(low & 0xffffu32, high & 0xffffu32);
        out[2 * i + 1] = alternating(low >> 16u32, high >> 16u32);
    }
}

/// Twice the values of the E2M1 codes in the low halves of four bytes, as signed bytes.
#[cube]
fn doubled_e2m1(codes: u32) -> u32 {
    let magnitude = codes & comptime!(7 * ONES);
    let (one, two, four) = (magnitude, magnitude >> 1u32, magnitude >> 2u32);
    // 0 to 4 stand for themselves, 5 to 7 for 6, 8 and 12.
    let five = four & (one | two) & ONES;
    let six = four & two & ONES;
    let seven = six & one;
    let value = magnitude + five + six + 3u32 * seven;
    let minus = (codes >> 3u32) & (one | two | four) & ONES;
    negated(value, minus)
}

/// Bytes with the sign changed where `minus` has a one; such bytes are not 0.
#[cube]
fn negated(bytes: u32, minus: u32) -> u32 {
    (bytes ^ (minus * 255u32)) + minus
}

/// The bytes of two half words, those of the first in the even places.
#[cube]
fn alternating(even: u32, odd: u32) -> u32 {
    let spread = (even & 0xffu32) | ((even & 0xff00u32) << 8u32);
    spread | ((odd & 0xffu32) << 8u32) | ((odd & 0xff00u32) << 16u32)
}

/// As [`super::iq2xxs::iq2_xxs`] has it.
#[cube]
fn iq2_xxs(codes: &[u32], table: &[u32], row: usize, unit: usize, out: &mut Array<u32>) -> f32 {
    let block = row + unit / 16usize * 66usize;
    let vectors = Vectors::of(codes, block, unit);
    #[unroll]
    for k in 0..2usize {
        let index = vectors.index(k);
        let code = vectors.signs(k);
        #[unroll]
        for w in 0..2usize {
            // The four bits, one to a byte.
            let minus = (((code >> comptime!(4 * w as u32)) & 15u32) * 0x0020_4081u32) & ONES;
            out[2 * k + w] = negated(table[2 * index + w], minus);
        }
    }
    f16_value(half_at(codes, block)) * vectors.scale()
}

/// Adds the products of four signed bytes of `a` and `b` to `sum`.
#[cube]
pub(crate) fn dot_bytes(a: u32, b: u32, sum: i32) -> i32 {
    dp4a(i32::reinterpret(a), i32::reinterpret(b), sum)
}

/// Adds four signed bytes to `sum`.
#[cube]
pub(crate) fn sum_bytes(a: u32, sum: i32) -> i32 {
    dp4a(i32::reinterpret(a), comptime!(ONES as i32), sum)
}

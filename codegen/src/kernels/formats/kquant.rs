//! Super-blocks of 256 codes with scales and minima that are themselves codes; sixteen units.
use super::unit::fetch;
use crate::kernels::common::f16_value;
use cubecl::prelude::*;

/// Block of 144 bytes: f16 scale, f16 minimum, 12 bytes of six bit scales and minima, 128 bytes of
/// nibbles. Two units are the low or the high nibbles of 32 bytes, under one scale.
#[cube]
pub(super) fn q4_k(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let (scale, min) = q4_k_scales(codes, row, unit);
    let words = q4_k_words(codes, row, unit);
    numbers(&words, scale, min, 15u32, out);
}

/// Scale and minimum of a unit of `q4_k`.
#[cube]
pub(super) fn q4_k_scales(codes: &[u32], row: usize, unit: usize) -> (f32, f32) {
    let sub = u32::cast_from(unit % 16usize / 2usize);
    let head = fetch(codes, row + unit / 16usize * 144usize, 16u32);
    let shift = 8u32 * (sub % 4u32);
    let low = head[1] >> shift;
    let middle = head[2] >> shift;
    let high = head[3] >> shift;
    let first = sub < 4u32;
    let scale = select(first, low & 63u32, (high & 15u32) | ((low >> 2u32) & 48u32));
    let min = select(first, middle & 63u32, ((high >> 4u32) & 15u32) | ((middle >> 2u32) & 48u32));
    (f16_value(head[0]) * f32::cast_from(scale), f16_value(head[0] >> 16u32) * f32::cast_from(min))
}

/// Four words whose bytes hold the codes of a unit of `q4_k` in their low four bits.
#[cube]
pub(super) fn q4_k_words(codes: &[u32], row: usize, unit: usize) -> Array<u32> {
    let block = row + unit / 16usize * 144usize;
    let at = block + 16usize + unit % 16usize / 4usize * 32usize + unit % 2usize * 16usize;
    let mut words = fetch(codes, at, 16u32);
    shift_right(&mut words, 4u32 * u32::cast_from(unit / 2usize % 2usize));
    words
}

/// Block of 84 bytes: 16 scales (low nibble) and minima (high nibble), 64 bytes of two bit codes, f16
/// scale, f16 minimum. A unit is two of the eight bits of 16 bytes, with a scale of its own.
#[cube]
pub(super) fn q2_k(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let (scale, min) = q2_k_scales(codes, row, unit);
    let words = q2_k_words(codes, row, unit);
    numbers(&words, scale, min, 3u32, out);
}

/// Scale and minimum of a unit of `q2_k`.
#[cube]
pub(super) fn q2_k_scales(codes: &[u32], row: usize, unit: usize) -> (f32, f32) {
    let block = (row + unit / 16usize * 84usize) / 4usize;
    let sub = unit % 16usize;
    let d = codes[block + 20];
    let code = codes[block + sub / 4usize] >> (8u32 * u32::cast_from(sub % 4usize));
    let scale = f16_value(d) * f32::cast_from(code & 15u32);
    (scale, f16_value(d >> 16u32) * f32::cast_from((code >> 4u32) & 15u32))
}

/// Four words whose bytes hold the codes of a unit of `q2_k` in their low two bits.
#[cube]
pub(super) fn q2_k_words(codes: &[u32], row: usize, unit: usize) -> Array<u32> {
    let block = (row + unit / 16usize * 84usize) / 4usize;
    let sub = unit % 16usize;
    let at = block + 4 + sub / 8usize * 8usize + sub % 2usize * 4usize;
    let mut words = Array::<u32>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        words[i] = codes[at + i];
    }
    shift_right(&mut words, 2u32 * u32::cast_from(sub / 2usize % 4usize));
    words
}

#[cube]
fn shift_right(words: &mut Array<u32>, bits: u32) {
    #[unroll]
    for i in 0..4usize {
        let word = words[i];
        words[i] = word >> bits;
    }
}

/// `scale · q - min` for the codes q, the bits `mask` of the bytes of four words.
#[cube]
fn numbers(words: &Array<u32>, scale: f32, min: f32, #[comptime] mask: u32, out: &mut Array<f32>) {
    #[unroll]
    for i in 0..4usize {
        #[unroll]
        for j in 0..4usize {
            let q = (words[i] >> comptime!(8 * j as u32)) & mask;
            out[4 * i + j] = scale * f32::cast_from(q) - min;
        }
    }
}

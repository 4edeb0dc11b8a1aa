//! Signed bytes under one scale per block.
use crate::kernels::common::{f16_value, half_at, signed_byte, words_at};
use cubecl::prelude::*;

/// Block of 34 bytes: f16 scale, 32 codes; two units. Blocks begin at even bytes.
#[cube]
pub(super) fn q8_0(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = row + unit / 2usize * 34usize;
    let d = f16_value(half_at(codes, block));
    let words = words_at(codes, block + 2usize + unit % 2usize * 16usize, 4u32);
    scaled_bytes(&words, d, out);
}

/// Block of 292 bytes: f32 scale, 256 codes, 16 sums; sixteen units.
#[cube]
pub(super) fn q8_k(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = row + unit / 16usize * 292usize;
    let d = f32::reinterpret(codes[block / 4usize]);
    let words = words_at(codes, block + 4usize + unit % 16usize * 16usize, 4u32);
    scaled_bytes(&words, d, out);
}

#[cube]
fn scaled_bytes(words: &Array<u32>, d: f32, out: &mut Array<f32>) {
    #[unroll]
    for i in 0..4usize {
        #[unroll]
        for j in 0..4u32 {
            out[4 * i + j as usize] = d * signed_byte(words[i], j);
        }
    }
}

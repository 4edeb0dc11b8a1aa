//! Signed bytes under one scale per block.
use crate::kernels::common::{f16_value, halves, signed_byte};
use cubecl::prelude::*;

/// Block of 34 bytes: f16 scale, 32 codes. Blocks begin at even bytes.
#[cube]
pub(super) fn q8_0(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let halves = halves(codes);
    let at = (row + unit * 34usize) / 2usize;
    let d = f16_value(u32::cast_from(halves[at]));
    #[unroll]
    for i in 0..16usize {
        let pair = u32::cast_from(halves[at + 1 + i]);
        out[2 * i] = d * signed_byte(pair, 0u32);
        out[2 * i + 1] = d * signed_byte(pair, 1u32);
    }
}

/// Block of 292 bytes: f32 scale, 256 codes, 16 sums. Eight units per block.
#[cube]
pub(super) fn q8_k(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = (row + unit / 8usize * 292usize) / 4usize;
    let d = f32::reinterpret(codes[block]);
    let at = block + 1 + unit % 8usize * 8usize;
    #[unroll]
    for i in 0..8usize {
        let word = codes[at + i];
        #[unroll]
        for j in 0..4u32 {
            out[4 * i + j as usize] = d * signed_byte(word, j);
        }
    }
}

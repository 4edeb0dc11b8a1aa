//! Super-blocks of 256 codes with scales and minima that are themselves codes; eight units per block.
use crate::kernels::common::f16_value;
use cubecl::prelude::*;

/// Block of 144 bytes: f16 scale, f16 minimum, 12 bytes of six bit scales and minima, 128 bytes of
/// nibbles. A unit is the low or the high nibbles of 32 bytes.
#[cube]
pub(super) fn q4_k(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = (row + unit / 8usize * 144usize) / 4usize;
    let sub = u32::cast_from(unit % 8usize);
    let d = codes[block];
    let shift = 8u32 * (sub % 4u32);
    let low = codes[block + 1] >> shift;
    let middle = codes[block + 2] >> shift;
    let high = codes[block + 3] >> shift;
    let first = sub < 4u32;
    let scale = select(first, low & 63u32, (high & 15u32) | ((low >> 2u32) & 48u32));
    let min = select(first, middle & 63u32, ((high >> 4u32) & 15u32) | ((middle >> 2u32) & 48u32));
    let scale = f16_value(d) * f32::cast_from(scale);
    let min = f16_value(d >> 16u32) * f32::cast_from(min);
    let at = block + 4 + unit % 8usize / 2usize * 8usize;
    let nibble = 4u32 * (sub % 2u32);
    #[unroll]
    for i in 0..8usize {
        let word = codes[at + i] >> nibble;
        #[unroll]
        for j in 0..4usize {
            let q = (word >> comptime!(8 * j as u32)) & 15u32;
            out[4 * i + j] = scale * f32::cast_from(q) - min;
        }
    }
}

/// Block of 84 bytes: 16 scales (low nibble) and minima (high nibble), 64 bytes of two bit codes, f16
/// scale, f16 minimum. A unit is two of the eight bits of 32 bytes, with two scales.
#[cube]
pub(super) fn q2_k(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = (row + unit / 8usize * 84usize) / 4usize;
    let sub = u32::cast_from(unit % 8usize);
    let d = codes[block + 20];
    let both = codes[block + unit % 8usize / 2usize] >> (16u32 * (sub % 2u32));
    let at = block + 4 + unit % 8usize / 4usize * 8usize;
    let shift = 2u32 * (sub % 4u32);
    #[unroll]
    for b in 0..2usize {
        let code = both >> comptime!(8 * b as u32);
        let scale = f16_value(d) * f32::cast_from(code & 15u32);
        let min = f16_value(d >> 16u32) * f32::cast_from((code >> 4u32) & 15u32);
        #[unroll]
        for i in 0..4usize {
            let word = codes[at + 4 * b + i] >> shift;
            #[unroll]
            for j in 0..4usize {
                let q = (word >> comptime!(8 * j as u32)) & 3u32;
                out[16 * b + 4 * i + j] = scale * f32::cast_from(q) - min;
            }
        }
    }
}

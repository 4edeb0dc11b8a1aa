//! Vectors of eight magnitudes from a table, with a sign code per vector.
use crate::kernels::common::{f16_value, halves};
use cubecl::prelude::*;

/// Block of 66 bytes: f16 scale, then per unit of 32 four index bytes and a word of four seven bit
/// sign codes under a four bit scale. `table` holds two words of magnitudes per index.
#[cube]
pub(super) fn iq2_xxs(codes: &[u32], table: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let halves = halves(codes);
    let block = (row + unit / 8usize * 66usize) / 2usize;
    let at = block + 1 + unit % 8usize * 4usize;
    let indices = u32::cast_from(halves[at]) | (u32::cast_from(halves[at + 1]) << 16u32);
    let signs = u32::cast_from(halves[at + 2]) | (u32::cast_from(halves[at + 3]) << 16u32);
    let d = f16_value(u32::cast_from(halves[block]));
    let scale = d * ((f32::cast_from(signs >> 28u32) + 0.5f32) * 0.25f32);
    #[unroll]
    for k in 0..4usize {
        let index = ((indices >> comptime!(8 * k as u32)) & 255u32) as usize;
        let code = (signs >> comptime!(7 * k as u32)) & 127u32;
        // The eighth sign makes the number of minuses even.
        let code = code | ((code.count_ones() & 1u32) << 7u32);
        #[unroll]
        for w in 0..2usize {
            let word = table[2 * index + w];
            #[unroll]
            for j in 0..4usize {
                let magnitude = scale * f32::cast_from((word >> comptime!(8 * j as u32)) & 255u32);
                let minus = (code >> comptime!((4 * w + j) as u32)) & 1u32;
                out[8 * k + 4 * w + j] = f32::reinterpret(u32::reinterpret(magnitude) ^ (minus << 31u32));
            }
        }
    }
}

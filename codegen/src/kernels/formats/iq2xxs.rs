//! Vectors of eight magnitudes from a table, with a sign code per vector.
use crate::kernels::common::{f16_value, half_at, words_at};
use cubecl::prelude::*;

/// Block of 66 bytes: f16 scale, then per 32 codes four index bytes and a word of four seven bit sign
/// codes under a four bit scale; sixteen units of two vectors. `table` holds two words of magnitudes
/// per index.
#[cube]
pub(super) fn iq2_xxs(codes: &[u32], table: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = row + unit / 16usize * 66usize;
    let d = f16_value(half_at(codes, block));
    let both = words_at(codes, block + 2usize + unit % 16usize / 2usize * 8usize, 2u32);
    let second = u32::cast_from(unit % 2usize);
    let indices = both[0] >> (16u32 * second);
    let signs = both[1] >> (14u32 * second);
    let scale = d * ((f32::cast_from(both[1] >> 28u32) + 0.5f32) * 0.25f32);
    #[unroll]
    for k in 0..2usize {
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

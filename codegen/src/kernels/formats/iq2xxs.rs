//! Vectors of eight magnitudes from a table, with a sign code per vector.
use crate::kernels::common::{f16_value, half_at, words_at};
use cubecl::prelude::*;

/// The two vectors of a unit.
#[derive(CubeType)]
pub(super) struct Vectors {
    indices: u32,
    signs: u32,
    /// What holds the scale in its upper four bits.
    last: u32,
}

#[cube]
impl Vectors {
    /// Those of unit `unit` of a row, in the block that begins with byte `block`.
    pub(super) fn of(codes: &[u32], block: usize, unit: usize) -> Vectors {
        let both = words_at(codes, block + 2usize + unit % 16usize / 2usize * 8usize, 2u32);
        let second = u32::cast_from(unit % 2usize);
        Vectors { indices: both[0] >> (16u32 * second), signs: both[1] >> (14u32 * second), last: both[1] }
    }

    /// The place of vector `k` in the table.
    pub(super) fn index(&self, #[comptime] k: usize) -> usize {
        ((self.indices >> comptime!(8 * k as u32)) & 255u32) as usize
    }

    /// A bit for each minus of vector `k`. The eighth makes their number even.
    pub(super) fn signs(&self, #[comptime] k: usize) -> u32 {
        let code = (self.signs >> comptime!(7 * k as u32)) & 127u32;
        code | ((code.count_ones() & 1u32) << 7u32)
    }

    /// Their scale, over that of the block.
    pub(super) fn scale(&self) -> f32 {
        (f32::cast_from(self.last >> 28u32) + 0.5f32) * 0.25f32
    }
}

/// Block of 66 bytes: f16 scale, then per 32 codes four index bytes and a word of four seven bit sign
/// codes under a four bit scale; sixteen units of two vectors. `table` holds two words of magnitudes
/// per index.
#[cube]
pub(super) fn iq2_xxs(codes: &[u32], table: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = row + unit / 16usize * 66usize;
    let d = f16_value(half_at(codes, block));
    let vectors = Vectors::of(codes, block, unit);
    let scale = d * vectors.scale();
    #[unroll]
    for k in 0..2usize {
        let index = vectors.index(k);
        let code = vectors.signs(k);
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

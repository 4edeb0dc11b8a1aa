//! Inputs into shared memory.
use super::{Norm, Product, round::round_tiles};
use crate::kernels::common::{Number, block_sum, number};
use crate::kernels::formats::{Place, decode};
use cubecl::prelude::*;
use ds4_ir::Scalar;

/// The norm's factor of each input of the block into `factors`; nothing without a norm.
///
/// `first` is the first input of the block, `end` the number of inputs. All threads of the block call
/// it; `factors` may be read behind the next barrier.
#[cube]
pub(crate) fn norm_factors(
    x: &[u32],
    first: usize,
    end: usize,
    factors: &mut Shared<[f32]>,
    #[comptime] p: Product,
) {
    if comptime!(p.norm != Norm::None) {
        let width = comptime!(p.input.width as usize);
        let mut partial = Shared::<[f32]>::new_slice(comptime!(p.subgroups as usize));
        for t in 0..comptime!(p.tokens as usize) {
            let mut squares = 0.0f32;
            if first + t < end {
                let at = (first + t) * width;
                for i in range_stepped(UNIT_POS as usize, width, comptime!(p.threads() as usize)) {
                    let value = f32::reinterpret(x[at + i]);
                    squares += value * value;
                }
            }
            let mean = block_sum(squares, &mut partial, p.subgroups) / comptime!(width as f32);
            if UNIT_POS == 0 {
                factors[t] = 1.0f32 / (mean + comptime!(eps(p.norm))).sqrt();
            }
            sync_cube();
        }
    }
}

fn eps(norm: Norm) -> f32 {
    match norm {
        Norm::None => 0.0,
        Norm::Plain(bits) | Norm::Weighted(bits, _) => f32::from_bits(bits),
    }
}

fn weight_of(norm: Norm) -> Number {
    match norm {
        Norm::Weighted(_, number) => number,
        _ => unreachable!("the norm has a weight"),
    }
}

/// Tile `tile` of the block's inputs, of part `part` of each token, normed and rounded, into `shared`.
///
/// All threads of the block call it, between barriers of the caller. Columns behind the last, and
/// inputs from `end` on, are zero.
#[cube]
pub(crate) fn stage(
    x: &[u32],
    norm: &[u32],
    first: usize,
    end: usize,
    part: usize,
    tile: usize,
    factors: &Shared<[f32]>,
    shared: &mut Shared<[f32]>,
    #[comptime] p: Product,
) {
    let (size, step) = comptime!((p.tile as usize, p.input.unit() as usize));
    let width = comptime!(p.input.width as usize);
    let plain = comptime!(p.input.scalar == Scalar::F32);
    let step = comptime!(if plain { 1 } else { step });
    let mut values = Array::<f32>::new(step);
    for work in range_stepped(
        UNIT_POS as usize,
        comptime!(p.tokens as usize * size / step),
        comptime!(p.threads() as usize),
    ) {
        let slot = work / comptime!(size / step);
        let i = work % comptime!(size / step) * step;
        let column = tile * size + i;
        let row = (first + slot) * comptime!(p.parts as usize) + part;
        let inside = first + slot < end && column < width;
        if inside {
            if plain {
                values[0] = f32::reinterpret(x[row * width + column]);
                if comptime!(p.norm != Norm::None) {
                    values[0] *= factors[slot];
                }
                if comptime!(matches!(p.norm, Norm::Weighted(..))) {
                    values[0] *= number(norm, column, comptime!(weight_of(p.norm)));
                }
            } else {
                let place =
                    Place { codes: row * comptime!(p.input.row_bytes() as usize), scales: 0usize.runtime() };
                decode(x, x, x, &place, column / step, &mut values, comptime!(p.input));
            }
        }
        #[unroll]
        for j in 0..step {
            let value = select(inside && column + j < width, values[j], 0.0f32);
            shared[position(slot, i + j, p)] = value;
        }
    }
    if comptime!(p.round != Scalar::F32) {
        sync_cube();
        round_tiles(shared, p);
    }
}

/// Where element `i` of the tile of input `slot` lies in shared memory.
#[cube]
pub(super) fn position(slot: usize, i: usize, #[comptime] p: Product) -> usize {
    let (unit, stride) = comptime!((p.weight.unit() as usize, p.stride() as usize));
    slot * comptime!(p.slot() as usize) + i % unit * stride + i / unit
}

//! Inputs into shared memory.
use super::codes::stage_codes;
use super::{Norm, Product, round::round_tiles};
use crate::kernels::common::{Number, block_sum, number};
use crate::kernels::formats::{Place, decode};
use cubecl::prelude::*;
use ds4_ir::Scalar;

/// A tile of the inputs of a block.
#[derive(CubeType)]
pub(crate) struct Tile {
    /// As numbers, normed and rounded; as they are until then.
    pub(super) numbers: Shared<[f32]>,
    /// As signed bytes, four of them in a word.
    pub(super) codes: Shared<[u32]>,
    /// The scales of those.
    pub(super) scales: Shared<[f32]>,
    /// The norm's factor of each input.
    pub(super) factors: Shared<[f32]>,
}

#[cube]
impl Tile {
    /// Room for tiles of `p`.
    pub(crate) fn new(#[comptime] p: Product) -> Tile {
        Tile::of_either(p, p)
    }

    /// Room for tiles of one product and then of another.
    pub(crate) fn of_either(#[comptime] p: Product, #[comptime] q: Product) -> Tile {
        let numbers = comptime!(p.shared().max(q.shared()).max(1) as usize);
        let codes = comptime!(p.shared_codes().max(q.shared_codes()).max(1) as usize);
        let scales = comptime!(p.shared_scales().max(q.shared_scales()).max(1) as usize);
        Tile {
            numbers: Shared::<[f32]>::new_slice(numbers),
            codes: Shared::<[u32]>::new_slice(codes),
            scales: Shared::<[f32]>::new_slice(scales),
            factors: Shared::<[f32]>::new_slice(comptime!(p.tokens.max(q.tokens) as usize)),
        }
    }

    /// Element `i` of the tile of input `slot`, which is a number.
    pub(crate) fn number(&self, slot: usize, i: usize, #[comptime] p: Product) -> f32 {
        self.numbers[position(slot, i, p)]
    }
}

/// The norm's factor of each input of the block; nothing without a norm. Inputs that fit stay in the tile as
/// they are, for [`stage`].
///
/// `first` is the first input of the block, `end` the number of inputs. All threads of the block call
/// it; [`stage`] follows behind a barrier.
#[cube]
pub(crate) fn norm_factors(x: &[u32], first: usize, end: usize, held: &mut Tile, #[comptime] p: Product) {
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
                    if comptime!(p.keeps_inputs()) {
                        held.numbers[position(t, i, p)] = value;
                    }
                }
            }
            let mean = block_sum(squares, &mut partial, p.subgroups) / comptime!(width as f32);
            if UNIT_POS == 0 {
                held.factors[t] = 1.0f32 / (mean + comptime!(eps(p.norm))).sqrt();
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

/// Tile `tile` of the block's inputs, of part `part` of each token, normed and rounded.
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
    held: &mut Tile,
    #[comptime] p: Product,
) {
    if comptime!(p.is_integer()) {
        stage_codes(x, norm, first, end, part, tile, held, p);
    } else {
        stage_numbers(x, norm, first, end, part, tile, held, p);
        if comptime!(p.round != Scalar::F32) {
            sync_cube();
            round_tiles(&mut held.numbers, p);
        }
    }
}

#[cube]
fn stage_numbers(
    x: &[u32],
    norm: &[u32],
    first: usize,
    end: usize,
    part: usize,
    tile: usize,
    held: &mut Tile,
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
                let value = input(x, row, slot, i, column, &*held, p);
                values[0] = normed(value, norm, &*held, slot, column, p);
            } else {
                let place =
                    Place { codes: row * comptime!(p.input.row_bytes() as usize), scales: 0usize.runtime() };
                decode(x, x, x, &place, column / step, &mut values, comptime!(p.input));
            }
        }
        #[unroll]
        for j in 0..step {
            let value = select(inside && column + j < width, values[j], 0.0f32);
            held.numbers[position(slot, i + j, p)] = value;
        }
    }
}

/// Column `column` of row `row` of the inputs, which is element `i` of the tile of input `slot`, as it is.
#[cube]
pub(super) fn input(
    x: &[u32],
    row: usize,
    slot: usize,
    i: usize,
    column: usize,
    held: &Tile,
    #[comptime] p: Product,
) -> f32 {
    if comptime!(p.keeps_inputs()) {
        held.numbers[position(slot, i, p)]
    } else {
        f32::reinterpret(x[row * comptime!(p.input.width as usize) + column])
    }
}

/// Column `column` of input `slot`, normed.
#[cube]
pub(super) fn normed(
    x: f32,
    norm: &[u32],
    held: &Tile,
    slot: usize,
    column: usize,
    #[comptime] p: Product,
) -> f32 {
    let mut value = x;
    if comptime!(p.norm != Norm::None) {
        value *= held.factors[slot];
    }
    if comptime!(matches!(p.norm, Norm::Weighted(..))) {
        value *= number(norm, column, comptime!(weight_of(p.norm)));
    }
    value
}

/// Where element `i` of the tile of input `slot` lies among numbers.
#[cube]
pub(super) fn position(slot: usize, i: usize, #[comptime] p: Product) -> usize {
    let (unit, stride) = comptime!((p.weight.unit() as usize, p.stride() as usize));
    slot * comptime!(p.slot() as usize) + i % unit * stride + i / unit
}

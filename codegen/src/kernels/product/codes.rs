//! Inputs as signed bytes under a scale per group, for products whose sums are those of integers.
use super::staging::{Tile, input, normed};
use super::{Product, round::team_max, round::team_min};
use crate::kernels::common::{nearest, quads};
use cubecl::prelude::*;
use ds4_ir::Scalar;
use half::f16;

/// Elements of a word.
const WORD: usize = 4;

/// Tile `tile` of the block's inputs, of part `part` of each token, normed and rounded to bytes: `q8_0` and `q8_k`
/// bit for bit as a row of those formats has them (spec 4.4).
///
/// Lanes of a team hold neighbouring words of a group. All threads of the block call it, between barriers of
/// the caller.
#[cube]
pub(super) fn stage_codes(
    x: &[u32],
    norm: &[u32],
    first: usize,
    end: usize,
    part: usize,
    tile: usize,
    held: &mut Tile,
    #[comptime] p: Product,
) {
    let (group, size) = comptime!((p.group as usize, p.tile as usize));
    let team = comptime!((group / WORD).min(32));
    let words = comptime!(group / WORD / team);
    let (teams, per_input) = comptime!((p.threads() as usize / team, size / group));
    let groups = comptime!(p.tokens as usize * per_input);
    let lane = UNIT_POS as usize % team;
    // Every team takes as many turns, so that all lanes meet in the exchanges.
    for turn in 0..comptime!(groups.div_ceil(teams)) {
        let index = turn * teams + UNIT_POS as usize / team;
        let slot = index / per_input;
        let in_tile = index % per_input * group;
        let row = (first + slot) * comptime!(p.parts as usize) + part;
        let there = index < groups && first + slot < end;
        let mut values = Array::<f32>::new(comptime!(group / team));
        #[unroll]
        for w in 0..words {
            let i = in_tile + (lane + comptime!(w * team)) * WORD;
            four(x, norm, row, slot, i, tile * size + i, there, &*held, &mut values, comptime!(w * WORD), p);
        }
        let mut top = 0u32;
        #[unroll]
        for i in 0..comptime!(group / team) {
            top = max(top, u32::reinterpret(values[i]) & 0x7fff_ffffu32);
        }
        let top = team_max(top, comptime!(team as u32));
        let (scale, inverse) = scales(&values, lane, top, team, p);
        if index < groups {
            if lane == 0 {
                held.scales[index] = scale;
            }
            #[unroll]
            for w in 0..words {
                let mut word = 0u32;
                #[unroll]
                for j in 0..WORD {
                    let q = code(values[comptime!(w * WORD + j)], scale, inverse, p);
                    word |= (u32::reinterpret(q) & 0xffu32) << comptime!(8 * j as u32);
                }
                let at = in_tile / WORD + lane + comptime!(w * team);
                held.codes[code_position(slot, at, p)] = word;
            }
        }
    }
}

/// Four neighbouring elements from place `i` of the tile on, column `column` of the input, to `values[to..]`.
#[cube]
fn four(
    x: &[u32],
    norm: &[u32],
    row: usize,
    slot: usize,
    i: usize,
    column: usize,
    there: bool,
    held: &Tile,
    values: &mut Array<f32>,
    #[comptime] to: usize,
    #[comptime] p: Product,
) {
    let width = comptime!(p.input.width as usize);
    if comptime!(p.input.width % 4 == 0 && !p.keeps_inputs()) {
        let mut word = Vector::<u32, Const<4>>::new(0u32);
        if there && column < width {
            word = quads(x)[(row * width + column) / WORD];
        }
        #[unroll]
        for j in 0..WORD {
            values[comptime!(to + j)] =
                normed(f32::reinterpret(word.extract(j)), norm, held, slot, column + j, p);
        }
    } else {
        #[unroll]
        for j in 0..WORD {
            let mut value = 0.0f32;
            if there && column + j < width {
                value = input(x, row, slot, i + j, column + j, held, p);
                value = normed(value, norm, held, slot, column + j, p);
            }
            values[comptime!(to + j)] = value;
        }
    }
}

/// The group's scale, and what elements are multiplied with (`q8_k`), where `top` has the bits of its largest
/// magnitude. A group with an element that is not finite has a NaN for its scale.
#[cube]
fn scales(
    values: &Array<f32>,
    lane: usize,
    top: u32,
    #[comptime] team: usize,
    #[comptime] p: Product,
) -> (f32, f32) {
    let finite = top < 0x7f80_0000u32;
    let nan = f32::reinterpret(0x7fc0_0000u32);
    if comptime!(p.round == Scalar::Q8_0) {
        let d = f32::cast_from(f16::cast_from(f32::reinterpret(top) / 127.0f32));
        (select(finite, d, nan), 0.0f32)
    } else {
        // The first element of the largest magnitude decides the sign of the scale.
        let mut first = 0xffff_ffffu32;
        #[unroll]
        for i in 0..comptime!(p.group as usize / team) {
            let index = u32::cast_from(lane) * 4u32 + comptime!((i / WORD * WORD * team + i % WORD) as u32);
            let bits = u32::reinterpret(values[i]);
            let key = (index << 1u32) | (bits >> 31u32);
            first = select((bits & 0x7fff_ffffu32) == top, min(first, key), first);
        }
        let sign = (team_min(first, comptime!(team as u32)) & 1u32) << 31u32;
        let inverse = -127.0f32 / f32::reinterpret(top | sign);
        let there = (u32::reinterpret(inverse) & 0x7fff_ffffu32) < 0x7f80_0000u32;
        let d = select(there, 1.0f32 / inverse, 0.0f32);
        (select(finite, d, nan), select(there, inverse, 0.0f32))
    }
}

/// The code of an element.
#[cube]
fn code(x: f32, scale: f32, inverse: f32, #[comptime] p: Product) -> i32 {
    if comptime!(p.round == Scalar::Q8_0) {
        let normal = scale > 0.0f32 && scale < f32::INFINITY;
        i32::cast_from(nearest(clamp(select(normal, x / scale, 0.0f32), -127.0f32, 127.0f32)))
    } else {
        i32::cast_from(nearest(clamp(inverse * x, -128.0f32, 127.0f32)))
    }
}

/// Where word `i` of the tile of input `slot` lies among codes.
#[cube]
fn code_position(slot: usize, i: usize, #[comptime] p: Product) -> usize {
    slot * comptime!(p.code_slot() as usize) + i % WORD * comptime!(p.code_stride() as usize) + i / WORD
}

//! The kernels of attention: over the keys of a part, and over parts.
use super::keys::{Raw, fetch, part_keys, seen, unpack};
use super::{Attend, HEADS};
use crate::kernels::common::number;
use crate::step;
use cubecl::prelude::*;

#[cube(launch_unchecked, create_dummy_kernel)]
pub(super) fn attend_keys(
    step: &[i32],
    q: &[f32],
    ring: &[u32],
    row: &[u32],
    entries: &[u32],
    idx: &[i32],
    sinks: &[u32],
    table: &[f32],
    out: &mut [f32],
    #[comptime] a: Attend,
) {
    let t = CUBE_POS_X as usize;
    if t >= step[step::TOKENS] as usize {
        terminate!();
    }
    let seen = seen(step, t, a);
    let per = part_keys(seen.keys, a);
    let from = CUBE_POS_Z as usize * per;
    if from >= seen.keys {
        terminate!();
    }
    let end = min(from + per, seen.keys);
    let (heads, width, each) = comptime!((a.heads as usize, a.width as usize, a.each()));
    // Threads of a head that is none help to bring keys.
    let head = CUBE_POS_Y as usize * comptime!(HEADS.min(a.heads) as usize) + subgroup(a);
    let mine = min(head, comptime!(heads - 1));
    let sink = number(sinks, mine, comptime!(a.sinks));
    let mut query = Array::<f32>::new(each);
    let mut sums = Array::<f32>::new(each);
    #[unroll]
    for i in 0..each {
        let c = channel(i, a);
        query[i] = 0.0f32;
        if c < width {
            query[i] = q[(t * heads + mine) * width + c];
        }
        sums[i] = 0.0f32;
    }
    if comptime!(a.query.is_some()) {
        norm(&mut query, a);
    }
    #[unroll]
    for i in 0..each {
        let own = match comptime!(a.query) {
            Some(_) => rotated(query[i], i, table, t, 1.0f32, a),
            None => query[i],
        };
        query[i] = own * comptime!(1.0 / (a.width as f32).sqrt());
    }
    // The sink counts towards the largest score, so that it is finite from the start.
    let mut top = sink;
    let mut total = 0.0f32;
    let size = comptime!(a.tile());
    let mut tile = Shared::<[f32]>::new_slice(comptime!(size * width));
    let mut valid = Shared::<[u32]>::new_slice(size);
    let mut raw = Raw::new(a);
    for base in range_stepped(from, end, size) {
        fetch(step, ring, row, entries, idx, t, base, end, &seen, &mut raw, a);
        sync_cube();
        unpack(step, ring, row, entries, idx, t, base, end, &seen, &raw, &mut tile, &mut valid, a);
        sync_cube();
        let mut scores = Array::<f32>::new(size);
        let mut max_score = top;
        #[unroll]
        for j in 0..size {
            let mut score = 0.0f32;
            if valid[j] != 0u32 {
                #[unroll]
                for i in 0..each {
                    let c = channel(i, a);
                    if c < width {
                        score = fma(query[i], tile[j * width + c], score);
                    }
                }
            }
            scores[j] = plane_sum(score);
            max_score = select(valid[j] != 0u32, max(max_score, scores[j]), max_score);
        }
        let rescale = (top - max_score).exp();
        top = max_score;
        total *= rescale;
        #[unroll]
        for i in 0..each {
            sums[i] *= rescale;
        }
        #[unroll]
        for j in 0..size {
            if valid[j] != 0u32 {
                let e = (scores[j] - top).exp();
                total += e;
                #[unroll]
                for i in 0..each {
                    let c = channel(i, a);
                    if c < width {
                        sums[i] = fma(e, tile[j * width + c], sums[i]);
                    }
                }
            }
        }
    }
    if comptime!(a.parts == 1) {
        finish(&sums, total + (sink - top).exp(), table, t, head, out, a);
    } else if head < heads {
        let part = (t * comptime!(a.parts as usize) + CUBE_POS_Z as usize) * heads + head;
        let at = part * comptime!(a.part_len() as usize);
        if UNIT_POS_PLANE == 0 {
            out[at] = top;
            out[at + 1] = total;
        }
        #[unroll]
        for i in 0..each {
            let c = channel(i, a);
            if c < width {
                out[at + 2 + c] = sums[i];
            }
        }
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
pub(super) fn join_parts(
    step: &[i32],
    parts: &[f32],
    sinks: &[u32],
    table: &[f32],
    out: &mut [f32],
    #[comptime] a: Attend,
) {
    let t = CUBE_POS_X as usize;
    if t >= step[step::TOKENS] as usize {
        terminate!();
    }
    let seen = seen(step, t, a);
    let per = part_keys(seen.keys, a);
    let used = (seen.keys + per - 1) / per;
    let (heads, width, each) = comptime!((a.heads as usize, a.width as usize, a.each()));
    let head = CUBE_POS_Y as usize * comptime!(HEADS.min(a.heads) as usize) + subgroup(a);
    let mine = min(head, comptime!(heads - 1));
    let sink = number(sinks, mine, comptime!(a.sinks));
    let (len, stride) = comptime!((a.part_len() as usize, a.heads as usize * a.part_len() as usize));
    let first = t * comptime!(a.parts as usize) * stride + mine * len;
    let mut top = sink;
    for part in 0..used {
        top = max(top, parts[first + part * stride]);
    }
    let mut total = (sink - top).exp();
    let mut sums = Array::<f32>::new(each);
    #[unroll]
    for i in 0..each {
        sums[i] = 0.0f32;
    }
    for part in 0..used {
        let at = first + part * stride;
        let factor = (parts[at] - top).exp();
        total += parts[at + 1] * factor;
        #[unroll]
        for i in 0..each {
            let c = channel(i, a);
            if c < width {
                sums[i] += parts[at + 2 + c] * factor;
            }
        }
    }
    finish(&sums, total, table, t, head, out, a);
}

/// This thread's subgroup in the block.
#[cube]
fn subgroup(#[comptime] a: Attend) -> usize {
    (UNIT_POS / comptime!(a.lanes)) as usize
}

/// The channel that this lane holds in register `i`. Neighbouring lanes hold a pair.
#[cube]
fn channel(#[comptime] i: usize, #[comptime] a: Attend) -> usize {
    UNIT_POS_PLANE as usize + comptime!(i * a.lanes as usize)
}

/// Scales the channels of a head to an RMS of one (spec 2.3).
#[cube]
fn norm(query: &mut Array<f32>, #[comptime] a: Attend) {
    let eps = comptime!(f32::from_bits(a.query.expect("queries are normed")));
    let mut squares = 0.0f32;
    #[unroll]
    for i in 0..comptime!(a.each()) {
        squares += query[i] * query[i];
    }
    let mean = plane_sum(squares) / comptime!(a.width as f32);
    let scale = 1.0f32 / (mean + eps).sqrt();
    #[unroll]
    for i in 0..comptime!(a.each()) {
        query[i] *= scale;
    }
}

/// `own`, the channel that this lane holds in register `i`, rotated by the angles of token `t`, or back
/// where `turn` is -1 (spec 2.2).
#[cube]
fn rotated(own: f32, #[comptime] i: usize, table: &[f32], t: usize, turn: f32, #[comptime] a: Attend) -> f32 {
    let (width, dims) = comptime!((a.width as usize, a.dims as usize));
    let first = comptime!(width - dims);
    let c = channel(i, a);
    let other = plane_shuffle_xor(own, 1u32);
    let mut value = own;
    if c >= first && c < width {
        let pair = t * dims + (c - first) / 2 * 2;
        let (cos, sin) = (table[pair], turn * table[pair + 1]);
        // Pair (a, b) becomes (a cos - b sin, a sin + b cos).
        value = own * cos + select((c - first) % 2 == 0, -other, other) * sin;
    }
    value
}

/// Writes the sums of a head over `total`, rotated back by the token's angles.
#[cube]
fn finish(
    sums: &Array<f32>,
    total: f32,
    table: &[f32],
    t: usize,
    head: usize,
    out: &mut [f32],
    #[comptime] a: Attend,
) {
    let width = comptime!(a.width as usize);
    #[unroll]
    for i in 0..comptime!(a.each()) {
        let c = channel(i, a);
        let value = rotated(sums[i] / total, i, table, t, -1.0f32, a);
        if c < width && head < comptime!(a.heads as usize) {
            out[(t * comptime!(a.heads as usize) + head) * width + c] = value;
        }
    }
}

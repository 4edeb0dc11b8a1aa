//! The kernels of the indexer.
use super::score::score_keys;
use super::select::select_keys;
use super::{KEYS, Select};
use crate::step;
use cubecl::prelude::*;

/// Entries that token `t` of the step may see.
#[cube]
fn seen(step: &[i32], t: usize, #[comptime] s: Select) -> usize {
    (step[step::START] as usize + t + 1) / comptime!(s.ratio as usize)
}

#[cube(launch_unchecked, create_dummy_kernel)]
pub(super) fn index_scores(
    step: &[i32],
    q: &[u32],
    weights: &[f32],
    entries: &[u32],
    scores: &mut [f32],
    #[comptime] s: Select,
) {
    let t = CUBE_POS_Y as usize;
    if t >= step[step::TOKENS] as usize {
        terminate!();
    }
    let n = seen(step, t, s);
    let first = CUBE_POS_X as usize * comptime!(KEYS as usize);
    if first >= n {
        terminate!();
    }
    score_keys(q, weights, entries, scores, t, t * comptime!(s.entries as usize), first, n, s);
}

#[cube(launch_unchecked, create_dummy_kernel)]
pub(super) fn index_choice(step: &[i32], scores: &[f32], out: &mut [i32], #[comptime] s: Select) {
    let t = CUBE_POS_X as usize;
    if t >= step[step::TOKENS] as usize {
        terminate!();
    }
    select_keys(scores, t * comptime!(s.entries as usize), seen(step, t, s), out, t, s);
}

#[cube(launch_unchecked, create_dummy_kernel)]
pub(super) fn index_select(
    step: &[i32],
    q: &[u32],
    weights: &[f32],
    entries: &[u32],
    scores: &mut [f32],
    out: &mut [i32],
    #[comptime] s: Select,
    #[comptime] blocks: u32,
) {
    let tokens = step[step::TOKENS] as usize;
    let at = CUBE_POS_X as usize * comptime!(s.entries as usize);
    for t in range_stepped(CUBE_POS_X as usize, tokens, comptime!(blocks as usize)) {
        let n = seen(step, t, s);
        // A token that sees no more than it takes needs no scores.
        if n > comptime!(s.k as usize) {
            for first in range_stepped(0, n, comptime!(KEYS as usize)) {
                score_keys(q, weights, entries, scores, t, at, first, n, s);
            }
        }
        sync_storage();
        sync_cube();
        select_keys(&*scores, at, n, out, t, s);
        sync_cube();
    }
}

//! The largest of many scores, without sorting them: the score of rank k is found bit by bit, then
//! every thread writes what it keeps of its own stretch.
use super::{Select, THREADS};
use crate::kernels::common::block_sum;
use cubecl::prelude::*;

/// The `k` largest of `scores[at..at + n]` as ascending indices to row `t` of `out`, ties to the lower
/// index, padded with -1. All threads of the block call it.
#[cube]
pub(super) fn select_keys(
    scores: &[f32],
    at: usize,
    n: usize,
    out: &mut [i32],
    t: usize,
    #[comptime] s: Select,
) {
    let (k, threads) = comptime!((s.k as usize, THREADS as usize));
    let unit = UNIT_POS as usize;
    let mut partial = Shared::<[f32]>::new_slice(comptime!(s.subgroups as usize));
    let mut larger = Shared::<[u32]>::new_slice(threads);
    let mut equal = Shared::<[u32]>::new_slice(threads);
    if n <= k {
        for i in range_stepped(unit, k, threads) {
            out[t * k + i] = select(i < n, i as i32, -1i32);
        }
    } else {
        // The largest key that at least k scores reach.
        let mut rank = 0u32;
        for bit in 0..32u32 {
            let candidate = rank | (0x8000_0000u32 >> bit);
            let mut count = 0.0f32;
            for i in range_stepped(unit, n, threads) {
                count += select(ordered(scores[at + i]) >= candidate, 1.0f32, 0.0f32);
            }
            // Counts are below 2^24, where single precision has every whole number.
            let count = block_sum(count, &mut partial, comptime!(s.subgroups));
            rank = select(count >= comptime!(s.k as f32), candidate, rank);
            sync_cube();
        }
        let each = (n + comptime!(threads - 1)) / threads;
        let from = min(unit * each, n);
        let end = min(from + each, n);
        let mut above = 0u32;
        let mut ties = 0u32;
        for i in from..end {
            let key = ordered(scores[at + i]);
            above += select(key > rank, 1u32, 0u32);
            ties += select(key == rank, 1u32, 0u32);
        }
        larger[unit] = above;
        equal[unit] = ties;
        sync_cube();
        let mut all_above = 0u32;
        let mut above_before = 0u32;
        let mut ties_before = 0u32;
        for u in 0..threads {
            all_above += larger[u];
            if u < unit {
                above_before += larger[u];
                ties_before += equal[u];
            }
        }
        // Of the ties the first are kept.
        let room = comptime!(s.k) - all_above;
        let mut place = above_before + min(ties_before, room);
        for i in from..end {
            let key = ordered(scores[at + i]);
            let tie = key == rank;
            if key > rank || (tie && ties_before < room) {
                out[t * k + place as usize] = i as i32;
                place += 1u32;
            }
            ties_before += select(tie, 1u32, 0u32);
        }
    }
}

/// A number that orders as the score does; both zeros are equal.
#[cube]
fn ordered(score: f32) -> u32 {
    let bits = u32::reinterpret(score + 0.0f32);
    select(bits >= 0x8000_0000u32, !bits, bits | 0x8000_0000u32)
}

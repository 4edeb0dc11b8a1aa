//! Scores of a token for some keys.
use super::{HEADS, KEYS, Select, THREADS};
use crate::kernels::common::{bytes, e2m1_value, e8m0_value};
use cubecl::prelude::*;
use ds4_ir::{IDX4_GROUP, Scalar};

/// `scores[at + j] = Σ_h relu(q_h · entry_j) · weights_h / sqrt(width · heads)` for up to [`KEYS`] keys j
/// from `first` on, below `n`. All threads of the block call it.
#[cube]
pub(super) fn score_keys(
    q: &[u32],
    weights: &[f32],
    entries: &[u32],
    scores: &mut [f32],
    t: usize,
    at: usize,
    first: usize,
    n: usize,
    #[comptime] s: Select,
) {
    let (width, heads, keys) = comptime!((s.width as usize, s.heads as usize, KEYS as usize));
    // One element of padding keeps the keys of neighbouring threads in different banks.
    let pitch = comptime!(width + 1);
    let mut tile = Shared::<[f32]>::new_slice(comptime!(keys * pitch));
    let mut queries = Shared::<[f32]>::new_slice(comptime!(HEADS as usize * width));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(THREADS as usize));
    let (key, slot) = (UNIT_POS as usize % keys, UNIT_POS as usize / keys);
    for i in range_stepped(UNIT_POS as usize, comptime!(keys * width), comptime!(THREADS as usize)) {
        let (row, c) = (i / width, i % width);
        let mut value = 0.0f32;
        if first + row < n {
            value = element(entries, first + row, c, s);
        }
        tile[row * pitch + c] = value;
    }
    let mut sum = 0.0f32;
    for group in 0..comptime!(s.heads.div_ceil(HEADS) as usize) {
        let head = group * comptime!(HEADS as usize);
        sync_cube();
        for i in
            range_stepped(UNIT_POS as usize, comptime!(HEADS as usize * width), comptime!(THREADS as usize))
        {
            let mut value = 0.0f32;
            if head + i / width < heads {
                value = element(q, t * heads + head + i / width, i % width, s);
            }
            queries[i] = value;
        }
        sync_cube();
        if head + slot < heads {
            let mut dot = 0.0f32;
            for c in 0..width {
                dot = fma(queries[slot * width + c], tile[key * pitch + c], dot);
            }
            sum += max(dot, 0.0f32) * weights[t * heads + head + slot];
        }
    }
    sums[UNIT_POS as usize] = sum;
    sync_cube();
    if slot == 0 && first + key < n {
        let mut total = 0.0f32;
        #[unroll]
        for i in 0..comptime!(HEADS as usize) {
            total += sums[key + comptime!(i * keys)];
        }
        scores[at + first + key] = total * comptime!(1.0 / ((s.width * s.heads) as f32).sqrt());
    }
    sync_cube();
}

/// Element `c` of row `row`.
#[cube]
fn element(rows: &[u32], row: usize, c: usize, #[comptime] s: Select) -> f32 {
    let width = comptime!(s.width as usize);
    if comptime!(s.scalar == Scalar::F32) {
        f32::reinterpret(rows[row * width + c])
    } else {
        let row_bytes = comptime!(s.scalar.row_bytes(s.width as usize));
        let word = rows[row * comptime!(row_bytes / 4) + c / 8];
        let scale = bytes(rows)[row * row_bytes + comptime!(width / 2) + c / comptime!(IDX4_GROUP)];
        e2m1_value((word >> (4 * (c % 8) as u32)) & 0xfu32) * e8m0_value(u32::cast_from(scale))
    }
}

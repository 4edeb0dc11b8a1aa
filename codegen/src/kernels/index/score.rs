//! Scores of a token for some keys.
use super::{HEADS, KEYS, Select, THREADS};
use crate::kernels::common::{SECTOR, Stretch, byte_at, e2m1_value, e8m0_value, quads, singles};
use cubecl::prelude::*;
use ds4_ir::IDX4_GROUP;

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
    let (heads, keys) = comptime!((s.heads as usize, KEYS as usize));
    let pitch = comptime!(s.pitch());
    let mut tile = Shared::<[f32]>::new_slice(comptime!(keys * pitch));
    let mut queries = Shared::<[f32]>::new_slice(comptime!(HEADS as usize * pitch));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(THREADS as usize));
    let mut raw_keys = Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(s.raw(KEYS)));
    let mut raw_queries = Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(s.raw(HEADS)));
    let (key, slot) = (UNIT_POS as usize % keys, UNIT_POS as usize / keys);
    let seen = min(n - first, keys);
    fetch(entries, first, seen, &mut raw_keys, s);
    let mut sum = 0.0f32;
    for group in 0..comptime!(s.heads.div_ceil(HEADS) as usize) {
        let head = group * comptime!(HEADS as usize);
        let there = min(heads - head, comptime!(HEADS as usize));
        fetch(q, t * heads + head, there, &mut raw_queries, s);
        sync_cube();
        if group == 0 {
            unpack(entries, first, seen, &raw_keys, &mut tile, KEYS, s);
        }
        unpack(q, t * heads + head, there, &raw_queries, &mut queries, HEADS, s);
        sync_cube();
        if slot < there {
            let mut dot = 0.0f32;
            for c in 0..comptime!(s.width as usize) {
                dot = fma(queries[slot * pitch + c], tile[key * pitch + c], dot);
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

/// The bytes of `there` rows from row `row` on, to `raw`, if they are packed. All threads of the block call it.
#[cube]
fn fetch(
    rows: &[u32],
    row: usize,
    there: usize,
    raw: &mut Shared<[Vector<u32, Const<4>>]>,
    #[comptime] s: Select,
) {
    if comptime!(s.is_packed()) {
        let row_bytes = comptime!(s.row_bytes());
        let stretch = Stretch::new(row * row_bytes, there * row_bytes);
        for i in range_stepped(UNIT_POS as usize, stretch.groups(), comptime!(THREADS as usize)) {
            let at = stretch.sector + i;
            if stretch.holds(at) {
                raw[i] = quads(rows)[at];
            }
        }
    }
}

/// The elements of `there` rows from row `row` on as numbers, from `raw` if they are packed, a word per thread;
/// zeros for the rest of `most` rows. All threads of the block call it.
#[cube]
fn unpack(
    rows: &[u32],
    row: usize,
    there: usize,
    raw: &Shared<[Vector<u32, Const<4>>]>,
    to: &mut Shared<[f32]>,
    #[comptime] most: u32,
    #[comptime] s: Select,
) {
    let (width, pitch, most) = comptime!((s.width as usize, s.pitch(), most as usize));
    if comptime!(s.is_packed()) {
        let row_bytes = comptime!(s.row_bytes());
        let start = row * row_bytes % comptime!(SECTOR as usize);
        let raw = singles(raw.as_slice());
        // Neighbouring threads have neighbouring rows, which lie in different banks.
        for i in range_stepped(UNIT_POS as usize, comptime!(most * width / 8), comptime!(THREADS as usize)) {
            let (r, word) = (i % most, i / most);
            let at = start + r * row_bytes;
            let mut bits = 0u32;
            let mut scale = 0.0f32;
            if r < there {
                bits = raw[at / 4 + word];
                scale =
                    e8m0_value(byte_at(raw, at + comptime!(width / 2) + 8 * word / comptime!(IDX4_GROUP)));
            }
            #[unroll]
            for j in 0..8usize {
                to[r * pitch + 8 * word + j] = e2m1_value(bits >> comptime!(4 * j as u32)) * scale;
            }
        }
    } else {
        for i in range_stepped(UNIT_POS as usize, comptime!(most * width), comptime!(THREADS as usize)) {
            let (r, c) = (i / width, i % width);
            let mut value = 0.0f32;
            if r < there {
                value = f32::reinterpret(rows[(row + r) * width + c]);
            }
            to[r * pitch + c] = value;
        }
    }
}

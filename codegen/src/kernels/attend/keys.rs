//! The keys of a token: how many, where each lies, and a tile of them in shared memory.
use super::{Attend, More, PART_KEYS};
use crate::kernels::common::{bf16_value, bytes, e4m3_value, e8m0_value};
use crate::step;
use cubecl::prelude::*;
use ds4_ir::{KV8_GROUP, Scalar};

/// What a token may see.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Seen {
    /// First position of the window.
    pub(super) first: usize,
    /// Keys of the window.
    pub(super) window: usize,
    /// All keys; places of a selection that are empty count.
    pub(super) keys: usize,
}

/// What token `t` of the step may see.
#[cube]
pub(super) fn seen(step: &[i32], t: usize, #[comptime] a: Attend) -> Seen {
    let end = step[step::START] as usize + t + 1;
    let window = min(end, comptime!(a.span as usize));
    let more = match comptime!(a.more) {
        More::None => 0usize.runtime(),
        More::Selected(k) => comptime!(k as usize).runtime(),
        More::Entries(ratio) => end / comptime!(ratio as usize),
    };
    Seen { first: end - window, window, keys: window + more }
}

/// Keys of each part.
#[cube]
pub(super) fn part_keys(keys: usize, #[comptime] a: Attend) -> usize {
    if comptime!(a.parts == 1) {
        keys
    } else {
        let parts = comptime!(a.parts as usize);
        max((keys + comptime!(parts - 1)) / parts, comptime!(PART_KEYS as usize))
    }
}

/// Where key `j` of token `t` lies: buffer 0 to 2 and row there; 3 for no key at all.
#[cube]
fn place(step: &[i32], idx: &[i32], t: usize, j: usize, seen: &Seen, #[comptime] a: Attend) -> (u32, usize) {
    let start = step[step::START] as usize;
    let mut buffer = 3u32;
    let mut row = 0usize;
    if j < seen.window {
        let p = seen.first + j;
        if p < start {
            buffer = 0u32;
            row = p % comptime!(a.capacity as usize);
        } else {
            buffer = 1u32;
            row = p - start;
        }
    } else if j < seen.keys {
        match comptime!(a.more) {
            More::Selected(k) => {
                let entry = idx[t * comptime!(k as usize) + j - seen.window];
                if entry >= 0 {
                    buffer = 2u32;
                    row = entry as usize;
                }
            }
            _ => {
                buffer = 2u32;
                row = j - seen.window;
            }
        }
    }
    (buffer, row)
}

/// Keys `base..base + tile` of token `t` into `tile`, up to key `end`; `valid` says which are keys.
/// All threads of the block call it, between barriers of the caller.
#[cube]
pub(super) fn stage(
    step: &[i32],
    ring: &[u32],
    own: &[u32],
    entries: &[u32],
    idx: &[i32],
    t: usize,
    base: usize,
    end: usize,
    seen: &Seen,
    tile: &mut Shared<[f32]>,
    valid: &mut Shared<[u32]>,
    #[comptime] a: Attend,
) {
    let words = comptime!(words(a) as usize);
    for work in range_stepped(UNIT_POS as usize, comptime!(a.tile()) * words, CUBE_DIM as usize) {
        let (slot, word) = (work / words, work % words);
        let mut buffer = 3u32;
        let mut row = 0usize;
        if base + slot < end {
            let (b, r) = place(step, idx, t, base + slot, seen, a);
            buffer = b;
            row = r;
        }
        if word == 0 {
            valid[slot] = select(buffer < 3, 1u32, 0u32);
        }
        let to = slot * comptime!(a.width as usize);
        if buffer == 0 {
            read(ring, row, word, tile, to, a);
        } else if buffer == 1 {
            read(own, row, word, tile, to, a);
        } else if buffer == 2 {
            read(entries, row, word, tile, to, a);
        }
    }
}

/// Words of a row that hold elements.
fn words(a: Attend) -> u32 {
    match a.keys {
        Scalar::Kv8 { rope } => (a.width - u32::from(rope)) / 4 + u32::from(rope) / 2,
        _ => a.width,
    }
}

/// The elements of word `word` of row `row`, to `tile[to..]`.
#[cube]
fn read(from: &[u32], row: usize, word: usize, tile: &mut Shared<[f32]>, to: usize, #[comptime] a: Attend) {
    let row_words = comptime!(a.keys.row_bytes(a.width as usize) / 4);
    let bits = from[row * row_words + word];
    match comptime!(a.keys) {
        Scalar::Kv8 { rope } => {
            let codes = comptime!(a.width as usize - usize::from(rope));
            if word < comptime!(codes / 4) {
                let scales = row * comptime!(4 * row_words) + comptime!(codes + 2 * usize::from(rope));
                let scale = u32::cast_from(bytes(from)[scales + 4 * word / comptime!(KV8_GROUP)]);
                let scale = e8m0_value(scale);
                #[unroll]
                for i in 0..4usize {
                    tile[to + 4 * word + i] = e4m3_value((bits >> comptime!(8 * i as u32)) & 0xffu32) * scale;
                }
            } else {
                let c = to + codes + 2 * (word - comptime!(codes / 4));
                tile[c] = bf16_value(bits & 0xffffu32);
                tile[c + 1] = bf16_value(bits >> 16u32);
            }
        }
        _ => tile[to + word] = f32::reinterpret(bits),
    }
}

//! The keys of a token: how many, where each lies, and a tile of them in shared memory.
use super::{Attend, More, PART_KEYS};
use crate::kernels::common::{
    SECTOR, Stretch, bf16_value, byte_at, e4m3_value, e8m0_value, groups_of, quads, singles,
};
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

/// Where key `j` of token `t` lies: buffer 0 to 2 and row there; 3 for no key at all, as from `end` on.
#[cube]
fn place(
    step: &[i32],
    idx: &[i32],
    t: usize,
    j: usize,
    end: usize,
    seen: &Seen,
    #[comptime] a: Attend,
) -> (u32, usize) {
    let start = step[step::START] as usize;
    let mut buffer = 3u32;
    let mut row = 0usize;
    if j < min(seen.window, end) {
        let p = seen.first + j;
        if p < start {
            buffer = 0u32;
            row = p % comptime!(a.capacity as usize);
        } else {
            buffer = 1u32;
            row = p - start;
        }
    } else if j < min(seen.keys, end) {
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

/// Keys as they lie, on their way into a tile: per key a stretch of groups of 16 bytes.
#[derive(CubeType)]
pub(super) struct Raw {
    groups: Shared<[Vector<u32, Const<4>>]>,
    /// Where in its stretch each key begins, in bytes; [`NO_KEY`] for none.
    starts: Shared<[u32]>,
}

/// In place of where a key begins.
const NO_KEY: u32 = u32::MAX;

#[cube]
impl Raw {
    pub(super) fn new(#[comptime] a: Attend) -> Raw {
        let size = comptime!(a.tile());
        Raw {
            groups: Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(size * groups(a))),
            starts: Shared::<[u32]>::new_slice(size),
        }
    }
}

/// Groups of 16 bytes of a key's stretch; numbers need none.
fn groups(a: Attend) -> usize {
    if a.keys == Scalar::F32 { 1 } else { groups_of(row_bytes(a) as u32) as usize }
}

fn row_bytes(a: Attend) -> usize {
    a.keys.row_bytes(a.width as usize)
}

/// Brings keys `base..base + tile` of token `t` as they lie, up to key `end`. All threads of the block call it;
/// [`unpack`] may follow behind a barrier.
#[cube]
pub(super) fn fetch(
    step: &[i32],
    ring: &[u32],
    own: &[u32],
    entries: &[u32],
    idx: &[i32],
    t: usize,
    base: usize,
    end: usize,
    seen: &Seen,
    raw: &mut Raw,
    #[comptime] a: Attend,
) {
    if comptime!(a.keys != Scalar::F32) {
        let (each, row_bytes) = comptime!((groups(a), row_bytes(a)));
        for work in range_stepped(UNIT_POS as usize, comptime!(a.tile() * each), CUBE_DIM as usize) {
            let (slot, group) = (work / each, work % each);
            let (buffer, row) = place(step, idx, t, base + slot, end, seen, a);
            let stretch = Stretch::new(row * row_bytes, row_bytes);
            let at = stretch.sector + group;
            if group == 0 {
                let start = (row * row_bytes % comptime!(SECTOR as usize)) as u32;
                raw.starts[slot] = select(buffer < 3, start, NO_KEY);
            }
            if stretch.holds(at) {
                if buffer == 0 {
                    raw.groups[work] = quads(ring)[at];
                } else if buffer == 1 {
                    raw.groups[work] = quads(own)[at];
                } else if buffer == 2 {
                    raw.groups[work] = quads(entries)[at];
                }
            }
        }
    }
}

/// The same keys as numbers into `tile`; `valid` says which are keys. All threads of the block call it, between
/// barriers of the caller.
#[cube]
pub(super) fn unpack(
    step: &[i32],
    ring: &[u32],
    own: &[u32],
    entries: &[u32],
    idx: &[i32],
    t: usize,
    base: usize,
    end: usize,
    seen: &Seen,
    raw: &Raw,
    tile: &mut Shared<[f32]>,
    valid: &mut Shared<[u32]>,
    #[comptime] a: Attend,
) {
    let words = comptime!(words(a) as usize);
    for work in range_stepped(UNIT_POS as usize, comptime!(a.tile()) * words, CUBE_DIM as usize) {
        let (slot, word) = (work / words, work % words);
        let to = slot * comptime!(a.width as usize);
        let mut is_key = false;
        if comptime!(a.keys == Scalar::F32) {
            let (buffer, row) = place(step, idx, t, base + slot, end, seen, a);
            if buffer < 3 {
                is_key = true;
            }
            let at = row * words + word;
            if buffer == 0 {
                tile[to + word] = f32::reinterpret(ring[at]);
            } else if buffer == 1 {
                tile[to + word] = f32::reinterpret(own[at]);
            } else if buffer == 2 {
                tile[to + word] = f32::reinterpret(entries[at]);
            }
        } else {
            let start = raw.starts[slot];
            if start != NO_KEY {
                is_key = true;
                let at = slot * comptime!(16 * groups(a)) + start as usize;
                elements(singles(raw.groups.as_slice()), at, word, tile, to, a);
            }
        }
        if word == 0 {
            valid[slot] = select(is_key, 1u32, 0u32);
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

/// The elements of word `word` of the packed row that begins with byte `at`, to `tile[to..]`.
#[cube]
fn elements(
    from: &[u32],
    at: usize,
    word: usize,
    tile: &mut Shared<[f32]>,
    to: usize,
    #[comptime] a: Attend,
) {
    let rope = comptime!(if let Scalar::Kv8 { rope } = a.keys { usize::from(rope) } else { 0 });
    let codes = comptime!(a.width as usize - rope);
    let bits = from[at / 4 + word];
    if word < comptime!(codes / 4) {
        let scale = at + comptime!(codes + 2 * rope) + 4 * word / comptime!(KV8_GROUP);
        let scale = e8m0_value(byte_at(from, scale));
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

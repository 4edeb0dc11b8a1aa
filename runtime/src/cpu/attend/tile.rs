//! The two products of attention, over a block of decoded keys that stays in the first cache.
use crate::cpu::simd::{Lanes, versions};

/// Vectors of keys, or of channels, that a tile takes.
const N: usize = 4;

/// The products of `M` rows of `q` with four groups of keys, by head and key, times `scale`.
#[inline(always)]
fn tile<V: Lanes, const M: usize>(
    q: [&[f32]; M],
    keys: [&[f32]; N],
    blocks: usize,
    scale: f32,
) -> [[f32; 2 * N]; M] {
    let mut sums = [[V::splat(0.0); N]; M];
    let q = q.map(|q| &q.as_chunks::<8>().0[..blocks]);
    let keys = keys.map(|k| &k[..blocks * 8 * V::ROWS]);
    for at in 0..blocks {
        let k: [V; N] = std::array::from_fn(|j| V::load(&keys[j][at * 8 * V::ROWS..]));
        for i in 0..M {
            let x = V::repeat(&q[i][at]);
            for j in 0..N {
                sums[i][j] = x.fma(k[j], sums[i][j]);
            }
        }
    }
    let mut products = [[0.0; 2 * N]; M];
    for i in 0..M {
        let [first, second] = V::joined(sums[i]);
        for j in 0..N {
            products[i][j * V::ROWS] = first[j] * scale;
            if V::ROWS == 2 {
                products[i][j * 2 + 1] = second[j] * scale;
            }
        }
    }
    products
}

/// Writes products by head and key to rows by key and head.
#[inline(always)]
fn write<const M: usize>(products: &[[f32; 2 * N]; M], keys: usize, out: &mut [f32], heads: usize) {
    for (key, out) in out.chunks_mut(heads).take(keys).enumerate() {
        let out = &mut out[..M];
        for i in 0..M {
            out[i] = products[i][key];
        }
    }
}

versions! {
    /// `out[key · heads + head]` = `q` of the head times the key, times `scale`.
    ///
    /// `q`: rows of `width`, a multiple of 8. `keys`: `count` keys in groups of [`Lanes::ROWS`], each
    /// group as eight channels of every key in turn.
    pub(super) fn scores<V>(q: &[f32], width: usize, keys: &[f32], count: usize, scale: f32, out: &mut [f32]) {
        let (heads, group, blocks) = (q.len() / width, width * V::ROWS, width / 8);
        let groups = count.div_ceil(V::ROWS);
        let mut head = 0;
        while head < heads {
            let q = &q[head * width..];
            let q: [&[f32]; 4] = std::array::from_fn(|i| &q[(i * width).min(q.len() - width)..][..width]);
            let take = if V::ROWS == 2 && heads - head >= 4 { 4 } else { 2.min(heads - head) };
            for first in (0..groups).step_by(N) {
                // A short last tile repeats its last group.
                let tiles = std::array::from_fn(|j| &keys[(first + j).min(groups - 1) * group..][..group]);
                let first = first * V::ROWS;
                let (used, out) = ((count - first).min(N * V::ROWS), &mut out[first * heads + head..]);
                match take {
                    4 => write(&tile::<V, 4>(q, tiles, blocks, scale), used, out, heads),
                    2 => write(&tile::<V, 2>([q[0], q[1]], tiles, blocks, scale), used, out, heads),
                    _ => write(&tile::<V, 1>([q[0]], tiles, blocks, scale), used, out, heads),
                }
            }
            head += take;
        }
    }
}

/// Adds `Σ weights[key · heads + head] · keys[key]` to `M` heads' rows of `N` vectors.
#[inline(always)]
fn mix_tile<V: Lanes, const M: usize>(
    weights: &[f32],
    heads: usize,
    keys: &[f32],
    stride: usize,
    acc: &mut [f32],
    width: usize,
) {
    let lanes = 8 * V::ROWS;
    let mut sums: [[V; N]; M] =
        std::array::from_fn(|i| std::array::from_fn(|j| V::load(&acc[i * width + j * lanes..])));
    for (key, w) in keys.chunks(stride).zip(weights.chunks(heads)) {
        let key = &key[..N * lanes];
        let k: [V; N] = std::array::from_fn(|j| V::load(&key[j * lanes..]));
        let w = &w[..M];
        for i in 0..M {
            let w = V::splat(w[i]);
            for j in 0..N {
                sums[i][j] = w.fma(k[j], sums[i][j]);
            }
        }
    }
    for (i, sums) in sums.into_iter().enumerate() {
        sums.into_iter().enumerate().for_each(|(j, s)| s.store(&mut acc[i * width + j * lanes..]));
    }
}

/// Channels that [`mix`] takes.
pub(super) const CHANNELS: usize = 64;

versions! {
    /// Adds `weights[key · heads + head] · keys[key]`, keys ascending, to each head's row of `acc`:
    /// rows of [`CHANNELS`].
    pub(super) fn mix<V>(weights: &[f32], heads: usize, keys: &[f32], acc: &mut [f32]) {
        let vectors = N * 8 * V::ROWS;
        for (i, acc) in acc.chunks_mut(4 * CHANNELS).enumerate() {
            let weights = &weights[4 * i..];
            for at in (0..CHANNELS).step_by(vectors) {
                let (keys, acc) = (&keys[at..], &mut *acc);
                match acc.len() / CHANNELS {
                    4 if V::ROWS == 2 => mix_tile::<V, 4>(weights, heads, keys, CHANNELS, &mut acc[at..], CHANNELS),
                    n => {
                        let mut head = 0;
                        while head < n {
                            let (w, acc) = (&weights[head..], &mut acc[head * CHANNELS + at..]);
                            if n - head >= 2 {
                                mix_tile::<V, 2>(w, heads, keys, CHANNELS, acc, CHANNELS);
                            } else {
                                mix_tile::<V, 1>(w, heads, keys, CHANNELS, acc, CHANNELS);
                            }
                            head += 2;
                        }
                    }
                }
            }
        }
    }
}

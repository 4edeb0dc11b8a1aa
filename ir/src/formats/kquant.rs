//! Super-blocks of 256 codes with scales and minima that are themselves codes (spec 4.4).
use super::blocks::{f16_at, small};
use crate::Real;

/// f16 `d`, f16 `dmin`, 12 bytes of scales and minima, 128 bytes of nibbles.
#[inline]
pub(super) fn decode_q4_k<F: Real>(block: &[u8; 144], out: &mut [F; 256]) {
    let (d, dmin): (F, F) = (f16_at(block, 0), f16_at(block, 2));
    let (packed, nibbles) = block[4..].split_at(12);
    for (i, (q, out)) in nibbles.chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        let (low, high) = out.split_at_mut(32);
        let (scale, min) = q4_k_scale_min(packed, 2 * i);
        affine(q, |q| q & 15, d * small(scale), dmin * small(min), low);
        let (scale, min) = q4_k_scale_min(packed, 2 * i + 1);
        affine(q, |q| q >> 4, d * small(scale), dmin * small(min), high);
    }
}

/// Six bit scale and minimum of sub-block `j` of 8.
#[inline]
fn q4_k_scale_min(s: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4)
    }
}

/// 16 bytes of scales (low nibble) and minima (high nibble), 64 bytes of codes, f16 `d`, f16 `dmin`.
#[inline]
pub(super) fn decode_q2_k<F: Real>(block: &[u8; 84], out: &mut [F; 256]) {
    let (d, dmin): (F, F) = (f16_at(block, 80), f16_at(block, 82));
    let (scales, codes) = block[..80].split_at(16);
    for (i, (scale, out)) in scales.iter().zip(out.chunks_exact_mut(16)).enumerate() {
        // Sub-block i = 8h + 2j + b lies in bits 2j of bytes 32h + 16b and following.
        let (h, j, b) = (i / 8, i / 2 % 4, i % 2);
        let q = &codes[32 * h + 16 * b..][..16];
        affine(q, |q| q >> (2 * j) & 3, d * small(scale & 15), dmin * small(scale >> 4), out);
    }
}

/// out = scale·code - min.
#[inline]
fn affine<F: Real>(q: &[u8], code: impl Fn(u8) -> u8, scale: F, min: F, out: &mut [F]) {
    for (q, out) in q.iter().zip(out) {
        *out = scale * small(code(*q)) - min;
    }
}

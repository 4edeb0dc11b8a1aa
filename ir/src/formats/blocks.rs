//! Rows as sequences of blocks, and the small conversions that every block format needs.
//!
//! A block function sees whole blocks only; the short last block of a row is handled here.
use super::half::f16_to_f32;
use crate::Real;

/// Decodes a row of blocks of `B` bytes that hold `N` elements each.
#[inline]
pub(super) fn decode_blocks<F: Real, const B: usize, const N: usize>(
    row: &[u8],
    out: &mut [F],
    decode: impl Fn(&[u8; B], &mut [F; N]),
) {
    let (blocks, _) = row.as_chunks::<B>();
    let (whole, short) = out.as_chunks_mut::<N>();
    let n_whole = whole.len();
    for (block, out) in blocks.iter().zip(whole) {
        decode(block, out);
    }
    if !short.is_empty() {
        let mut last = [F::ZERO; N];
        decode(&blocks[n_whole], &mut last);
        short.copy_from_slice(&last[..short.len()]);
    }
}

/// Encodes a row into blocks of `B` bytes that hold `N` elements each; a short last block is
/// continued with zeros.
#[inline]
pub(super) fn encode_blocks<F: Real, const B: usize, const N: usize>(
    x: &[F],
    row: &mut [u8],
    encode: impl Fn(&[f32; N], &mut [u8; B]),
) {
    let (blocks, _) = row.as_chunks_mut::<B>();
    for (x, block) in x.chunks(N).zip(blocks) {
        encode(&rounded(x), block);
    }
}

/// At most `N` values, each rounded to `f32`, then zeros.
#[inline]
pub(super) fn rounded<F: Real, const N: usize>(x: &[F]) -> [f32; N] {
    let mut y = [0.0; N];
    for (y, x) in y.iter_mut().zip(x) {
        *y = x.to_f32();
    }
    y
}

/// The largest magnitude, or `None` if a value is NaN or infinite.
#[inline]
pub(super) fn finite_amax(x: &[f32]) -> Option<f32> {
    // The bits of magnitudes order like the magnitudes, and NaN lies above infinity.
    let top = x.iter().fold(0, |top, x| top.max(x.to_bits() & 0x7fff_ffff));
    let amax = f32::from_bits(top);
    amax.is_finite().then_some(amax)
}

/// A small integer, exact.
#[inline]
pub(super) fn small<F: Real>(x: impl Into<f32>) -> F {
    F::from_f32(x.into())
}

/// The binary16 number at byte `at` of a block.
#[inline]
pub(super) fn f16_at<F: Real>(block: &[u8], at: usize) -> F {
    F::from_f32(f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]])))
}

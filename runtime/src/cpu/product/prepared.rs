//! Prepared rows of integer inputs: codes, then scales, then sums of codes.
//!
//! ```text
//! codes   i8 per element, zeros up to whole blocks, anything up to a multiple of 256
//! scales  f32 per block                                  each part starts at a multiple of 64 bytes
//! sums    i32 per so many elements as the kernel says, times a factor
//! ```
use super::bytes::{view, view_mut};

/// Where the parts of a row lie.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// Where the scales start, in bytes.
    pub(super) scales: usize,
    /// Where the sums start, in bytes.
    pub(super) sums: usize,
    /// Bytes of the row.
    pub(super) bytes: usize,
}

/// For `width` elements in blocks of `B`, one sum per `S`.
pub(super) const fn parts<const B: usize, const S: usize>(width: usize) -> Parts {
    let blocks = width.div_ceil(B);
    let scales = (blocks * B).next_multiple_of(256);
    let sums = scales + (4 * blocks).next_multiple_of(64);
    Parts { scales, sums, bytes: sums + (blocks * B / S * 4).next_multiple_of(64) }
}

/// Scale and codes of each block of a row of `q8_0`.
pub(super) fn q8_0(row: &[u8]) -> impl Iterator<Item = (f32, &[i8])> {
    let d = |b: &[u8; 34]| ds4_ir::formats::f16_to_f32(u16::from_le_bytes([b[0], b[1]]));
    row.as_chunks::<34>().0.iter().map(move |b| (d(b), view(&b[2..])))
}

/// Scale and codes of each block of a row of `q8_k`.
pub(super) fn q8_k(row: &[u8]) -> impl Iterator<Item = (f32, &[i8])> {
    let d = |b: &[u8; 292]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    row.as_chunks::<292>().0.iter().map(move |b| (d(b), view(&b[4..260])))
}

/// Fills a row whose codes keep their order; each sum is that of `S` codes times `factor`.
pub(super) fn fill<'a, const B: usize, const S: usize>(
    width: usize,
    factor: i32,
    blocks: impl Iterator<Item = (f32, &'a [i8])>,
    out: &mut [u8],
) {
    let parts = parts::<B, S>(width);
    let (codes, rest) = out[..parts.bytes].split_at_mut(parts.scales);
    let (scales, sums) = rest.split_at_mut(parts.sums - parts.scales);
    let (codes, scales, sums) = (view_mut::<i8>(codes), view_mut::<f32>(scales), view_mut::<i32>(sums));
    for (i, (d, x)) in blocks.enumerate() {
        let n = (width - B * i).min(B);
        let (used, beyond) = codes[B * i..][..B].split_at_mut(n);
        used.copy_from_slice(&x[..n]);
        beyond.fill(0);
        scales[i] = d;
    }
    for (sum, x) in sums.iter_mut().zip(codes.chunks_exact(S)) {
        *sum = factor * x.iter().map(|x| i32::from(*x)).sum::<i32>();
    }
}

/// Half of 2^(code - 127) by code; 255 is NaN.
pub(super) static HALF_E8M0: [f32; 256] = {
    let mut half = [f32::NAN; 256];
    let mut code = 0;
    while code < 255 {
        half[code] = f32::from_bits(if code < 2 { 0x0020_0000 << code } else { (code as u32 - 1) << 23 });
        code += 1;
    }
    half
};

//! Signed bytes under one scale per block: `q8_0` and `q8_k` (spec 4.4).
use super::blocks::{f16_at, finite_amax, small};
use super::half::{f16_to_f32, f32_to_f16};
use crate::Real;

/// f16 `d`, 32 × i8; value = d·q.
#[inline]
pub(super) fn decode_q8_0<F: Real>(block: &[u8; 34], out: &mut [F; 32]) {
    let d: F = f16_at(block, 0);
    for (q, out) in block[2..].iter().zip(out) {
        *out = d * small::<F>(*q as i8);
    }
}

/// f32 `d`, 256 × i8, 16 × i16 sums of 16 codes each; value = d·q.
#[inline]
pub(super) fn decode_q8_k<F: Real>(block: &[u8; 292], out: &mut [F; 256]) {
    let d = F::from_f32(f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
    for (q, out) in block[4..260].iter().zip(out) {
        *out = d * small::<F>(*q as i8);
    }
}

/// d = amax/127 as f16, q = round(x/d) with that d, at most ±127.
///
/// A block whose d rounds to zero is all zero. One whose d rounds to infinity, or that holds a NaN or
/// an infinity, decodes to NaN.
pub(super) fn encode_q8_0(x: &[f32; 32], block: &mut [u8; 34]) {
    let d_code = f32_to_f16(finite_amax(x).map_or(f32::NAN, |amax| amax / 127.0));
    let d = f16_to_f32(d_code);
    block[..2].copy_from_slice(&d_code.to_le_bytes());
    for (x, q) in x.iter().zip(&mut block[2..]) {
        let scaled = if d.is_normal() { x / d } else { 0.0 };
        *q = round_to_i8(scaled.max(-127.0)) as u8;
    }
}

/// With x* the first element of the largest magnitude: 1/d = -127/x*, q = round(x·(1/d)).
///
/// A block whose 1/d is infinite, because |x*| is at most 127/`f32::MAX`, is all zero. One that holds
/// a NaN or an infinity decodes to NaN.
pub(super) fn encode_q8_k(x: &[f32; 256], block: &mut [u8; 292]) {
    block.fill(0);
    let (d_bytes, rest) = block.split_at_mut(4);
    let (codes, sums) = rest.split_at_mut(256);
    let Some(amax) = finite_amax(x) else {
        d_bytes.copy_from_slice(&f32::NAN.to_le_bytes());
        return;
    };
    let extreme = x.iter().find(|x| x.abs() == amax).expect("the largest magnitude is one of them");
    let d_inverse = -127.0 / extreme;
    if d_inverse.is_infinite() {
        return;
    }
    d_bytes.copy_from_slice(&(1.0 / d_inverse).to_le_bytes());
    for (x, q) in x.iter().zip(&mut *codes) {
        *q = round_to_i8(d_inverse * x) as u8;
    }
    for (codes, sum) in codes.chunks(16).zip(sums.as_chunks_mut().0) {
        *sum = codes.iter().map(|q| i16::from(*q as i8)).sum::<i16>().to_le_bytes();
    }
}

/// Nearest integer, ties to even, clamped to -128 … 127; `x` is not NaN.
#[inline]
fn round_to_i8(x: f32) -> i8 {
    // In [2^23, 2^24) floats are the integers, so the addition rounds.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x.clamp(-128.0, 127.0) + SHIFT;
    (shifted.to_bits() as i32 - SHIFT.to_bits() as i32) as i8
}

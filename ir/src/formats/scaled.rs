//! E4M3 and E2M1 codes under shared power-of-two scales (spec 4.1, 4.4, 6.2).
//!
//! ```text
//! kv8       e4m3 × (width - rope) | bf16 × rope | e8m0 per 64 codes | 0 up to a multiple of 8
//! e4m3x128  e4m3 × width | e8m0 per 128 codes | 0 up to a multiple of 4
//! idx4      e2m1 × width, low nibble first | e8m0 per 32 codes | 0 up to a multiple of 4
//! fp8       e4m3 × width              scales elsewhere: e8m0 per 128 columns (of 128 rows)
//! fp4       e2m1 × width, low nibble first          ... e8m0 per 32 columns
//! mxfp4     blocks of 32: e8m0 | 16 bytes, values 0 to 15 in the low nibbles, 16 to 31 in the high
//! ```
//! The last group of a row may be shorter than the others.
use super::float8::{e2m1_to_f32, e4m3_to_f32, e8m0_to_f32, f32_to_e2m1, f32_to_e4m3, pow2_ceil};
use super::{blocks, plain};
use crate::{E4M3_GROUP, FP4_GROUP, FP8_BLOCK, IDX4_GROUP, KV8_GROUP, Real};

/// How a group of values gets its scale and its codes.
struct Rounding {
    /// The least magnitude the scale is chosen for.
    amax_min: f32,
    /// 1 / (largest code value).
    max_inverse: f32,
    encode: fn(f32) -> u8,
}

const E4M3: Rounding =
    Rounding { amax_min: 1e-4, max_inverse: (1.0 / 448.0_f64) as f32, encode: f32_to_e4m3 };
const E2M1: Rounding =
    Rounding { amax_min: 6.0 * f32::MIN_POSITIVE, max_inverse: (1.0 / 6.0_f64) as f32, encode: f32_to_e2m1 };
/// The scale code of a group that holds a NaN or an infinity: all of it decodes to NaN.
const NAN_SCALE: u8 = 255;

impl Rounding {
    /// Scale code and codes of one group (spec 6.2, `FP8round` and `FP4round`).
    #[inline]
    fn encode<const N: usize>(&self, x: &[f32; N]) -> (u8, [u8; N]) {
        let Some(amax) = blocks::finite_amax(x) else {
            return (NAN_SCALE, [0; N]);
        };
        let scale_code = pow2_ceil(amax.max(self.amax_min) * self.max_inverse);
        let scale = e8m0_to_f32(scale_code);
        // Encoding saturates, which is the clip of the formula.
        (scale_code, x.map(|x| (self.encode)(x / scale)))
    }
}

/// Decodes one row of an `fp8` matrix.
///
/// `codes`: one byte per column; `scales`: the scale row of the row's block of 128 rows, one byte per
/// 128 columns.
///
/// # Panics
/// If a length does not fit `out`.
#[inline]
pub fn decode_fp8_row<F: Real>(codes: &[u8], scales: &[u8], out: &mut [F]) {
    assert_eq!(codes.len(), out.len(), "fp8: codes and columns");
    assert_eq!(scales.len(), out.len().div_ceil(FP8_BLOCK), "fp8: scales of {} columns", out.len());
    decode_e4m3::<F, FP8_BLOCK>(codes, scales, out);
}

/// Decodes one row of an `fp4` matrix.
///
/// `codes`: two columns per byte; `scales`: one byte per 32 columns.
///
/// # Panics
/// If a length does not fit `out`.
pub fn decode_fp4_row<F: Real>(codes: &[u8], scales: &[u8], out: &mut [F]) {
    assert_eq!(codes.len(), out.len().div_ceil(2), "fp4: bytes of {} columns", out.len());
    assert_eq!(scales.len(), out.len().div_ceil(FP4_GROUP), "fp4: scales of {} columns", out.len());
    decode_e2m1::<F, FP4_GROUP>(codes, scales, out);
}

pub(super) fn decode_kv8<F: Real>(rope: usize, row: &[u8], out: &mut [F]) {
    let n = out.len() - rope;
    let (scaled, rotary) = out.split_at_mut(n);
    let (codes, rest) = row.split_at(n);
    let (halves, scales) = rest.split_at(2 * rope);
    decode_e4m3::<F, KV8_GROUP>(codes, scales, scaled);
    plain::decode_bf16(halves, rotary);
}

pub(super) fn decode_e4m3x128<F: Real>(row: &[u8], out: &mut [F]) {
    let (codes, scales) = row.split_at(out.len());
    decode_e4m3::<F, E4M3_GROUP>(codes, scales, out);
}

pub(super) fn decode_idx4<F: Real>(row: &[u8], out: &mut [F]) {
    let (codes, scales) = row.split_at(out.len().div_ceil(2));
    decode_e2m1::<F, IDX4_GROUP>(codes, scales, out);
}

pub(super) fn decode_mxfp4<F: Real>(block: &[u8; 17], out: &mut [F; 32]) {
    let scale = F::from_f32(e8m0_to_f32(block[0]));
    let (low, high) = out.split_at_mut(16);
    for ((code, low), high) in block[1..].iter().zip(low).zip(high) {
        *low = F::from_f32(e2m1_to_f32(code & 15)) * scale;
        *high = F::from_f32(e2m1_to_f32(code >> 4)) * scale;
    }
}

/// Groups of `G`; `scales` may have padding behind it.
#[inline]
fn decode_e4m3<F: Real, const G: usize>(codes: &[u8], scales: &[u8], out: &mut [F]) {
    for ((codes, scale), out) in codes.chunks(G).zip(scales).zip(out.chunks_mut(G)) {
        let scale = F::from_f32(e8m0_to_f32(*scale));
        for (code, out) in codes.iter().zip(out) {
            *out = F::from_f32(e4m3_to_f32(*code)) * scale;
        }
    }
}

/// Groups of `G`, which is even; `scales` may have padding behind it.
#[inline]
fn decode_e2m1<F: Real, const G: usize>(codes: &[u8], scales: &[u8], out: &mut [F]) {
    for ((codes, scale), out) in codes.chunks(G / 2).zip(scales).zip(out.chunks_mut(G)) {
        let scale = F::from_f32(e8m0_to_f32(*scale));
        let (pairs, odd) = out.as_chunks_mut::<2>();
        if let [last] = odd {
            *last = F::from_f32(e2m1_to_f32(codes[pairs.len()] & 15)) * scale;
        }
        for (code, [even, odd]) in codes.iter().zip(pairs) {
            *even = F::from_f32(e2m1_to_f32(code & 15)) * scale;
            *odd = F::from_f32(e2m1_to_f32(code >> 4)) * scale;
        }
    }
}

pub(super) fn encode_kv8<F: Real>(rope: usize, x: &[F], row: &mut [u8]) {
    let n = x.len() - rope;
    let (codes, rest) = row.split_at_mut(n);
    let (halves, scales) = rest.split_at_mut(2 * rope);
    encode_e4m3::<F, KV8_GROUP>(&x[..n], codes, scales);
    plain::encode_bf16(&x[n..], halves);
}

pub(super) fn encode_e4m3x128<F: Real>(x: &[F], row: &mut [u8]) {
    let (codes, scales) = row.split_at_mut(x.len());
    encode_e4m3::<F, E4M3_GROUP>(x, codes, scales);
}

/// The transform of index rows is not part of this, see [`super::hadamard`].
pub(super) fn encode_idx4<F: Real>(x: &[F], row: &mut [u8]) {
    let (codes, scales) = row.split_at_mut(x.len().div_ceil(2));
    scales.fill(0);
    for ((x, codes), scale) in x.chunks(IDX4_GROUP).zip(codes.chunks_mut(IDX4_GROUP / 2)).zip(scales) {
        let (scale_code, nibbles) = E2M1.encode::<IDX4_GROUP>(&blocks::rounded(x));
        *scale = scale_code;
        for (code, [even, odd]) in codes.iter_mut().zip(nibbles.as_chunks().0) {
            *code = even | odd << 4;
        }
    }
}

fn encode_e4m3<F: Real, const G: usize>(x: &[F], codes: &mut [u8], scales: &mut [u8]) {
    scales.fill(0);
    for ((x, codes), scale) in x.chunks(G).zip(codes.chunks_mut(G)).zip(scales) {
        let (scale_code, bytes) = E4M3.encode::<G>(&blocks::rounded(x));
        *scale = scale_code;
        codes.copy_from_slice(&bytes[..codes.len()]);
    }
}

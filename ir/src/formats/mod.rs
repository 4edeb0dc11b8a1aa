//! Number formats: how the bytes of a row become numbers and back (spec 4.4, 6.2).
//!
//! This module guarantees that
//! - decoding in `f64` is exact, and decoding in `f32` rounds only where a format's own formula does
//!   (`d·q` of `q8_k`, the subtraction of `q4_k` and `q2_k`) or where the value leaves the range of `f32`;
//! - encoding rounds every value to `f32` first and goes on in `f32`, so both precisions of the
//!   interpreter choose the same codes;
//! - no input panics: NaN codes and scales decode to NaN, and a group of values that holds a NaN or an
//!   infinity is encoded so that all of it decodes to NaN (plain floats and the rope channels of `kv8`
//!   keep NaN and infinity element by element).
//!
//! Lengths that do not fit the type are bugs of the caller and panic. Layouts of the packed rows are
//! drawn in `scaled.rs`, those of the block formats beside their functions; sizes live in [`Scalar`].
mod blocks;
mod float8;
mod hadamard;
mod half;
mod int8;
mod iq2xxs;
mod kquant;
mod minifloat;
mod plain;
mod scaled;

pub use float8::{e2m1_to_f32, e4m3_to_f32, e8m0_to_f32, f32_to_e2m1, f32_to_e4m3, pow2_ceil};
pub use hadamard::hadamard;
pub use half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use iq2xxs::{IQ2XXS_GRID, iq2xxs_signs};
pub use scaled::{decode_fp4_row, decode_fp8_row};

use crate::{Real, Scalar};
use blocks::{decode_blocks, encode_blocks};

/// Decodes one row of `out.len()` elements.
///
/// `row` has [`Scalar::row_bytes`] bytes; the elements beyond a short last block are ignored.
///
/// # Panics
/// If the length of `row` is another, or if elements of `scalar` are not numbers that a row alone
/// determines: integers, routes, and `fp8` and `fp4`, whose scales lie elsewhere.
pub fn decode_row<F: Real>(scalar: Scalar, row: &[u8], out: &mut [F]) {
    check_length(scalar, row.len(), out.len());
    match scalar {
        Scalar::F32 => plain::decode_f32(row, out),
        Scalar::F16 => plain::decode_f16(row, out),
        Scalar::Bf16 => plain::decode_bf16(row, out),
        Scalar::Kv8 { rope } => scaled::decode_kv8(usize::from(rope), row, out),
        Scalar::Idx4 => scaled::decode_idx4(row, out),
        Scalar::E4m3x128 => scaled::decode_e4m3x128(row, out),
        Scalar::Q8K => decode_blocks(row, out, int8::decode_q8_k),
        Scalar::Q8_0 => decode_blocks(row, out, int8::decode_q8_0),
        Scalar::Q4K => decode_blocks(row, out, kquant::decode_q4_k),
        Scalar::Q2K => decode_blocks(row, out, kquant::decode_q2_k),
        Scalar::Iq2Xxs => decode_blocks(row, out, iq2xxs::decode_iq2_xxs),
        Scalar::Mxfp4 => decode_blocks(row, out, scaled::decode_mxfp4),
        Scalar::I32 | Scalar::I64 | Scalar::Route | Scalar::Fp8 | Scalar::Fp4 => {
            panic!("{scalar}: a row of it alone does not hold real numbers")
        }
    }
}

/// Encodes one row of `x.len()` elements.
///
/// `row` has [`Scalar::row_bytes`] bytes and is overwritten whole, padding with zeros. `idx4` does not
/// include the transform, see [`hadamard`].
///
/// # Panics
/// If the length of `row` is another, or if `scalar` is not a format of activations or states: the
/// other weight formats are only ever read.
pub fn encode_row<F: Real>(scalar: Scalar, x: &[F], row: &mut [u8]) {
    check_length(scalar, row.len(), x.len());
    match scalar {
        Scalar::F32 => plain::encode_f32(x, row),
        Scalar::F16 => plain::encode_f16(x, row),
        Scalar::Bf16 => plain::encode_bf16(x, row),
        Scalar::Kv8 { rope } => scaled::encode_kv8(usize::from(rope), x, row),
        Scalar::Idx4 => scaled::encode_idx4(x, row),
        Scalar::E4m3x128 => scaled::encode_e4m3x128(x, row),
        Scalar::Q8K => encode_blocks(x, row, int8::encode_q8_k),
        Scalar::Q8_0 => encode_blocks(x, row, int8::encode_q8_0),
        _ => panic!("{scalar}: nothing is ever encoded in this type"),
    }
}

fn check_length(scalar: Scalar, bytes: usize, width: usize) {
    if let Scalar::Kv8 { rope } = scalar {
        assert!(usize::from(rope) <= width, "{scalar}[{width}]: more rotary channels than channels");
    }
    let expected = scalar.row_bytes(width);
    assert_eq!(bytes, expected, "{scalar}[{width}]: a row has {expected} bytes, got {bytes}");
}

//! Rows of plain floats, little-endian.
use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::Real;

pub(super) fn decode_f32<F: Real>(row: &[u8], out: &mut [F]) {
    for (bytes, out) in row.as_chunks().0.iter().zip(out) {
        *out = F::from_f32(f32::from_le_bytes(*bytes));
    }
}

pub(super) fn decode_f16<F: Real>(row: &[u8], out: &mut [F]) {
    for (bytes, out) in row.as_chunks().0.iter().zip(out) {
        *out = F::from_f32(f16_to_f32(u16::from_le_bytes(*bytes)));
    }
}

pub(super) fn decode_bf16<F: Real>(row: &[u8], out: &mut [F]) {
    for (bytes, out) in row.as_chunks().0.iter().zip(out) {
        *out = F::from_f32(bf16_to_f32(u16::from_le_bytes(*bytes)));
    }
}

pub(super) fn encode_f32<F: Real>(x: &[F], row: &mut [u8]) {
    for (x, bytes) in x.iter().zip(row.as_chunks_mut().0) {
        *bytes = x.to_f32().to_le_bytes();
    }
}

pub(super) fn encode_f16<F: Real>(x: &[F], row: &mut [u8]) {
    for (x, bytes) in x.iter().zip(row.as_chunks_mut().0) {
        *bytes = f32_to_f16(x.to_f32()).to_le_bytes();
    }
}

pub(super) fn encode_bf16<F: Real>(x: &[F], row: &mut [u8]) {
    for (x, bytes) in x.iter().zip(row.as_chunks_mut().0) {
        *bytes = f32_to_bf16(x.to_f32()).to_le_bytes();
    }
}

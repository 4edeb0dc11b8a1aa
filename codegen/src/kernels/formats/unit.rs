//! One unit of any format.
use super::{RowFormat, int8, iq2xxs, kquant, scaled};
use crate::kernels::common::{bf16_value, bytes, f16_value, halves, pairs, quads};
use cubecl::prelude::*;
use ds4_ir::Scalar;

/// Where a row lies: bytes from the start of the codes and of the scales.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Place {
    /// First byte of the row's codes.
    pub(crate) codes: usize,
    /// First byte of the row's scales; anything for formats that have none of their own.
    pub(crate) scales: usize,
}

/// Unit `unit` of the row at `place`, into the first elements of `out`.
///
/// `table` holds the format's constant, in shared memory or not.
#[cube]
pub(crate) fn decode(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    place: &Place,
    unit: usize,
    out: &mut Array<f32>,
    #[comptime] format: RowFormat,
) {
    let scalar = comptime!(format.scalar);
    if comptime!(matches!(scalar, Scalar::F32 | Scalar::F16 | Scalar::Bf16)) {
        plain(codes, place.codes, unit, out, format);
    } else if comptime!(scalar == Scalar::Q8_0) {
        int8::q8_0(codes, place.codes, unit, out);
    } else if comptime!(scalar == Scalar::Q8K) {
        int8::q8_k(codes, place.codes, unit, out);
    } else if comptime!(scalar == Scalar::Q4K) {
        kquant::q4_k(codes, place.codes, unit, out);
    } else if comptime!(scalar == Scalar::Q2K) {
        kquant::q2_k(codes, place.codes, unit, out);
    } else if comptime!(scalar == Scalar::Iq2Xxs) {
        iq2xxs::iq2_xxs(codes, table, place.codes, unit, out);
    } else if comptime!(scalar == Scalar::Mxfp4) {
        scaled::mxfp4(codes, place.codes, unit, out);
    } else if comptime!(scalar == Scalar::Fp4) {
        scaled::e2m1(codes, scales, place, unit, out, format);
    } else if comptime!(scalar == Scalar::Fp8) {
        scaled::e4m3(codes, scales, place, unit, out, format);
    } else {
        let place = Place { codes: place.codes, scales: place.codes + comptime!(format.width as usize) };
        scaled::e4m3(codes, codes, &place, unit, out, format);
    }
}

/// As many bytes as one load takes, in words; fewer than four are the low ones of the word.
#[cube]
pub(crate) fn fetch(codes: &[u32], byte: usize, #[comptime] load: u32) -> Array<u32> {
    let mut words = Array::<u32>::new(comptime!(load.div_ceil(4) as usize));
    if comptime!(load == 16) {
        let v = quads(codes)[byte / 16];
        #[unroll]
        for i in 0..4usize {
            words[i] = v.extract(i);
        }
    } else if comptime!(load == 8) {
        let v = pairs(codes)[byte / 8];
        #[unroll]
        for i in 0..2usize {
            words[i] = v.extract(i);
        }
    } else if comptime!(load == 4) {
        words[0] = codes[byte / 4];
    } else if comptime!(load == 2) {
        words[0] = u32::cast_from(halves(codes)[byte / 2]);
    } else {
        words[0] = u32::cast_from(bytes(codes)[byte]);
    }
    words
}

#[cube]
fn plain(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>, #[comptime] format: RowFormat) {
    let load = comptime!(format.load());
    let words = fetch(codes, row + unit * comptime!(load as usize), load);
    #[unroll]
    for i in 0..comptime!(format.unit()) {
        if comptime!(format.scalar == Scalar::F32) {
            out[i as usize] = f32::reinterpret(words[i as usize]);
        } else {
            let bits = words[comptime!((i / 2) as usize)] >> comptime!(16 * (i % 2));
            if comptime!(format.scalar == Scalar::F16) {
                out[i as usize] = f16_value(bits);
            } else {
                out[i as usize] = bf16_value(bits);
            }
        }
    }
}

//! E4M3 and E2M1 codes under power-of-two scales.
use super::unit::fetch;
use super::{Place, RowFormat};
use crate::kernels::common::{bytes, e2m1_value, e4m3_value, e8m0_value};
use cubecl::prelude::*;

/// One code per byte; a scale byte per group.
#[cube]
pub(super) fn e4m3(
    codes: &[u32],
    scales: &[u32],
    place: &Place,
    unit: usize,
    out: &mut Array<f32>,
    #[comptime] format: RowFormat,
) {
    let load = comptime!(format.load());
    let words = fetch(codes, place.codes + unit * comptime!(load as usize), load);
    let scale = scale_of(scales, place, unit, format);
    #[unroll]
    for i in 0..load {
        let word = words[comptime!((i / 4) as usize)];
        out[i as usize] = e4m3_value(word >> comptime!(8 * (i % 4))) * scale;
    }
}

/// Two codes per byte, the low nibble first; a scale byte per group.
#[cube]
pub(super) fn e2m1(
    codes: &[u32],
    scales: &[u32],
    place: &Place,
    unit: usize,
    out: &mut Array<f32>,
    #[comptime] format: RowFormat,
) {
    let load = comptime!(format.load());
    let words = fetch(codes, place.codes + unit * comptime!(load as usize), load);
    let scale = scale_of(scales, place, unit, format);
    #[unroll]
    for i in 0..comptime!(2 * load) {
        let word = words[comptime!((i / 8) as usize)];
        out[i as usize] = e2m1_value(word >> comptime!(4 * (i % 8))) * scale;
    }
}

#[cube]
fn scale_of(scales: &[u32], place: &Place, unit: usize, #[comptime] format: RowFormat) -> f32 {
    let at = place.scales + unit / comptime!(format.units_per_scale() as usize);
    e8m0_value(u32::cast_from(bytes(scales)[at]))
}

/// Block of 17 bytes: scale, then values 0 to 15 in the low nibbles, 16 to 31 in the high ones.
#[cube]
pub(super) fn mxfp4(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let bytes = bytes(codes);
    let at = row + unit * 17usize;
    let scale = e8m0_value(u32::cast_from(bytes[at]));
    #[unroll]
    for i in 0..16usize {
        let pair = u32::cast_from(bytes[at + 1 + i]);
        out[i] = e2m1_value(pair) * scale;
        out[16 + i] = e2m1_value(pair >> 4u32) * scale;
    }
}

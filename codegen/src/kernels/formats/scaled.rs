//! E4M3 and E2M1 codes under power-of-two scales.
use super::unit::fetch;
use super::{Place, RowFormat};
use crate::kernels::common::{byte_at, e2m1_value, e4m3_value, e8m0_value, words_at};
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

/// The scale of a unit whose scales lie apart.
#[cube]
pub(super) fn scale_of(scales: &[u32], place: &Place, unit: usize, #[comptime] format: RowFormat) -> f32 {
    let at = place.scales + unit / comptime!(format.units_per_scale() as usize);
    e8m0_value(byte_at(scales, at))
}

/// Block of 17 bytes: scale, then values 0 to 15 in the low nibbles, 16 to 31 in the high ones; a unit
/// is one or the other.
#[cube]
pub(super) fn mxfp4(codes: &[u32], row: usize, unit: usize, out: &mut Array<f32>) {
    let block = row + unit / 2usize * 17usize;
    let scale = e8m0_value(byte_at(codes, block));
    let words = words_at(codes, block + 1usize, 4u32);
    let nibble = 4u32 * u32::cast_from(unit % 2usize);
    #[unroll]
    for i in 0..4usize {
        let word = words[i] >> nibble;
        #[unroll]
        for j in 0..4usize {
            out[4 * i + j] = e2m1_value(word >> comptime!(8 * j as u32)) * scale;
        }
    }
}

//! Rows of a matrix times the inputs in shared memory.
use super::Product;
use crate::kernels::formats::{Place, decode};
use cubecl::prelude::*;

/// Adds this lane's share of the products of tile `tile` of every input with the subgroup's rows, the
/// first of which is `row`: that of row `r` and input `t` to `sums[r·tokens + t]`.
///
/// The matrix begins `base` bytes behind the start of `codes` and has rows up to `end`; its scales
/// begin `scale_base` bytes behind the start of `scales`.
#[cube]
pub(crate) fn row_sums(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    base: usize,
    scale_base: usize,
    row: usize,
    end: usize,
    tile: usize,
    shared: &Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] p: Product,
) {
    #[unroll]
    for r in 0..comptime!(p.each as usize) {
        if row + r < end {
            let place = Place {
                codes: base + (row + r) * comptime!(p.weight.row_bytes() as usize),
                scales: scale_base
                    + (row + r) / comptime!(p.weight.rows_per_scale_row() as usize)
                        * comptime!(p.weight.scale_row_bytes() as usize),
            };
            lane_sums(codes, scales, table, &place, tile, shared, sums, comptime!(r * p.tokens as usize), p);
        }
    }
}

#[cube]
fn lane_sums(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    place: &Place,
    tile: usize,
    shared: &Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] at: usize,
    #[comptime] p: Product,
) {
    let unit = comptime!(p.weight.unit() as usize);
    let (stride, slot) = comptime!((p.stride() as usize, p.slot() as usize));
    let per_tile = comptime!(p.tile_units() as usize);
    let first = tile * per_tile;
    let end = clamp_max(comptime!(p.weight.units() as usize) - first, per_tile);
    let mut values = Array::<f32>::new(unit);
    for u in range_stepped(UNIT_POS_PLANE as usize, end, comptime!(p.lanes as usize)) {
        decode(codes, scales, table, place, first + u, &mut values, comptime!(p.weight));
        #[unroll]
        for t in 0..comptime!(p.tokens as usize) {
            let mut sum = 0.0f32;
            #[unroll]
            for j in 0..unit {
                sum = fma(values[j], shared[comptime!(t * slot + j * stride) + u], sum);
            }
            sums[comptime!(at + t)] += sum;
        }
    }
}

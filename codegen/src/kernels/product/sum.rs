//! Rows of a matrix times the inputs in shared memory.
use super::Product;
use crate::kernels::formats::{Place, decode};
use cubecl::prelude::*;

/// Adds this lane's share of a row's products with tile `tile` of every input to
/// `sums[at]` and the following.
#[cube]
pub(crate) fn lane_sums(
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

/// The sum over the subgroup, in every lane.
#[cube]
pub(crate) fn over_lanes(x: f32) -> f32 {
    plane_sum(x)
}

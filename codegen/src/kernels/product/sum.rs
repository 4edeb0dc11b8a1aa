//! Rows of a matrix times the inputs in shared memory.
use super::Product;
use super::staging::Tile;
use super::window::{Window, fill, waiting};
use crate::kernels::formats::{Place, Staged, decode, decode_bytes, dot_bytes, sum_bytes};
use cubecl::prelude::*;

/// Where the chunk of columns at hand begins in each row of the subgroup.
#[derive(CubeType)]
struct Chunk {
    /// Byte of the codes.
    codes: Array<usize>,
    /// Byte of the scales; anything for formats that have none of their own.
    scales: Array<usize>,
    /// Rows there are.
    rows: usize,
}

/// Adds this lane's share of the products of tile `tile` of every input with the subgroup's rows, the
/// first of which is `row`: that of row `r` and input `t` to `sums[r·tokens + t]`.
///
/// The matrix begins `base` bytes behind the start of `codes` and has rows up to `end`; its scales
/// begin `scale_base` bytes behind the start of `scales`. Tiles are given in order, and no other matrix
/// goes through the same window in between. All lanes of the subgroup call it.
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
    held: &Tile,
    window: &mut Window,
    sums: &mut Array<f32>,
    #[comptime] p: Product,
) {
    let (tile_columns, step, size) = comptime!((p.tile as usize, p.step() as usize, p.chunk as usize));
    let width = comptime!(p.weight.width as usize);
    for s in 0..comptime!(p.tile.div_ceil(p.step()) as usize) {
        let column = tile * tile_columns + s * step;
        if column < width {
            let chunk = chunk(base, scale_base, row, end, column / size, p);
            if column % size == 0 {
                stage(codes, scales, window, &chunk, column / size, p);
            }
            #[unroll]
            for r in 0..comptime!(p.each as usize) {
                if r < chunk.rows {
                    lane_sums(codes, scales, table, &chunk, r, column, s, held, &*window, sums, p);
                }
            }
        }
    }
}

#[cube]
fn chunk(
    base: usize,
    scale_base: usize,
    row: usize,
    end: usize,
    index: usize,
    #[comptime] p: Product,
) -> Chunk {
    let each = comptime!(p.each as usize);
    let w = comptime!(p.weight);
    let mut codes = Array::<usize>::new(each);
    let mut scales = Array::<usize>::new(each);
    #[unroll]
    for r in 0..each {
        codes[r] = base
            + (row + r) * comptime!(w.row_bytes() as usize)
            + index * comptime!(w.code_bytes(p.chunk) as usize);
        scales[r] = scale_base
            + (row + r) / comptime!(w.rows_per_scale_row() as usize)
                * comptime!(w.scale_row_bytes() as usize)
            + index * comptime!(p.chunk_scales() as usize);
    }
    Chunk { codes, scales, rows: clamp_max(max(end, row) - row, each) }
}

/// Brings what is staged of chunk `index` to the window.
#[cube]
fn stage(
    codes: &[u32],
    scales: &[u32],
    window: &mut Window,
    chunk: &Chunk,
    index: usize,
    #[comptime] p: Product,
) {
    let w = comptime!(p.weight);
    let most = comptime!(w.staged_bytes(p.chunk) as usize);
    let length = clamp_max(comptime!(w.staged_bytes(w.width) as usize) - index * most, most);
    if comptime!(w.staged() == Staged::Codes) {
        fill(codes, window, &chunk.codes, length, chunk.rows, p);
    } else if comptime!(w.staged() == Staged::Scales) {
        fill(scales, window, &chunk.scales, length, chunk.rows, p);
    }
}

/// The share of row `r` of step `s` of the tile, which begins with column `column`.
#[cube]
fn lane_sums(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    chunk: &Chunk,
    #[comptime] r: usize,
    column: usize,
    s: usize,
    held: &Tile,
    window: &Window,
    sums: &mut Array<f32>,
    #[comptime] p: Product,
) {
    let w = comptime!(p.weight);
    let unit = comptime!(w.unit() as usize);
    let per_step = comptime!((p.step() / w.unit()) as usize);
    let end = clamp_max(comptime!(w.units() as usize) - column / unit, per_step);
    // Units before the step: in the chunk, and in the tile.
    let (before, at) = (column % comptime!(p.chunk as usize) / unit, s * per_step);
    let staged = window.words();
    let of_row = comptime!(r * p.tokens as usize);
    for u in range_stepped(UNIT_POS_PLANE as usize, end, comptime!(p.lanes as usize)) {
        if comptime!(w.staged() == Staged::Codes) {
            let place = Place { codes: waiting(chunk.codes[r], r, p), scales: 0usize.runtime() };
            unit_sums(staged, staged, table, &place, before + u, at + u, held, sums, of_row, p);
        } else if comptime!(w.staged() == Staged::Scales) {
            let place = Place { codes: chunk.codes[r], scales: waiting(chunk.scales[r], r, p) };
            unit_sums(codes, staged, table, &place, before + u, at + u, held, sums, of_row, p);
        } else {
            let place = Place { codes: chunk.codes[r], scales: chunk.scales[r] };
            unit_sums(codes, scales, table, &place, before + u, at + u, held, sums, of_row, p);
        }
    }
}

/// The share of unit `unit` of a row's chunk, which meets unit `at` of the tile.
#[cube]
fn unit_sums(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    place: &Place,
    unit: usize,
    at: usize,
    held: &Tile,
    sums: &mut Array<f32>,
    #[comptime] of_row: usize,
    #[comptime] p: Product,
) {
    let w = comptime!(p.weight);
    if comptime!(p.is_integer()) {
        let mut bytes = Array::<u32>::new(4usize);
        let (scale, min) = decode_bytes(codes, scales, table, place, unit, &mut bytes, w);
        let (stride, slot) = comptime!((p.code_stride() as usize, p.code_slot() as usize));
        let (groups, per_group) = comptime!(((p.tile / p.group) as usize, (p.group / w.unit()) as usize));
        #[unroll]
        for t in 0..comptime!(p.tokens as usize) {
            let mut sum = 0i32;
            let mut of_input = 0i32;
            #[unroll]
            for j in 0..4usize {
                let x = held.codes[comptime!(t * slot + j * stride) + at];
                sum = dot_bytes(bytes[j], x, sum);
                if comptime!(w.has_minimum()) {
                    of_input = sum_bytes(x, of_input);
                }
            }
            let d = held.scales[comptime!(t * groups) + at / per_group];
            let mut total = fma(f32::cast_from(sum), scale * d, sums[comptime!(of_row + t)]);
            if comptime!(w.has_minimum()) {
                total = fma(f32::cast_from(of_input), -(min * d), total);
            }
            sums[comptime!(of_row + t)] = total;
        }
    } else {
        let unit_size = comptime!(w.unit() as usize);
        let (stride, slot) = comptime!((p.stride() as usize, p.slot() as usize));
        let mut values = Array::<f32>::new(unit_size);
        decode(codes, scales, table, place, unit, &mut values, w);
        #[unroll]
        for t in 0..comptime!(p.tokens as usize) {
            let mut sum = 0.0f32;
            #[unroll]
            for j in 0..unit_size {
                sum = fma(values[j], held.numbers[comptime!(t * slot + j * stride) + at], sum);
            }
            sums[comptime!(of_row + t)] += sum;
        }
    }
}

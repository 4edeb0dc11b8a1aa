//! The kernels of a row: into numbers, and into codes.
use super::Row;
use super::encode::encode;
use crate::kernels::common::{block_sum, number, rows};
use crate::kernels::compress_pool::pooled;
use crate::kernels::push::slot;
use cubecl::prelude::*;

#[cube(launch_unchecked, create_dummy_kernel)]
pub(super) fn plain_row(
    step: &[i32],
    x: &[f32],
    k: &[f32],
    gate: &[f32],
    ape: &[u32],
    weight: &[u32],
    table: &[f32],
    out: &mut [f32],
    #[comptime] r: Row,
) {
    let index = CUBE_POS_X as usize;
    if index >= rows(step, comptime!(r.rows)) {
        terminate!();
    }
    let width = comptime!(r.width as usize);
    let mut values = Shared::<[f32]>::new_slice(width);
    make(step, x, k, gate, ape, weight, table, index, &mut values, r);
    let at = place(step, index, r) * width;
    for c in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
        out[at + c] = values[c];
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
pub(super) fn packed_row(
    step: &[i32],
    x: &[f32],
    k: &[f32],
    gate: &[f32],
    ape: &[u32],
    weight: &[u32],
    table: &[f32],
    out: &mut [u16],
    #[comptime] r: Row,
) {
    let index = CUBE_POS_X as usize;
    if index >= rows(step, comptime!(r.rows)) {
        terminate!();
    }
    let mut values = Shared::<[f32]>::new_slice(comptime!(r.width as usize));
    make(step, x, k, gate, ape, weight, table, index, &mut values, r);
    let halves = comptime!(r.to.row_bytes(r.width as usize) / 2);
    encode(&values, out, place(step, index, r) * halves, r.width, r.to);
}

/// Where row `index` goes, in rows of the result.
#[cube]
fn place(step: &[i32], index: usize, #[comptime] r: Row) -> usize {
    match comptime!(r.slots) {
        Some(slots) => slot(step, index, slots),
        None => index,
    }
}

/// The row up to its rounding, in shared memory. All threads of the block call it.
#[cube]
fn make(
    step: &[i32],
    x: &[f32],
    k: &[f32],
    gate: &[f32],
    ape: &[u32],
    weight: &[u32],
    table: &[f32],
    index: usize,
    values: &mut Shared<[f32]>,
    #[comptime] r: Row,
) {
    let width = comptime!(r.width as usize);
    let mut squares = 0.0f32;
    for c in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
        let value = match comptime!(r.pool) {
            Some(pool) => pooled(step, x, k, gate, ape, index, c, pool),
            None => x[index * width + c],
        };
        squares += value * value;
        values[c] = value;
    }
    if comptime!(r.norm.is_some()) {
        norm(squares, weight, values, r);
    }
    sync_cube();
    if comptime!(r.rope.is_some()) {
        rotate(table, index, values, r);
        sync_cube();
    }
    if comptime!(r.hadamard) {
        hadamard(values, r);
    }
}

/// Scales the elements that this thread has written.
#[cube]
fn norm(squares: f32, weight: &[u32], values: &mut Shared<[f32]>, #[comptime] r: Row) {
    let width = comptime!(r.width as usize);
    let (eps, kind) = comptime!(r.norm.expect("there is a norm"));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(r.subgroups as usize));
    let mean = block_sum(squares, &mut partial, comptime!(r.subgroups)) / comptime!(width as f32);
    let scale = 1.0f32 / (mean + comptime!(f32::from_bits(eps))).sqrt();
    for c in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
        let normed = values[c] * scale;
        values[c] = match comptime!(kind) {
            Some(kind) => normed * number(weight, c, kind),
            None => normed,
        };
    }
}

/// Rotates pair (2i, 2i + 1) of the last channels by angle i (spec 2.2).
#[cube]
fn rotate(table: &[f32], index: usize, values: &mut Shared<[f32]>, #[comptime] r: Row) {
    let rope = comptime!(r.rope.expect("there is a rotation"));
    let dims = comptime!(rope.dims as usize);
    let first = comptime!((r.width - rope.dims) as usize);
    let angles = index / comptime!(rope.each as usize) * dims;
    for i in range_stepped(UNIT_POS as usize, comptime!(dims / 2), CUBE_DIM as usize) {
        let cos = table[angles + 2 * i];
        let mut sin = table[angles + 2 * i + 1];
        if comptime!(rope.back) {
            sin = -sin;
        }
        let (a, b) = (values[first + 2 * i], values[first + 2 * i + 1]);
        values[first + 2 * i] = a * cos - b * sin;
        values[first + 2 * i + 1] = a * sin + b * cos;
    }
}

/// The orthonormal transform, Sylvester order (spec 6.2); ends with a barrier.
#[cube]
fn hadamard(values: &mut Shared<[f32]>, #[comptime] r: Row) {
    let width = comptime!(r.width as usize);
    #[unroll]
    for stage in 0..comptime!(r.width.trailing_zeros()) {
        let half = comptime!(1usize << stage);
        for i in range_stepped(UNIT_POS as usize, comptime!(width / 2), CUBE_DIM as usize) {
            let low = i / half * comptime!(2 * half) + i % half;
            let (a, b) = (values[low], values[low + half]);
            values[low] = a + b;
            values[low + half] = a - b;
        }
        sync_cube();
    }
    for c in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
        values[c] *= comptime!((f64::from(r.width).powf(-0.5)) as f32);
    }
    sync_cube();
}

//! The fragments of a subgroup over the tiles of its block.
use super::range::{block_max, fall, matrix_exponent, power};
use super::tile::{Held, Span, bounds, decode_tile, fill, stage_inputs};
use super::{ACROSS, Element, Matrix, PITCH, ROWS};
use crate::kernels::common::{view, view_mut};
use crate::kernels::formats::Staged;
use cubecl::cmma;
use cubecl::prelude::*;
use half::{bf16, f16};

/// Groups of 16 bytes as numbers.
#[cube]
fn numbers(groups: &[Vector<u32, Const<4>>]) -> &[f32] {
    view::<Vector<u32, Const<4>>, f32>(groups)
}

#[cube]
fn subgroup(#[comptime] m: Matrix) -> usize {
    (UNIT_POS / comptime!(m.lanes)) as usize
}

/// The sum of row `t` and column `column` of the fragments that this subgroup has [spilled](spill).
#[cube]
pub(super) fn spilled(held: &Held, t: usize, column: usize, #[comptime] m: Matrix) -> f32 {
    let first = subgroup(m) * comptime!((m.fragment * 4 * PITCH) as usize);
    numbers(held.room.as_slice())[first + t * comptime!((4 * PITCH) as usize) + column]
}

/// Sums of nothing: the fragments of a subgroup, from left to right and then downwards.
#[cube]
pub(super) fn sums(#[comptime] m: Matrix) -> Sequence<cmma::Matrix<f32>> {
    let f = comptime!(m.fragment as usize);
    let mut all = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!((m.deep() * m.across()) as usize) {
        let zeros = cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            f,
            f,
            f,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        );
        all.push(zeros);
    }
    all
}

/// Adds the products of the block's inputs with its rows to the sums; answers the exponent of the factor that the
/// matrix comes under.
///
/// `from[turn]` is as [`stage_inputs`] has it. Of a pair the second matrix is `other`. All threads of the block call
/// it.
#[cube]
pub(super) fn accumulate(
    inputs: &[u32],
    from: &Array<usize>,
    codes: &[u32],
    scales: &[u32],
    span: &Span,
    other_codes: &[u32],
    other_scales: &[u32],
    other: &Span,
    table: &[u32],
    held: &mut Held,
    sums: &mut Sequence<cmma::Matrix<f32>>,
    #[comptime] m: Matrix,
) -> u32 {
    let second = comptime!(m.block_rows());
    let mut exponent = 0u32;
    for tile in 0..comptime!(m.tiles() as usize) {
        // Nobody reads the tiles or the window any more.
        sync_cube();
        if comptime!(m.weight.staged() != Staged::Nothing) {
            if tile % comptime!((m.chunk / m.columns()) as usize) == 0 {
                fill(codes, scales, span, tile, 0u32, held, m);
                if comptime!(m.pair) {
                    fill(other_codes, other_scales, other, tile, second, held, m);
                }
                sync_cube();
                exponent = lowered(exponent, span, other, tile, held, sums, m);
            }
        }
        let factor = power(exponent);
        stage_inputs(inputs, from, tile, held, m);
        decode_tile(codes, table, span, tile, factor, 0u32, held, m);
        if comptime!(m.pair) {
            decode_tile(other_codes, table, other, tile, factor, second, held, m);
        }
        sync_cube();
        multiply(&*held, &*sums, m);
    }
    sync_cube();
    exponent
}

/// The exponent under which the chunk that begins with tile `tile` comes, with the sums brought under it too.
#[cube]
fn lowered(
    exponent: u32,
    span: &Span,
    other: &Span,
    tile: usize,
    held: &mut Held,
    sums: &mut Sequence<cmma::Matrix<f32>>,
    #[comptime] m: Matrix,
) -> u32 {
    let mut next = exponent;
    if comptime!(m.scales_matrix()) {
        let mut top = bounds(span, tile, 0u32, &*held, m);
        if comptime!(m.pair) {
            top = max(top, bounds(other, tile, comptime!(m.block_rows()), &*held, m));
        }
        next = matrix_exponent(exponent, block_max(top, &mut held.partial, comptime!(m.subgroups())));
        if exponent > next {
            multiply_sums(sums, fall(exponent, next), held, m);
            sync_cube();
        }
    }
    next
}

/// Multiplies all sums with a number, by way of the room of the tiles.
#[cube]
fn multiply_sums(
    sums: &mut Sequence<cmma::Matrix<f32>>,
    factor: f32,
    held: &mut Held,
    #[comptime] m: Matrix,
) {
    let (f, across) = comptime!((m.fragment as usize, m.across() as usize));
    let pitch = comptime!((4 * PITCH) as usize);
    let first = subgroup(m) * f * pitch;
    #[unroll]
    for i in 0..comptime!(m.deep() as usize) {
        spill(&*sums, i, held, m);
        for e in range_stepped(
            UNIT_POS_PLANE as usize,
            comptime!(f * ACROSS as usize),
            comptime!(m.lanes as usize),
        ) {
            let at = first + e / comptime!(ACROSS as usize) * pitch + e % comptime!(ACROSS as usize);
            let all = view_mut::<Vector<u32, Const<4>>, f32>(held.room.as_mut_slice());
            let sum = all[at];
            all[at] = sum * factor;
        }
        sync_plane();
        #[unroll]
        for j in 0..across {
            let at = first + comptime!(j * f);
            cmma::load_with_layout(
                sums.index_mut(comptime!(i * across + j)),
                numbers(held.room.as_slice()).slice(at, at + 1),
                comptime!(4 * PITCH),
                cmma::MatrixLayout::RowMajor,
            );
        }
    }
}

/// A sum as it is without the factors of its input and of the matrix; `input` is the input's number where inputs lie.
#[cube]
pub(super) fn unscaled(sum: f32, inputs: &[u32], input: usize, exponent: u32, #[comptime] m: Matrix) -> f32 {
    let mut value = sum;
    if comptime!(m.scales_inputs()) {
        let (pitch, scale) = comptime!(((m.input_bytes() / 4) as usize, (m.input_bytes() / 4 - 4) as usize));
        let of_input = f32::reinterpret(inputs[input * pitch + scale]);
        if comptime!(m.scales_matrix()) {
            let of_matrix = power(254u32 - exponent);
            // The smaller first: what is in range at the end is so in between.
            value = value * min(of_input, of_matrix) * max(of_input, of_matrix);
        } else {
            value *= of_input;
        }
    }
    value
}

/// Adds the products of the tiles in shared memory to the sums.
#[cube]
fn multiply(held: &Held, sums: &Sequence<cmma::Matrix<f32>>, #[comptime] m: Matrix) {
    if comptime!(m.element == Element::F32) {
        multiply_elements::<f32>(held, sums, m);
    } else if comptime!(m.element == Element::F16) {
        multiply_elements::<f16>(held, sums, m);
    } else {
        multiply_elements::<bf16>(held, sums, m);
    }
}

#[cube]
fn multiply_elements<E: Float>(held: &Held, sums: &Sequence<cmma::Matrix<f32>>, #[comptime] m: Matrix) {
    let f = comptime!(m.fragment as usize);
    let stride = comptime!((4 * PITCH * m.per_word()) as usize);
    let (pieces, deep, across) = comptime!((m.pieces() as usize, m.deep() as usize, m.across() as usize));
    let elements = view::<Vector<u32, Const<4>>, E>(held.room.as_slice());
    let (side, above) = (subgroup(m) % 2, subgroup(m) / 2);
    #[unroll]
    for k in 0..comptime!(m.columns() as usize / f) {
        let mut right = Sequence::<cmma::Matrix<E>>::new();
        #[unroll]
        for j in 0..across {
            let row = comptime!(m.input_rows() as usize) + matrix_row(side, j, m);
            let at = row * stride + comptime!(k * f);
            right.push(cmma::Matrix::<E>::from_slice(
                cmma::MatrixIdent::B,
                f,
                f,
                f,
                cmma::MatrixLayout::ColMajor,
                elements.slice(at, at + 1),
                comptime!(stride as u32),
            ));
        }
        // The smallest pieces first, since they are lost in large sums.
        #[unroll]
        for step in 0..comptime!(pieces * deep) {
            let (piece, i) = comptime!((pieces - 1 - step / deep, step % deep));
            let first = comptime!(piece * (m.inputs as usize / f));
            let at = (first + above * deep + i) * comptime!(f * stride) + comptime!(k * f);
            let left = cmma::Matrix::<E>::from_slice(
                cmma::MatrixIdent::A,
                f,
                f,
                f,
                cmma::MatrixLayout::RowMajor,
                elements.slice(at, at + 1),
                comptime!(stride as u32),
            );
            #[unroll]
            for j in 0..across {
                let sum = sums.index(comptime!(i * across + j));
                cmma::execute(&left, right.index(j), sum, sum);
            }
        }
    }
}

/// The row of the tile of matrices that fragment `j` of a side begins with. Of two matrices the rows of the second
/// lie behind those of the first; each subgroup has the same of both.
#[cube]
fn matrix_row(side: usize, #[comptime] j: usize, #[comptime] m: Matrix) -> usize {
    let f = comptime!(m.fragment as usize);
    if comptime!(m.pair) {
        let half = comptime!(m.across() as usize / 2);
        side * comptime!((ACROSS / 2) as usize) + comptime!(j / half * (ROWS / 2) as usize + j % half * f)
    } else {
        side * comptime!(ACROSS as usize) + comptime!(j * f)
    }
}

/// Writes row `i` of this subgroup's fragments to shared memory; [`spilled`] reads it behind the barrier of the
/// subgroup that ends this.
///
/// Nobody reads tiles any more.
#[cube]
pub(super) fn spill(
    sums: &Sequence<cmma::Matrix<f32>>,
    #[comptime] i: usize,
    held: &mut Held,
    #[comptime] m: Matrix,
) {
    let (f, across) = comptime!((m.fragment as usize, m.across() as usize));
    let first = subgroup(m) * comptime!((m.fragment * 4 * PITCH) as usize);
    sync_plane();
    #[unroll]
    for j in 0..across {
        let at = first + comptime!(j * f);
        let to = view_mut::<Vector<u32, Const<4>>, f32>(held.room.as_mut_slice());
        cmma::store(
            to.slice_mut(at, at + 1),
            sums.index(comptime!(i * across + j)),
            comptime!(4 * PITCH),
            cmma::MatrixLayout::RowMajor,
        );
    }
    sync_plane();
}

/// The first input of row `i` of this subgroup's fragments, and the first of their columns, among the block's.
#[cube]
pub(super) fn corner(#[comptime] i: usize, #[comptime] m: Matrix) -> (usize, usize) {
    let (side, above) = (subgroup(m) % 2, subgroup(m) / 2);
    let row = above * comptime!((m.deep() * m.fragment) as usize) + comptime!(i * m.fragment as usize);
    (row, side * comptime!(m.results() as usize))
}

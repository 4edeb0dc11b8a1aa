//! The decoded product for every pair of types: both rows become `f32`, summed in the order of
//! [`ds4_ir::ops::dot`].
use super::bytes::{carve, carved, view, view_mut};
use super::{Isa, Job, Packing, Prepare, ProductKernel, Run};
use crate::cpu::simd::versions;
use ds4_ir::Scalar;
use ds4_ir::formats::{decode_fp8_row, decode_row};
use ds4_ir::view::Matrix;

/// Weight rows that are decoded side by side.
const TILE: usize = 4;

/// Types of weights.
const WEIGHTS: [Scalar; 10] = [
    Scalar::F32,
    Scalar::Bf16,
    Scalar::F16,
    Scalar::Fp8,
    Scalar::Fp4,
    Scalar::Mxfp4,
    Scalar::Q8_0,
    Scalar::Q4K,
    Scalar::Q2K,
    Scalar::Iq2Xxs,
];

/// Formats of inputs, each with the function that decodes a row of it.
const INPUTS: [(Scalar, Prepare); 6] = [
    (Scalar::F32, |row, width, out| prepare(Scalar::F32, row, width, out)),
    (Scalar::F16, |row, width, out| prepare(Scalar::F16, row, width, out)),
    (Scalar::Bf16, |row, width, out| prepare(Scalar::Bf16, row, width, out)),
    (Scalar::E4m3x128, |row, width, out| prepare(Scalar::E4m3x128, row, width, out)),
    (Scalar::Q8K, |row, width, out| prepare(Scalar::Q8K, row, width, out)),
    (Scalar::Q8_0, |row, width, out| prepare(Scalar::Q8_0, row, width, out)),
];

/// Whether the integer definition holds for the pair.
pub(super) const fn is_integer(weight: Scalar, input: Scalar) -> bool {
    matches!(
        (weight, input),
        (Scalar::Q8_0 | Scalar::Mxfp4 | Scalar::Fp4, Scalar::Q8_0)
            | (Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs, Scalar::Q8K)
    )
}

const N: usize = WEIGHTS.len() * INPUTS.len() - 6;

/// One kernel per pair.
pub(super) const fn table(
    name: &'static str,
    isa: Isa,
    scratch_bytes: fn(usize, usize) -> usize,
    run: Run,
) -> [ProductKernel; N] {
    let kernel = ProductKernel {
        name,
        weight: Scalar::F32,
        packing: Packing::Stored,
        input: Scalar::F32,
        isa,
        granule: 1,
        prepared_bytes,
        prepare: INPUTS[0].1,
        scratch_bytes,
        run,
    };
    let mut all = [kernel; N];
    let (mut n, mut i) = (0, 0);
    while i < WEIGHTS.len() * INPUTS.len() {
        let (weight, (input, prepare)) = (WEIGHTS[i / INPUTS.len()], INPUTS[i % INPUTS.len()]);
        if !is_integer(weight, input) {
            all[n] = ProductKernel { weight, input, prepare, ..kernel };
            n += 1;
        }
        i += 1;
    }
    assert!(n == N, "a pair is missing");
    all
}

pub(super) static KERNELS: &[ProductKernel] = &table("decoded", Isa::Scalar, scratch_bytes, run);

/// Elements of a prepared row: a multiple of 16, zeros behind the row.
pub(super) const fn padded(width: usize) -> usize {
    width.next_multiple_of(16)
}

pub(super) fn prepared_bytes(width: usize) -> usize {
    4 * padded(width)
}

fn scratch_bytes(width: usize, _columns: usize) -> usize {
    carved::<f32>(TILE * width)
}

/// Decodes a row into `f32` and appends zeros.
fn prepare(scalar: Scalar, row: &[u8], width: usize, out: &mut [u8]) {
    let (numbers, rest) = view_mut::<f32>(out)[..padded(width)].split_at_mut(width);
    decode_row(scalar, row, numbers);
    rest.fill(0.0);
}

fn run(job: &Job<'_>, mut scratch: &mut [u8]) {
    let width = job.m.width;
    let tile = carve::<f32>(&mut scratch, TILE * width);
    for from in job.rows.clone().step_by(TILE) {
        let n = TILE.min(job.rows.end - from);
        for (i, decoded) in tile.chunks_exact_mut(width).take(n).enumerate() {
            job.m.read_row(from + i, decoded);
        }
        for column in job.columns {
            let x = &view::<f32>(job.input(*column))[..width];
            job.write(*column, from, &dots(x, tile)[..n]);
        }
    }
}

/// The input times each of `TILE` rows.
#[inline(always)]
pub(super) fn dots(x: &[f32], rows: &[f32]) -> [f32; TILE] {
    let row = |i: usize| &rows[i * x.len()..][..x.len()];
    let mut sums = [[0.0f32; 8]; TILE];
    let whole = x.len() / 8 * 8;
    for at in (0..whole).step_by(8) {
        let x: &[f32; 8] = x[at..at + 8].try_into().expect("8 elements");
        for (i, sums) in sums.iter_mut().enumerate() {
            let w: &[f32; 8] = row(i)[at..at + 8].try_into().expect("8 elements");
            for lane in 0..8 {
                sums[lane] += x[lane] * w[lane];
            }
        }
    }
    for at in whole..x.len() {
        for (i, sums) in sums.iter_mut().enumerate() {
            sums[at - whole] += x[at] * row(i)[at];
        }
    }
    sums.map(|[a, b, c, d, e, f, g, h]| ((a + b) + (c + d)) + ((e + f) + (g + h)))
}

versions! {
    /// [`Matrix::read_row`], with the instructions that a version has where most models need it.
    pub(super) fn read_row<V>(m: &Matrix<'_>, row: usize, out: &mut [f32]) {
        match m.scalar {
            Scalar::Fp8 => decode_fp8_row(m.row(row), m.scale_row(row), out),
            _ => m.read_row(row, out),
        }
    }
}

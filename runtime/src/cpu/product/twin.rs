//! The integer products in plain Rust: the definition that every other kernel equals bit for bit.
use super::bytes::{view, view_mut};
use super::{Isa, Job, Packing, Prepare, ProductKernel, Run};
use ds4_ir::Scalar;
use ds4_ir::formats::{IQ2XXS_GRID, e8m0_to_f32, f16_to_f32, iq2xxs_signs};
use ds4_ir::view::Matrix;

pub(super) static KERNELS: &[ProductKernel] = &[
    kernel(Scalar::Q8_0, Scalar::Q8_0, run::<32>),
    kernel(Scalar::Mxfp4, Scalar::Q8_0, run::<32>),
    kernel(Scalar::Fp4, Scalar::Q8_0, run::<32>),
    kernel(Scalar::Q4K, Scalar::Q8K, run::<256>),
    kernel(Scalar::Q2K, Scalar::Q8K, run::<256>),
    kernel(Scalar::Iq2Xxs, Scalar::Q8K, run::<256>),
];

const fn kernel(weight: Scalar, input: Scalar, run: Run) -> ProductKernel {
    let (prepare, prepared_bytes): (Prepare, fn(usize) -> usize) = match input {
        Scalar::Q8_0 => (prepare_q8_0, prepared_bytes::<32>),
        _ => (prepare_q8_k, prepared_bytes::<256>),
    };
    ProductKernel {
        name: "twin",
        weight,
        packing: Packing::Stored,
        input,
        isa: Isa::Scalar,
        granule: 1,
        prepared_bytes,
        prepare,
        scratch_bytes: |_, _| 0,
        run,
    }
}

/// Integers of one block of a weight row. Elements beyond a short last block are arbitrary: the input
/// has zeros there.
struct Block<const B: usize> {
    /// Codes times their sub-scales: `isum = Σ weights · x`.
    weights: [i32; B],
    /// The minimum of each element's sub-block: `msum = Σ mins · x`.
    mins: [i32; B],
    /// `dw`.
    d: f32,
    /// `dmin` of formats that have it.
    dmin: Option<f32>,
}

/// A prepared row: the codes of all blocks, then their scales, which start at a multiple of 64 bytes.
fn prepared_bytes<const B: usize>(width: usize) -> usize {
    let blocks = width.div_ceil(B);
    scales_at::<B>(width) + (4 * blocks).next_multiple_of(64)
}

fn scales_at<const B: usize>(width: usize) -> usize {
    width.next_multiple_of(B).next_multiple_of(64)
}

fn prepare_q8_0(row: &[u8], width: usize, out: &mut [u8]) {
    prepare::<32>(width, out, row.as_chunks::<34>().0.iter().map(|b| (f16(b, 0), &b[2..])));
}

fn prepare_q8_k(row: &[u8], width: usize, out: &mut [u8]) {
    let d = |b: &[u8; 292]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    prepare::<256>(width, out, row.as_chunks::<292>().0.iter().map(|b| (d(b), &b[4..260])));
}

fn prepare<'a, const B: usize>(width: usize, out: &mut [u8], blocks: impl Iterator<Item = (f32, &'a [u8])>) {
    let (codes, scales) = out.split_at_mut(scales_at::<B>(width));
    codes.fill(0);
    let mut left = width;
    for ((codes, scale), (d, x)) in codes.chunks_mut(B).zip(view_mut::<f32>(scales)).zip(blocks) {
        let n = left.min(B);
        codes[..n].copy_from_slice(&x[..n]);
        *scale = d;
        left -= n;
    }
}

fn run<const B: usize>(job: &Job<'_>, _scratch: &mut [u8]) {
    let width = job.m.width;
    let mut block = Block { weights: [0; B], mins: [0; B], d: 0.0, dmin: None };
    for row in job.rows.clone() {
        for column in job.columns {
            let (codes, scales) = job.input(*column).split_at(scales_at::<B>(width));
            let mut acc = 0.0f32;
            for (b, (x, dx)) in view::<i8>(codes).chunks(B).zip(view::<f32>(scales)).enumerate() {
                if b * B >= width {
                    break;
                }
                read_block(&job.m, row, b, &mut block);
                let dot = |w: &[i32; B]| w.iter().zip(x).map(|(w, x)| w * i32::from(*x)).sum::<i32>();
                acc = (dot(&block.weights) as f32).mul_add(block.d * dx, acc);
                if let Some(dmin) = block.dmin {
                    acc = (dot(&block.mins) as f32).mul_add(-(dmin * dx), acc);
                }
            }
            job.write(*column, row, &[acc]);
        }
    }
}

fn read_block<const B: usize>(m: &Matrix<'_>, row: usize, b: usize, out: &mut Block<B>) {
    let bytes = m.row(row);
    match m.scalar {
        Scalar::Q8_0 => q8_0(&bytes[34 * b..][..34], out),
        Scalar::Mxfp4 => mxfp4(&bytes[17 * b..][..17], out),
        // The last group of a row may be short.
        Scalar::Fp4 => fp4(&bytes[16 * b..], m.scale_row(row)[b], out),
        Scalar::Q4K => q4_k(&bytes[144 * b..][..144], out),
        Scalar::Q2K => q2_k(&bytes[84 * b..][..84], out),
        Scalar::Iq2Xxs => iq2_xxs(&bytes[66 * b..][..66], out),
        scalar => panic!("{scalar}: no integer product"),
    }
}

fn f16(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

fn q8_0<const B: usize>(block: &[u8], out: &mut Block<B>) {
    out.d = f16(block, 0);
    for (w, q) in out.weights.iter_mut().zip(&block[2..]) {
        *w = i32::from(*q as i8);
    }
}

/// Twice the value of each e2m1 code.
const E2M1_DOUBLED: [i32; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn mxfp4<const B: usize>(block: &[u8], out: &mut Block<B>) {
    out.d = e8m0_to_f32(block[0]) * 0.5;
    for (i, q) in block[1..].iter().enumerate() {
        out.weights[i] = E2M1_DOUBLED[usize::from(q & 15)];
        out.weights[16 + i] = E2M1_DOUBLED[usize::from(q >> 4)];
    }
}

fn fp4<const B: usize>(codes: &[u8], scale: u8, out: &mut Block<B>) {
    out.d = e8m0_to_f32(scale) * 0.5;
    for (w, q) in out.weights.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *w = [E2M1_DOUBLED[usize::from(q & 15)], E2M1_DOUBLED[usize::from(q >> 4)]];
    }
}

fn q4_k<const B: usize>(block: &[u8], out: &mut Block<B>) {
    (out.d, out.dmin) = (f16(block, 0), Some(f16(block, 2)));
    let (packed, nibbles) = block[4..].split_at(12);
    for i in 0..256 {
        let j = i / 32;
        let (scale, min) = q4_k_scale_min(packed, j);
        let q = nibbles[i / 64 * 32 + i % 32] >> (j % 2 * 4) & 15;
        out.weights[i] = i32::from(scale) * i32::from(q);
        out.mins[i] = i32::from(min);
    }
}

/// Six bit scale and minimum of sub-block `j` of 8.
pub(super) fn q4_k_scale_min(s: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4)
    }
}

fn q2_k<const B: usize>(block: &[u8], out: &mut Block<B>) {
    (out.d, out.dmin) = (f16(block, 80), Some(f16(block, 82)));
    let (scales, codes) = block[..80].split_at(16);
    for i in 0..256 {
        let scale = scales[i / 16];
        let code = codes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        out.weights[i] = i32::from(scale & 15) * i32::from(code);
        out.mins[i] = i32::from(scale >> 4);
    }
}

/// The sub-scale is `(2·scale + 1) / 8`; the eighth goes to `dw`.
fn iq2_xxs<const B: usize>(block: &[u8], out: &mut Block<B>) {
    out.d = f16(block, 0) * 0.125;
    for (group, out) in block[2..].as_chunks::<8>().0.iter().zip(out.weights.as_chunks_mut::<32>().0) {
        let [indices @ .., s0, s1, s2, s3] = *group;
        let signs = u32::from_le_bytes([s0, s1, s2, s3]);
        let scale = (signs >> 28) as i32 * 2 + 1;
        for (i, w) in out.iter_mut().enumerate() {
            let magnitude = i32::from(IQ2XXS_GRID[usize::from(indices[i / 8])][i % 8]);
            let minus = iq2xxs_signs((signs >> (i / 8 * 7)) as u8 & 0x7f) >> (i % 8) & 1 == 1;
            *w = scale * if minus { -magnitude } else { magnitude };
        }
    }
}

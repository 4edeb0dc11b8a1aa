//! Integer products with the dot product instructions of ARM: a row is decoded once, then multiplied with
//! every input row. Decoded products need no kernel of their own: the plain ones become NEON code.
use super::bytes::{carve, carved, view};
use super::prepared::{self, HALF_E8M0, parts};
use super::twin::q4_k_scale_min;
use super::{Isa, Job, Packing, ProductKernel, isas};
use ds4_ir::Scalar;
use ds4_ir::formats::{IQ2XXS_GRID, f16_to_f32, iq2xxs_signs};
use ds4_ir::view::Matrix;
use std::arch::aarch64::*;
use std::arch::asm;

pub(super) static KERNELS: &[&[ProductKernel]] = &[&[
    kernel::<32>(Scalar::Q8_0),
    kernel::<32>(Scalar::Mxfp4),
    kernel::<32>(Scalar::Fp4),
    kernel::<256>(Scalar::Q4K),
    kernel::<256>(Scalar::Q2K),
    kernel::<256>(Scalar::Iq2Xxs),
]];

const fn kernel<const B: usize>(weight: Scalar) -> ProductKernel {
    ProductKernel {
        name: "dot",
        weight,
        packing: Packing::Stored,
        input: if B == 32 { Scalar::Q8_0 } else { Scalar::Q8K },
        isa: Isa::Neon,
        granule: 1,
        prepared_bytes: |width| parts::<B, 16>(width).bytes,
        prepare: |row, width, out| {
            if B == 32 {
                prepared::fill::<B, 16>(width, 1, prepared::q8_0(row), out);
            } else {
                prepared::fill::<B, 16>(width, 1, prepared::q8_k(row), out);
            }
        },
        scratch_bytes: |width, _| {
            let (blocks, groups) = (width.div_ceil(B), width.div_ceil(B) * B / 16);
            carved::<i8>(blocks * B) + 2 * carved::<i32>(groups) + 2 * carved::<f32>(blocks)
        },
        run: |job, scratch| {
            assert!(isas().contains(&Isa::Neon), "this machine lacks the dot product instructions");
            // SAFETY: the machine has the instructions.
            unsafe { run::<B>(job, scratch) }
        },
    }
}

/// A decoded weight row: `weight = factor of its 16 · code`, minimums per 16 and scales per block.
struct Row<'a> {
    codes: &'a mut [i8],
    factors: &'a mut [i32],
    mins: &'a mut [i32],
    d: &'a mut [f32],
    dmin: &'a mut [f32],
}

#[target_feature(enable = "neon,dotprod")]
fn run<const B: usize>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let blocks = job.m.width.div_ceil(B);
    let mut w = Row {
        codes: carve(&mut scratch, blocks * B),
        factors: carve(&mut scratch, blocks * B / 16),
        mins: carve(&mut scratch, blocks * B / 16),
        d: carve(&mut scratch, blocks),
        dmin: carve(&mut scratch, blocks),
    };
    w.factors.fill(1);
    w.mins.fill(0);
    for row in job.rows.clone() {
        decode(&job.m, row, &mut w);
        for column in job.columns {
            job.write(*column, row, &[multiply::<B>(&w, job.input(*column), job.m.width, job.m.scalar)]);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
fn multiply<const B: usize>(w: &Row<'_>, x: &[u8], width: usize, scalar: Scalar) -> f32 {
    let parts = parts::<B, 16>(width);
    let codes = view::<i8>(&x[..parts.scales]);
    let (scales, sums) = (view::<f32>(&x[parts.scales..parts.sums]), view::<i32>(&x[parts.sums..]));
    let has_mins = matches!(scalar, Scalar::Q4K | Scalar::Q2K);
    let mut acc = 0.0f32;
    for (b, (w_codes, x_codes)) in w.codes.chunks_exact(B).zip(codes.chunks_exact(B)).enumerate() {
        let groups = B / 16 * b..B / 16 * (b + 1);
        let mut isum = vdupq_n_s32(0);
        let both = w_codes.as_chunks::<16>().0.iter().zip(x_codes.as_chunks::<16>().0);
        for ((w, x), factor) in both.zip(&w.factors[groups.clone()]) {
            // SAFETY: 16 codes each.
            let (w, x) = unsafe { (vld1q_s8(w.as_ptr()), vld1q_s8(x.as_ptr())) };
            isum = vmlaq_n_s32(isum, dot(w, x), *factor);
        }
        let dx = scales[b];
        acc = (vaddvq_s32(isum) as f32).mul_add(w.d[b] * dx, acc);
        if has_mins {
            let mins = w.mins[groups.clone()].iter().zip(&sums[groups]);
            let msum = mins.map(|(min, sum)| min * sum).sum::<i32>();
            acc = (msum as f32).mul_add(-(w.dmin[b] * dx), acc);
        }
    }
    acc
}

/// Products of 16 signed bytes, four to a lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sums = vdupq_n_s32(0);
    // SAFETY: reads and writes registers only; the feature is there.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

#[target_feature(enable = "neon,dotprod")]
fn decode(m: &Matrix<'_>, row: usize, w: &mut Row<'_>) {
    let bytes = m.row(row);
    match m.scalar {
        Scalar::Q8_0 => {
            let blocks = bytes.as_chunks::<34>().0.iter().zip(w.codes.as_chunks_mut::<32>().0);
            for ((block, codes), d) in blocks.zip(&mut *w.d) {
                *d = f16(block, 0);
                codes.iter_mut().zip(&block[2..]).for_each(|(c, q)| *c = *q as i8);
            }
        }
        Scalar::Mxfp4 => {
            let blocks = bytes.as_chunks::<17>().0.iter().zip(w.codes.as_chunks_mut::<32>().0);
            for ((block, codes), d) in blocks.zip(&mut *w.d) {
                *d = HALF_E8M0[usize::from(block[0])];
                let (low, high) = nibbles(block[1..].first_chunk().expect("16 bytes"));
                // SAFETY: room for 32 codes.
                unsafe {
                    vst1q_s8(codes.as_mut_ptr(), doubled(low));
                    vst1q_s8(codes.as_mut_ptr().add(16), doubled(high));
                }
            }
        }
        Scalar::Fp4 => {
            let blocks = bytes.chunks(16).zip(w.codes.as_chunks_mut::<32>().0).zip(m.scale_row(row));
            for (((block, codes), scale), d) in blocks.zip(&mut *w.d) {
                *d = HALF_E8M0[usize::from(*scale)];
                let mut whole = [0; 16];
                whole[..block.len()].copy_from_slice(block);
                let (low, high) = nibbles(&whole);
                // SAFETY: room for 32 codes.
                unsafe {
                    vst1q_s8(codes.as_mut_ptr(), doubled(vzip1q_u8(low, high)));
                    vst1q_s8(codes.as_mut_ptr().add(16), doubled(vzip2q_u8(low, high)));
                }
            }
        }
        Scalar::Q4K => bytes.as_chunks::<144>().0.iter().enumerate().for_each(|(b, block)| q4_k(block, b, w)),
        Scalar::Q2K => bytes.as_chunks::<84>().0.iter().enumerate().for_each(|(b, block)| q2_k(block, b, w)),
        Scalar::Iq2Xxs => {
            bytes.as_chunks::<66>().0.iter().enumerate().for_each(|(b, block)| iq2_xxs(block, b, w))
        }
        scalar => panic!("{scalar}: no integer product"),
    }
}

fn f16(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Low and high nibbles of 16 bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn nibbles(bytes: &[u8; 16]) -> (uint8x16_t, uint8x16_t) {
    // SAFETY: 16 bytes.
    let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
    (vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes))
}

/// Twice the value of e2m1 codes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn doubled(codes: uint8x16_t) -> int8x16_t {
    const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
    // SAFETY: 16 bytes.
    vqtbl1q_s8(unsafe { vld1q_s8(VALUES.as_ptr()) }, codes)
}

#[target_feature(enable = "neon,dotprod")]
fn q4_k(block: &[u8; 144], b: usize, w: &mut Row<'_>) {
    (w.d[b], w.dmin[b]) = (f16(block, 0), f16(block, 2));
    let codes = &mut w.codes[256 * b..][..256];
    for (i, bytes) in block[16..].as_chunks::<16>().0.iter().enumerate() {
        let (low, high) = nibbles(bytes);
        let at = 64 * (i / 2) + 16 * (i % 2);
        // SAFETY: `at` is at most 208 and 32 less in the first store.
        unsafe {
            vst1q_s8(codes[at..].as_mut_ptr(), vreinterpretq_s8_u8(low));
            vst1q_s8(codes[at + 32..].as_mut_ptr(), vreinterpretq_s8_u8(high));
        }
    }
    for j in 0..16 {
        let (scale, min) = q4_k_scale_min(&block[4..16], j / 2);
        (w.factors[16 * b + j], w.mins[16 * b + j]) = (i32::from(scale), i32::from(min));
    }
}

#[target_feature(enable = "neon,dotprod")]
fn q2_k(block: &[u8; 84], b: usize, w: &mut Row<'_>) {
    (w.d[b], w.dmin[b]) = (f16(block, 80), f16(block, 82));
    let codes = &mut w.codes[256 * b..][..256];
    for (i, bytes) in block[16..80].as_chunks::<16>().0.iter().enumerate() {
        let at = 128 * (i / 2) + 16 * (i % 2);
        for j in 0..4 {
            for (code, byte) in codes[at + 32 * j..][..16].iter_mut().zip(bytes) {
                *code = (byte >> (2 * j) & 3) as i8;
            }
        }
    }
    for (j, scale) in block[..16].iter().enumerate() {
        (w.factors[16 * b + j], w.mins[16 * b + j]) = (i32::from(scale & 15), i32::from(scale >> 4));
    }
}

#[target_feature(enable = "neon,dotprod")]
fn iq2_xxs(block: &[u8; 66], b: usize, w: &mut Row<'_>) {
    w.d[b] = f16(block, 0) * 0.125;
    let codes = w.codes[256 * b..][..256].as_chunks_mut::<32>().0;
    for (g, (group, codes)) in block[2..].as_chunks::<8>().0.iter().zip(codes).enumerate() {
        let [indices @ .., s0, s1, s2, s3] = *group;
        let signs = u32::from_le_bytes([s0, s1, s2, s3]);
        let factor = (signs >> 28) as i32 * 2 + 1;
        w.factors[16 * b + 2 * g..][..2].fill(factor);
        for (k, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (magnitudes, signs) =
                (&IQ2XXS_GRID[usize::from(indices[k])], iq2xxs_signs((signs >> (7 * k)) as u8 & 0x7f));
            for (l, (code, magnitude)) in codes.iter_mut().zip(magnitudes).enumerate() {
                let minus = -((signs >> l & 1) as i8);
                *code = (*magnitude as i8 ^ minus) - minus;
            }
        }
    }
}

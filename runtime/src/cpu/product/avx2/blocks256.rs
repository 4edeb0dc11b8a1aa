//! `iq2_xxs`, `q2_k` and `q4_k` times `q8_k`: blocks of 256 codes.
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved};
use super::super::{Isa, Job, Packing, ProductKernel};
use super::row256::{
    IQ2_XXS, Parts, Q2_K, Q2_T, Q4_K, SIGNS, block_bytes, for_each, is_iq2, mins, parts, prepare, run_length,
    scales_of_8,
};
use super::{check_machine, sums_of_8};
use ds4_ir::Scalar;
use std::arch::x86_64::*;

pub(super) static KERNELS: &[ProductKernel] = &[
    kernel::<IQ2_XXS>(Scalar::Iq2Xxs, Packing::Stored),
    kernel::<SIGNS>(Scalar::Iq2Xxs, Packing::IndexSigns),
    kernel::<Q2_K>(Scalar::Q2K, Packing::Stored),
    kernel::<Q2_T>(Scalar::Q2K, Packing::Transposed),
    kernel::<Q4_K>(Scalar::Q4K, Packing::Stored),
];

const fn kernel<const F: u8>(weight: Scalar, packing: Packing) -> ProductKernel {
    ProductKernel {
        name: "blocks256",
        weight,
        packing,
        input: Scalar::Q8K,
        isa: Isa::Avx2,
        granule: 1,
        prepared_bytes: |width| parts(width).bytes,
        prepare: prepare::<F>,
        scratch_bytes: |_, columns| carved::<f32>(ROWS * columns),
        run: |job, scratch| {
            check_machine();
            // SAFETY: the machine has the instructions.
            unsafe { run::<F>(job, scratch) }
        },
    }
}

/// Rows that are multiplied side by side.
const ROWS: usize = 8;

#[target_feature(enable = "avx2,fma,f16c")]
fn run<const F: u8>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let sums = carve::<f32>(&mut scratch, ROWS * job.columns.len());
    let parts = parts(job.m.width);
    assert!(job.stride >= parts.bytes, "prepared rows");
    for from in job.rows.clone().step_by(ROWS) {
        sums.fill(0.0);
        let n = ROWS.min(job.rows.end - from);
        let size = parts.blocks * block_bytes::<F>();
        let rows = job.rows_of_bytes::<ROWS>(size, from);
        for b in 0..parts.blocks {
            // The rows that follow come into the second cache in the order in which they lie.
            let size = const { ROWS * block_bytes::<F>() };
            Ahead(rows[0].as_ptr()).at(ROWS * rows[0].len() + size * b).all(size);
            let mut at = [std::ptr::null(); ROWS];
            for i in 0..ROWS {
                at[i] = rows[i].as_ptr().wrapping_add(block_bytes::<F>() * b);
            }
            // SAFETY: each row has block `b`.
            unsafe {
                match job.columns {
                    [column] => single::<F>(&at, job.input(*column), parts, b, sums),
                    _ => many::<F>(job, &at, parts, b, sums),
                }
            }
        }
        for (column, sums) in job.columns.iter().zip(sums.chunks_exact(ROWS)) {
            job.write(*column, from, &sums[..n]);
        }
    }
}

/// Block `b` of eight rows times one input row.
///
/// # Safety
/// Blocks lie at the eight places.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn single<const F: u8>(at: &[*const u8; ROWS], x: &[u8], parts: Parts, b: usize, sums: &mut [f32]) {
    assert!(x.len() >= parts.bytes && b < parts.blocks);
    let mut isums = [_mm256_setzero_si256(); ROWS];
    let mut msums = [_mm256_setzero_si256(); ROWS];
    // SAFETY: as the caller says; the prepared row has block `b`.
    unsafe {
        let (codes, bsums) = (x.as_ptr().add(256 * b), x.as_ptr().add(parts.sums + 32 * b));
        for i in 0..ROWS {
            let (mut sum, mut run) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for_each::<F>(at[i], |j, w| {
                let mut x = _mm256_load_si256(codes.add(32 * j).cast());
                if is_iq2::<F>() {
                    x = _mm256_sign_epi8(x, w.signs);
                }
                run = _mm256_add_epi16(run, _mm256_maddubs_epi16(w.magnitudes, x));
                if (j + 1).is_multiple_of(run_length::<F>()) {
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(run, w.factors));
                    run = _mm256_setzero_si256();
                }
            });
            isums[i] = sum;
            if !is_iq2::<F>() {
                msums[i] = _mm256_madd_epi16(mins::<F>(at[i]), _mm256_load_si256(bsums.cast()));
            }
        }
        let dx = *x.as_ptr().add(parts.scales + 4 * b).cast::<f32>();
        add::<F>(sums_of_8(isums), msums, scales_of_8::<F>(at), dx, sums);
    }
}

/// Block `b` of eight rows, decoded once, times all input rows.
///
/// # Safety
/// Blocks lie at the eight places.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn many<const F: u8>(job: &Job<'_>, at: &[*const u8; ROWS], parts: Parts, b: usize, sums: &mut [f32]) {
    let zero = _mm256_setzero_si256();
    let (mut weights, mut factors, mut minimums) = ([[zero; 8]; ROWS], [[zero; 8]; ROWS], [zero; ROWS]);
    let mut offsets = [zero; ROWS];
    let one = _mm256_set1_epi8(1);
    // SAFETY: as the caller says.
    let scales = unsafe {
        for i in 0..ROWS {
            let mut sum = zero;
            for_each::<F>(at[i], |j, w| {
                factors[i][j] = w.factors;
                weights[i][j] = w.magnitudes;
                if is_iq2::<F>() {
                    // Signed weights times unsigned inputs, which are 128 too large.
                    weights[i][j] = _mm256_sign_epi8(w.magnitudes, w.signs);
                    let pairs = _mm256_maddubs_epi16(one, weights[i][j]);
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, w.factors));
                }
            });
            offsets[i] = _mm256_slli_epi32::<7>(sum);
            minimums[i] = mins::<F>(at[i]);
        }
        scales_of_8::<F>(at)
    };
    let offset = if is_iq2::<F>() { sums_of_8(offsets) } else { zero };
    let flip = _mm256_set1_epi8(-128);
    for (column, sums) in job.columns.iter().zip(sums.chunks_exact_mut(ROWS)) {
        let x = job.input(*column);
        assert!(x.len() >= parts.bytes && b < parts.blocks);
        let (mut isums, mut msums) = ([zero; ROWS], [zero; ROWS]);
        // SAFETY: the prepared row has block `b`.
        unsafe {
            for j in 0..8 {
                let x = _mm256_load_si256(x.as_ptr().add(256 * b + 32 * j).cast());
                let x = if is_iq2::<F>() { _mm256_xor_si256(x, flip) } else { x };
                for i in 0..ROWS {
                    let w = weights[i][j];
                    let pairs =
                        if is_iq2::<F>() { _mm256_maddubs_epi16(x, w) } else { _mm256_maddubs_epi16(w, x) };
                    isums[i] = _mm256_add_epi32(isums[i], _mm256_madd_epi16(pairs, factors[i][j]));
                }
            }
            if !is_iq2::<F>() {
                let bsums = _mm256_load_si256(x.as_ptr().add(parts.sums + 32 * b).cast());
                for i in 0..ROWS {
                    msums[i] = _mm256_madd_epi16(minimums[i], bsums);
                }
            }
            let isum = _mm256_sub_epi32(sums_of_8(isums), offset);
            let dx = *x.as_ptr().add(parts.scales + 4 * b).cast::<f32>();
            add::<F>(isum, msums, scales, dx, sums);
        }
    }
}

/// Adds the terms of a block to the sums of eight rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add<const F: u8>(
    isum: __m256i,
    msums: [__m256i; ROWS],
    (d, dmin): (__m256, __m256),
    dx: f32,
    sums: &mut [f32],
) {
    assert!(sums.len() == ROWS);
    let dx = _mm256_set1_ps(dx);
    // SAFETY: room for eight.
    unsafe {
        let mut acc = _mm256_loadu_ps(sums.as_ptr());
        acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum), _mm256_mul_ps(d, dx), acc);
        if !is_iq2::<F>() {
            let msum = _mm256_cvtepi32_ps(sums_of_8(msums));
            acc = _mm256_fnmadd_ps(msum, _mm256_mul_ps(dmin, dx), acc);
        }
        _mm256_storeu_ps(sums.as_mut_ptr(), acc);
    }
}

//! `iq2_xxs`, `q2_k` and `q4_k` times `q8_k`: blocks of 256 codes.
//!
//! A row is cut into units of one or two blocks. A unit's weights become vectors of unsigned bytes, in
//! an order that costs least; the input's codes are prepared in the same order.
use super::super::bytes::{carve, carved, view};
use super::super::{Isa, Job, Packing, ProductKernel};
use super::unit::{Coded, IQ2_XXS, Parts, Q2_K, Q4_K, Unit, decode, parts, prepare, q2_k_sums, scales_of_8};
use super::{check_machine, sums_of_8, sums_of_8_wide};
use ds4_ir::Scalar;
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};

pub(super) static KERNELS: &[ProductKernel] =
    &[kernel::<IQ2_XXS>(Scalar::Iq2Xxs), kernel::<Q2_K>(Scalar::Q2K), kernel::<Q4_K>(Scalar::Q4K)];

const fn kernel<const F: u8>(weight: Scalar) -> ProductKernel {
    ProductKernel {
        name: "blocks256",
        weight,
        packing: Packing::Stored,
        input: Scalar::Q8K,
        isa: Isa::Avx512,
        granule: 1,
        prepared_bytes: |width| parts::<F>(width).bytes,
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

#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn run<const F: u8>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let sums = carve::<f32>(&mut scratch, ROWS * job.columns.len());
    let parts = parts::<F>(job.m.width);
    assert!(job.stride >= parts.bytes, "prepared rows");
    for from in job.rows.clone().step_by(ROWS) {
        sums.fill(0.0);
        let n = ROWS.min(job.rows.end - from);
        let rows = job.weight_rows::<ROWS>(from);
        for unit in 0..parts.units {
            match job.columns {
                [column] => single::<F>(&rows, unit, parts, job.input(*column), sums),
                _ => many::<F>(job, &rows, unit, parts, sums),
            }
        }
        for (column, sums) in job.columns.iter().zip(sums.chunks_exact(ROWS)) {
            job.write(*column, from, &sums[..n]);
        }
    }
}

/// Asks for the unit's share of the rows that follow, in the order in which they lie.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn prefetch<const F: u8>(rows: &[&[u8]; ROWS], unit: usize) {
    let size = const { ROWS * Unit::bytes::<F>() };
    let next = rows[0].as_ptr().wrapping_add(ROWS * rows[0].len() + size * unit);
    for line in 0..size.div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64 * line).cast());
    }
}

/// The vector, computed before anything that follows in the code: work of several rows at once does not
/// fit the registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn settled(mut v: __m512i) -> __m512i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(zmm_reg) v, options(nomem, nostack, preserves_flags)) };
    v
}

/// A unit of eight rows times one input row.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn single<const F: u8>(rows: &[&[u8]; ROWS], unit: usize, parts: Parts, x: &[u8], sums: &mut [f32]) {
    prefetch::<F>(rows, unit);
    let x = parts.unit::<F>(x, unit);
    let at = |i: usize| rows[i].as_ptr().wrapping_add(Unit::bytes::<F>() * unit);
    // What each row writes before it is read: zeros would cost as much as a row.
    let mut isums = [const { MaybeUninit::<__m512i>::uninit() }; ROWS];
    let mut msums = [const { MaybeUninit::<__m256i>::uninit() }; ROWS];
    if F == IQ2_XXS {
        // All rows are decoded before any is multiplied: what waits for a long chain of one row would
        // keep the core from looking at the next.
        let mut coded = [const { MaybeUninit::<Coded>::uninit() }; ROWS];
        for i in 0..ROWS {
            // SAFETY: the unit is one of the row's.
            coded[i].write(unsafe { Coded::of(at(i), x.blocks == 2) });
        }
        let coded = std::hint::black_box(&coded);
        for i in 0..ROWS {
            // SAFETY: written above.
            isums[i].write(unsafe { coded[i].assume_init_ref() }.isum(&x));
            msums[i].write(_mm256_setzero_si256());
        }
    } else {
        for i in 0..ROWS {
            // SAFETY: the unit is one of the row's.
            let (isum, msum) = unsafe {
                if F == Q2_K {
                    q2_k_sums(at(i), &x)
                } else {
                    let w = decode::<F>(rows[i], unit, parts.blocks);
                    (w.isum::<F>(&x), w.msum(&x))
                }
            };
            isums[i].write(settled(isum));
            msums[i].write(msum);
        }
    }
    // SAFETY: each row has written both of its sums.
    let (isums, msums) = unsafe {
        (
            transmute::<[MaybeUninit<__m512i>; ROWS], [__m512i; ROWS]>(isums),
            transmute::<[MaybeUninit<__m256i>; ROWS], [__m256i; ROWS]>(msums),
        )
    };
    // SAFETY: as above.
    let scales = unsafe { scales_of_8::<F>(rows, unit, x.blocks == 2) };
    add::<F>(isums, msums, scales, &x, sums);
}

/// A unit of eight rows, decoded once, times all input rows.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn many<const F: u8>(job: &Job<'_>, rows: &[&[u8]; ROWS], unit: usize, parts: Parts, sums: &mut [f32]) {
    prefetch::<F>(rows, unit);
    let mut w = [Unit::zero(); ROWS];
    for i in 0..ROWS {
        // SAFETY: the unit is one of the row's.
        w[i] = unsafe { decode::<F>(rows[i], unit, parts.blocks) };
    }
    let two = F == IQ2_XXS && 2 * unit + 1 < parts.blocks;
    // SAFETY: as above.
    let scales = unsafe { scales_of_8::<F>(rows, unit, two) };
    for (column, sums) in job.columns.iter().zip(sums.chunks_exact_mut(ROWS)) {
        let x = parts.unit::<F>(view(job.input(*column)), unit);
        let mut isums = [_mm512_setzero_si512(); ROWS];
        let mut msums = [_mm256_setzero_si256(); ROWS];
        for i in 0..ROWS {
            isums[i] = w[i].isum::<F>(&x);
            msums[i] = w[i].msum(&x);
        }
        add::<F>(isums, msums, scales, &x, sums);
    }
}

/// Adds a unit's terms to the sums of eight rows, block by block.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn add<const F: u8>(
    isums: [__m512i; ROWS],
    msums: [__m256i; ROWS],
    (d, e): (__m256, __m256),
    x: &super::unit::Input,
    sums: &mut [f32],
) {
    assert!(sums.len() == ROWS);
    let both = sums_of_8_wide(isums);
    let (low, high) = (_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64::<1>(both));
    // SAFETY: room for eight, asserted.
    let mut acc = unsafe { _mm256_loadu_ps(sums.as_ptr()) };
    if F == IQ2_XXS {
        let eighth = _mm256_set1_ps(0.125);
        let term = |isum, d, dx, acc| {
            let scale = _mm256_mul_ps(_mm256_mul_ps(d, eighth), _mm256_set1_ps(dx));
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum), scale, acc)
        };
        acc = term(low, d, x.scales[0], acc);
        if x.blocks == 2 {
            acc = term(high, e, x.scales[1], acc);
        }
    } else {
        let dx = _mm256_set1_ps(x.scales[0]);
        let isum = _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
        let msum = _mm256_cvtepi32_ps(sums_of_8(msums));
        acc = _mm256_fmadd_ps(isum, _mm256_mul_ps(d, dx), acc);
        acc = _mm256_fnmadd_ps(msum, _mm256_mul_ps(e, dx), acc);
    }
    // SAFETY: as above.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), acc) }
}

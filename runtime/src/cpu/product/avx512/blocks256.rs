//! `iq2_xxs`, `q2_k` and `q4_k` times `q8_k`: blocks of 256 codes.
//!
//! A row is cut into units of one or two blocks. A unit's weights become vectors of unsigned bytes, in
//! an order that costs least; the input's codes are prepared in the same order.
use super::super::bytes::{carve, carved};
use super::super::{Column, Isa, Job, Packing, ProductKernel};
use super::unit::{
    Coded, IQ2_XXS, Input, Parts, Q2_K, Q4_K, Unit, decode, parts, prepare, q2_k_sums, scales_of_8,
};
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
/// Most columns that are multiplied side by side.
const FEW: usize = 4;

/// Most columns for which a unit is decoded in registers, again for every [`FEW`] of them, and not into
/// memory once for all.
const fn most_few<const F: u8>() -> usize {
    match F {
        IQ2_XXS => 2 * FEW,
        Q2_K => 1,
        _ => 8 * FEW,
    }
}

#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn run<const F: u8>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let sums = carve::<f32>(&mut scratch, ROWS * job.columns.len());
    let parts = parts::<F>(job.m.width);
    assert!(job.stride >= parts.bytes, "prepared rows");
    // As even as can be: a column alone takes longest.
    let step = job.columns.len().div_ceil(job.columns.len().div_ceil(FEW));
    for from in job.rows.clone().step_by(ROWS) {
        sums.fill(0.0);
        let n = ROWS.min(job.rows.end - from);
        let rows = job.weight_rows::<ROWS>(from);
        for unit in 0..parts.units {
            prefetch::<F>(&rows, unit);
            if job.columns.len() > most_few::<F>() {
                many::<F>(job, &rows, unit, parts, sums);
                continue;
            }
            for (columns, sums) in job.columns.chunks(step).zip(sums.chunks_mut(step * ROWS)) {
                match columns.len() {
                    1 => few::<F, 1>(job, &rows, unit, parts, columns, sums),
                    2 => few::<F, 2>(job, &rows, unit, parts, columns, sums),
                    3 => few::<F, 3>(job, &rows, unit, parts, columns, sums),
                    _ => few::<F, FEW>(job, &rows, unit, parts, columns, sums),
                }
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

/// A unit of eight rows, decoded in registers, times the first `N` columns.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn few<const F: u8, const N: usize>(
    job: &Job<'_>,
    rows: &[&[u8]; ROWS],
    unit: usize,
    parts: Parts,
    columns: &[Column],
    sums: &mut [f32],
) {
    let x: [Input; N] = inputs::<F, N>(job, unit, parts, columns);
    let at = |i: usize| rows[i].as_ptr().wrapping_add(Unit::bytes::<F>() * unit);
    let mut all = Sums::<N>::new();
    if F == IQ2_XXS {
        // All rows are decoded before any is multiplied: what waits for a long chain of one row would
        // keep the core from looking at the next.
        let mut coded = [const { MaybeUninit::<Coded>::uninit() }; ROWS];
        for i in 0..ROWS {
            // SAFETY: the unit is one of the row's.
            coded[i].write(unsafe { Coded::of(at(i), x[0].blocks == 2) });
        }
        let coded = std::hint::black_box(&coded);
        for i in 0..ROWS {
            // SAFETY: written above.
            let isums = unsafe { coded[i].assume_init_ref() }.isums(&x);
            all.write(i, isums.map(|isum| settled(isum)), [_mm256_setzero_si256(); N]);
        }
    } else {
        for i in 0..ROWS {
            // SAFETY: the unit is one of the row's.
            let (isums, msums) = unsafe {
                if F == Q2_K && N == 1 {
                    let (isum, msum) = q2_k_sums(at(i), &x[0]);
                    ([isum; N], [msum; N])
                } else {
                    let w = decode::<F>(rows[i], unit, parts.blocks);
                    (w.isums::<F, N>(&x), w.msums(&x))
                }
            };
            all.write(i, isums.map(|isum| settled(isum)), msums);
        }
    }
    // SAFETY: as above.
    let scales = unsafe { scales_of_8::<F>(rows, unit, x[0].blocks == 2) };
    for c in 0..N {
        // SAFETY: every row is written.
        let (isums, msums) = unsafe { all.column(c) };
        add::<F>(isums, msums, scales, &x[c], &mut sums[ROWS * c..]);
    }
}

/// A unit of eight rows, decoded once, times all columns.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn many<const F: u8>(job: &Job<'_>, rows: &[&[u8]; ROWS], unit: usize, parts: Parts, sums: &mut [f32]) {
    let mut w = [const { MaybeUninit::<Unit>::uninit() }; ROWS];
    for i in 0..ROWS {
        // SAFETY: the unit is one of the row's.
        w[i].write(unsafe { decode::<F>(rows[i], unit, parts.blocks) });
    }
    // SAFETY: each is written above.
    let w = unsafe { transmute::<&[MaybeUninit<Unit>; ROWS], &[Unit; ROWS]>(&w) };
    let two = F == IQ2_XXS && 2 * unit + 1 < parts.blocks;
    // SAFETY: as above.
    let scales = unsafe { scales_of_8::<F>(rows, unit, two) };
    for (column, sums) in job.columns.iter().zip(sums.chunks_exact_mut(ROWS)) {
        let x = [parts.unit::<F>(job.input(*column), unit)];
        let mut isums = [_mm512_setzero_si512(); ROWS];
        let mut msums = [_mm256_setzero_si256(); ROWS];
        for i in 0..ROWS {
            [isums[i]] = w[i].isums::<F, 1>(&x);
            [msums[i]] = w[i].msums(&x);
        }
        add::<F>(isums, msums, scales, &x[0], sums);
    }
}

/// A unit of the first `N` columns.
#[inline]
fn inputs<const F: u8, const N: usize>(
    job: &Job<'_>,
    unit: usize,
    parts: Parts,
    columns: &[Column],
) -> [Input; N] {
    // A loop, for `array::from_fn` is a call here.
    let mut x = [parts.unit::<F>(job.input(columns[0]), unit); N];
    for c in 1..N {
        x[c] = parts.unit::<F>(job.input(columns[c]), unit);
    }
    x
}

/// Sums of a unit in parts: of each of `N` columns, of each of eight rows.
struct Sums<const N: usize> {
    // What each row writes before it is read: zeros would cost as much as a row.
    isums: [[MaybeUninit<__m512i>; ROWS]; N],
    msums: [[MaybeUninit<__m256i>; ROWS]; N],
}

impl<const N: usize> Sums<N> {
    #[inline]
    fn new() -> Sums<N> {
        Sums { isums: [[MaybeUninit::uninit(); ROWS]; N], msums: [[MaybeUninit::uninit(); ROWS]; N] }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn write(&mut self, row: usize, isums: [__m512i; N], msums: [__m256i; N]) {
        for c in 0..N {
            self.isums[c][row].write(isums[c]);
            self.msums[c][row].write(msums[c]);
        }
    }

    /// The sums of a column.
    ///
    /// # Safety
    /// Every row is written.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn column(&self, c: usize) -> ([__m512i; ROWS], [__m256i; ROWS]) {
        // SAFETY: as the caller says.
        unsafe {
            (
                transmute::<[MaybeUninit<__m512i>; ROWS], [__m512i; ROWS]>(self.isums[c]),
                transmute::<[MaybeUninit<__m256i>; ROWS], [__m256i; ROWS]>(self.msums[c]),
            )
        }
    }
}

/// Adds a unit's terms to the sums of eight rows, block by block.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn add<const F: u8>(
    isums: [__m512i; ROWS],
    msums: [__m256i; ROWS],
    (d, e): (__m256, __m256),
    x: &Input,
    sums: &mut [f32],
) {
    assert!(sums.len() >= ROWS);
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

//! The decoded product: `f32`, `f16` and `bf16` weights as they stream by, others row by row first.
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved, view};
use super::super::decoded::{padded, read_row, table};
use super::super::{Column, Isa, Job, ProductKernel};
use super::check_machine;
use ds4_ir::Scalar;
use std::arch::x86_64::*;

pub(super) static KERNELS: &[ProductKernel] = &table("decoded", Isa::Avx2, scratch_bytes, |job, scratch| {
    check_machine();
    // SAFETY: the machine has the instructions.
    unsafe {
        match job.m.scalar {
            Scalar::F32 => run::<F32, false>(job, scratch),
            Scalar::F16 => run::<F16, false>(job, scratch),
            Scalar::Bf16 => run::<BF16, false>(job, scratch),
            _ => run::<F32, true>(job, scratch),
        }
    }
});

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// Rows of a tile: side by side they hide the latency of a sum.
const TILE: usize = 4;
/// Elements of a tile that are decoded at once: they stay in the first cache.
const CHUNK: usize = 1024;
/// Fewest columns for which a tile is decoded.
const MANY: usize = 3;

fn scratch_bytes(width: usize, columns: usize) -> usize {
    carved::<f32>(TILE * padded(width)) + carved::<f32>(TILE * CHUNK) + carved::<f32>(columns * TILE * 8)
}

/// `APART`: the rows are decoded to `f32` before they are multiplied.
#[target_feature(enable = "avx2,fma,f16c")]
fn run<const F: u8, const APART: bool>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let width = job.m.width;
    let decoded = carve::<f32>(&mut scratch, TILE * padded(width));
    for from in job.rows.clone().step_by(TILE) {
        let n = TILE.min(job.rows.end - from);
        if APART {
            for (i, out) in decoded.chunks_exact_mut(padded(width)).take(n).enumerate() {
                read_row(Isa::Avx2, &job.m, from + i, &mut out[..width]);
            }
        }
        let mut rows = job.weight_rows::<TILE>(from).map(|row| row.as_ptr());
        if APART {
            for (i, row) in rows.iter_mut().enumerate() {
                // Beyond the job's last row it is that one again.
                *row = decoded[i.min(n - 1) * padded(width)..].as_ptr().cast();
            }
        }
        if job.columns.len() >= MANY {
            tile::<F>(job, &rows, from, n, scratch);
            continue;
        }
        for column in job.columns {
            // SAFETY: each row has `width` elements.
            let sums = unsafe { few::<F>(&rows, view(job.input(*column)), width) };
            job.write(*column, from, &sums[..n]);
        }
    }
}

/// Bytes of an element.
const fn size<const F: u8>() -> usize {
    if F == F32 { 4 } else { 2 }
}

/// Eight elements, as `f32`.
///
/// # Safety
/// They lie there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<const F: u8>(at: *const u8) -> __m256 {
    // SAFETY: as the caller says.
    unsafe {
        match F {
            F32 => _mm256_loadu_ps(at.cast()),
            F16 => _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
            _ => {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
    }
}

/// Fewer than eight elements, then zeros.
///
/// # Safety
/// `n` elements lie there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load_some<const F: u8>(at: *const u8, n: usize) -> __m256 {
    let mut copy = [0u8; 32];
    // SAFETY: as the caller says; `n` is less than eight.
    unsafe {
        copy.as_mut_ptr().copy_from_nonoverlapping(at, n.min(8) * size::<F>());
        load::<F>(copy.as_ptr())
    }
}

/// Four rows times one input row.
///
/// # Safety
/// Each row has `width` elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn few<const F: u8>(rows: &[*const u8; TILE], x: &[f32], width: usize) -> [f32; TILE] {
    assert!(x.len() >= padded(width), "a prepared row");
    let next = Ahead(rows[0]).at(TILE * width * size::<F>());
    let mut acc = [_mm256_setzero_ps(); TILE];
    let whole = width / 8 * 8;
    for at in (0..whole).step_by(8) {
        // The rows that follow come in the order in which they lie.
        next.at(TILE * size::<F>() * at).all(TILE * size::<F>() * 8);
        // SAFETY: elements `at` to `at + 8` are there.
        unsafe {
            let x = _mm256_loadu_ps(x.as_ptr().add(at));
            for i in 0..TILE {
                let w = load::<F>(rows[i].add(size::<F>() * at));
                acc[i] = _mm256_add_ps(acc[i], _mm256_mul_ps(w, x));
            }
        }
    }
    if whole < width {
        // SAFETY: no more is read than is there; the input has zeros beyond.
        unsafe {
            let x = _mm256_loadu_ps(x.as_ptr().add(whole));
            for i in 0..TILE {
                let w = load_some::<F>(rows[i].add(size::<F>() * whole), width - whole);
                acc[i] = _mm256_add_ps(acc[i], _mm256_mul_ps(w, x));
            }
        }
    }
    joined(acc)
}

/// The lanes of four rows, joined pairwise.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn joined(acc: [__m256; TILE]) -> [f32; TILE] {
    let mut sums = [0.0; TILE];
    let pairs = _mm256_hadd_ps(_mm256_hadd_ps(acc[0], acc[1]), _mm256_hadd_ps(acc[2], acc[3]));
    let joined = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
    // SAFETY: room for four.
    unsafe { _mm_storeu_ps(sums.as_mut_ptr(), joined) };
    sums
}

/// The first `n` of four rows times all columns.
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const F: u8>(job: &Job<'_>, rows: &[*const u8; TILE], from: usize, n: usize, mut scratch: &mut [u8]) {
    let width = job.m.width;
    let weights = carve::<f32>(&mut scratch, TILE * CHUNK);
    let sums = carve::<f32>(&mut scratch, job.columns.len() * TILE * 8);
    sums.fill(0.0);
    for first in (0..width).step_by(CHUNK) {
        let count = CHUNK.min(width - first);
        // SAFETY: the rows have elements `first` to `first + count`.
        unsafe { interleave::<F>(rows, first, count, width, weights) };
        let weights = &weights[..TILE * count.next_multiple_of(8)];
        let (mut columns, mut sums) = (job.columns, &mut *sums);
        while !columns.is_empty() {
            let step = match columns.len() {
                3.. => multiply::<3>(job, weights, first, columns, sums),
                2 => multiply::<2>(job, weights, first, columns, sums),
                _ => multiply::<1>(job, weights, first, columns, sums),
            };
            (columns, sums) = (&columns[step..], &mut sums[TILE * 8 * step..]);
        }
    }
    for (column, lanes) in job.columns.iter().zip(sums.chunks_exact(TILE * 8)) {
        let mut acc = [_mm256_setzero_ps(); TILE];
        for (acc, lanes) in acc.iter_mut().zip(lanes.as_chunks::<8>().0) {
            // SAFETY: eight lanes.
            *acc = unsafe { _mm256_loadu_ps(lanes.as_ptr()) };
        }
        job.write(*column, from, &joined(acc)[..n]);
    }
}

/// Per eight elements: those of each row, zeros beyond the last.
///
/// # Safety
/// The rows have elements `first` to `first + count`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn interleave<const F: u8>(
    rows: &[*const u8; TILE],
    first: usize,
    count: usize,
    width: usize,
    out: &mut [f32],
) {
    assert!(out.len() >= TILE * count.next_multiple_of(8));
    // What is decoded next: the rest of these rows, or the start of the next ones.
    let next = if first + CHUNK < width { CHUNK } else { TILE * width - first };
    for at in (0..count).step_by(8) {
        for i in 0..TILE {
            let row = rows[i].wrapping_add(size::<F>() * (first + at));
            if at % (64 / size::<F>()) == 0 {
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(size::<F>() * next).cast());
            }
            // SAFETY: the elements are there, and `out` has room.
            unsafe {
                let eight = if at + 8 <= count { load::<F>(row) } else { load_some::<F>(row, count - at) };
                _mm256_storeu_ps(out.as_mut_ptr().add(TILE * at + 8 * i), eight);
            }
        }
    }
}

/// A tile's weights times the first `N` columns; answers `N`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<const N: usize>(
    job: &Job<'_>,
    weights: &[f32],
    first: usize,
    columns: &[Column],
    sums: &mut [f32],
) -> usize {
    let count = weights.len() / TILE;
    assert!(columns.len() >= N && sums.len() >= N * TILE * 8);
    assert!(first + count <= padded(job.m.width) && job.stride >= 4 * padded(job.m.width));
    let mut x = [std::ptr::null::<f32>(); N];
    for c in 0..N {
        x[c] = view::<f32>(job.input(columns[c]))[first..].as_ptr();
    }
    // SAFETY: weights, prepared rows and sums have as many elements as asserted.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); TILE]; N];
        for c in 0..N {
            for i in 0..TILE {
                acc[c][i] = _mm256_loadu_ps(sums.as_ptr().add(TILE * 8 * c + 8 * i));
            }
        }
        for at in (0..count).step_by(8) {
            let mut xs = [_mm256_setzero_ps(); N];
            for c in 0..N {
                xs[c] = _mm256_loadu_ps(x[c].add(at));
            }
            for i in 0..TILE {
                let w = _mm256_loadu_ps(weights.as_ptr().add(TILE * at + 8 * i));
                for c in 0..N {
                    acc[c][i] = _mm256_add_ps(acc[c][i], _mm256_mul_ps(w, xs[c]));
                }
            }
        }
        for c in 0..N {
            for i in 0..TILE {
                _mm256_storeu_ps(sums.as_mut_ptr().add(TILE * 8 * c + 8 * i), acc[c][i]);
            }
        }
    }
    N
}

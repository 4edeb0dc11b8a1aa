//! `q8_0` times `q8_0` with few columns: each row is read as one stream.
//!
//! A sum follows the blocks of its row, so that of one row alone waits for every addition. Here 16 blocks of
//! a row become a vector of their terms, a lane for each; the terms of 16 rows are kept, then transposed when
//! they are read, so that a lane is a row and the sums follow the blocks side by side.
use super::super::Job;
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved};
use super::super::prepared::parts;
use super::{joined, opaque, sums_of_4_wide};
use std::arch::asm;
use std::arch::x86_64::*;

/// Rows whose sums lie side by side.
const ROWS: usize = 16;
/// Blocks of a unit, and its bytes and elements.
const BLOCKS: usize = 16;
const BYTES: usize = 34 * BLOCKS;
const ELEMENTS: usize = 32 * BLOCKS;
/// Most units of a row whose terms are kept: they stay in the second cache.
const CHUNK: usize = 16;
/// Bytes from what is read to what is asked for.
const AHEAD: usize = 8 << 10;

/// Whether rows are whole units.
pub(super) fn takes(width: usize) -> bool {
    width.is_multiple_of(ELEMENTS)
}

/// Numbers that a unit of 16 rows has for a column: integer sums as floats, then their scales.
const TERMS: usize = 2 * ROWS * BLOCKS;

pub(super) fn scratch_bytes(width: usize, columns: usize) -> usize {
    carved::<f32>(TERMS * columns * CHUNK.min(width / ELEMENTS))
}

/// A job of `N` columns.
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
pub(super) fn run<const N: usize>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let units = job.m.width / ELEMENTS;
    let parts = parts::<32, 32>(job.m.width);
    assert!(job.columns.len() == N && job.stride >= parts.bytes && takes(job.m.width));
    let x: [*const u8; N] = std::array::from_fn(|c| job.input(job.columns[c]).as_ptr());
    let terms = carve::<f32>(&mut scratch, TERMS * N * CHUNK.min(units));
    let masks = masks();
    for from in job.rows.clone().step_by(ROWS) {
        let rows = job.weight_rows::<ROWS>(from);
        let n = ROWS.min(job.rows.end - from);
        let mut acc = [_mm512_setzero_ps(); N];
        for first in (0..units).step_by(CHUNK) {
            let count = CHUNK.min(units - first);
            for (i, row) in rows[..n].iter().enumerate() {
                for unit in 0..count {
                    let terms = &mut terms[TERMS * N * unit..][..TERMS * N];
                    // SAFETY: the row and the prepared rows have this unit.
                    unsafe {
                        let at = row.as_ptr().add(BYTES * (first + unit));
                        let x = x.map(|x| Input::of(x, parts.scales, parts.sums, first + unit));
                        multiply(at, &masks, &x, i, terms);
                    }
                }
            }
            for terms in terms.chunks_exact(TERMS * N).take(count) {
                for c in 0..N {
                    acc[c] = added(acc[c], &terms[TERMS * c..][..TERMS]);
                }
            }
        }
        for c in 0..N {
            let mut sums = [0.0; ROWS];
            // SAFETY: room for sixteen.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), acc[c]) };
            job.write(job.columns[c], from, &sums[..n]);
        }
    }
}

/// A unit of a prepared row.
#[derive(Clone, Copy)]
struct Input {
    codes: *const u8,
    scales: *const u8,
    sums: *const u8,
}

impl Input {
    /// # Safety
    /// The row at `x` has this unit.
    unsafe fn of(x: *const u8, scales: usize, sums: usize, unit: usize) -> Input {
        let at = 4 * BLOCKS * unit;
        // SAFETY: as the caller says.
        unsafe { Input { codes: x.add(ELEMENTS * unit), scales: x.add(scales + at), sums: x.add(sums + at) } }
    }
}

/// Terms of the unit of row `i` that lies at `at`.
///
/// # Safety
/// There is a unit, and in each input.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn multiply<const N: usize>(
    at: *const u8,
    masks: &[u16; 7],
    x: &[Input; N],
    i: usize,
    terms: &mut [f32],
) {
    assert!(terms.len() == TERMS * N && i < ROWS);
    // From blocks 0 2 4 … 14, 1 3 5 … 15 to their order.
    let order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    Ahead(at).at(AHEAD).all(BYTES);
    // SAFETY: as the caller says.
    unsafe {
        let dw = scales(at, masks);
        let mut isums = [[_mm512_setzero_si512(); BLOCKS / 2]; N];
        for p in 0..BLOCKS / 2 {
            // A pair of blocks; plus 128, codes are unsigned.
            let pair = at.add(68 * p);
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(pair.add(2).cast()));
            let codes = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(pair.add(36).cast()));
            let codes = _mm512_xor_si512(codes, _mm512_set1_epi8(-128));
            for c in 0..N {
                let x = _mm512_load_si512(x[c].codes.add(64 * p).cast());
                isums[c][p] = _mm512_dpbusd_epi32(isums[c][p], codes, x);
            }
        }
        for c in 0..N {
            let [a, b, c_, d, e, f, g, h] = isums[c];
            let sums = joined(sums_of_4_wide([a, b, c_, d]), sums_of_4_wide([e, f, g, h]));
            let sums = _mm512_permutexvar_epi32(order, sums);
            let sums = _mm512_add_epi32(sums, _mm512_load_si512(x[c].sums.cast()));
            let scale = _mm512_mul_ps(dw, _mm512_load_ps(x[c].scales.cast()));
            let to = terms.as_mut_ptr().add(TERMS * c + BLOCKS * i);
            _mm512_store_ps(to, _mm512_cvtepi32_ps(sums));
            _mm512_store_ps(to.add(TERMS / 2), scale);
        }
    }
}

/// Dwords k and k + 8 for each k from 1 on. The compiler knows nothing of them, and so keeps them where they are.
#[inline]
#[target_feature(enable = "avx512f")]
fn masks() -> [u16; 7] {
    let mut masks = [0; 7];
    for k in 0..7 {
        masks[k] = 0x202 << k;
        // SAFETY: no instruction.
        unsafe {
            asm!("/* {0} */", inout(kreg) masks[k], options(pure, nomem, nostack, preserves_flags));
        }
    }
    masks
}

/// The scales of a unit's blocks.
///
/// # Safety
/// There is a unit.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn scales(at: *const u8, masks: &[u16; 7]) -> __m512 {
    // Of the 64 bytes from 64k on, the lower half of dword k is the scale of block 2k, and the upper half
    // of dword k + 8 that of the next one. Codes are read from the same bytes, which is none of the compiler's
    // concern either: it would make them of these.
    let at = at.wrapping_add(opaque(0));
    // SAFETY: as the caller says.
    let mut all = unsafe { _mm512_loadu_si512(at.cast()) };
    for k in 1..BLOCKS / 2 {
        // SAFETY: as above.
        all = unsafe { _mm512_mask_loadu_epi32(all, masks[k - 1], at.add(64 * k).cast()) };
    }
    let (even, odd) = (_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
    _mm512_cvtph_ps(_mm256_blend_epi16::<0xaa>(even, odd))
}

/// The sums of 16 rows with a unit's terms, block by block.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn added(mut acc: __m512, terms: &[f32]) -> __m512 {
    let (isums, scales) = terms.split_at(TERMS / 2);
    for b in (0..BLOCKS).step_by(4) {
        let (isums, scales) = (transposed(isums, b), transposed(scales, b));
        for i in 0..4 {
            acc = _mm512_fmadd_ps(isums[i], scales[i], acc);
        }
    }
    acc
}

/// Four terms from block `b` on of each of 16 rows, a row in each lane.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn transposed(terms: &[f32], b: usize) -> [__m512; 4] {
    assert!(terms.len() == ROWS * BLOCKS && b + 4 <= BLOCKS);
    // SAFETY: sixteen terms of each row are there, asserted.
    let row = |i: usize| unsafe { _mm_load_ps(terms.as_ptr().add(BLOCKS * i + b)) };
    let every_fourth = |i: usize| {
        let v = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(row(i)), row(i + 4));
        _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(v, row(i + 8)), row(i + 12))
    };
    let v = [every_fourth(0), every_fourth(1), every_fourth(2), every_fourth(3)];
    let pair = |a, b| {
        let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        (_mm512_castps_pd(low), _mm512_castps_pd(high))
    };
    let ((a0, b0), (a1, b1)) = (pair(v[0], v[1]), pair(v[2], v[3]));
    [
        _mm512_castpd_ps(_mm512_unpacklo_pd(a0, a1)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(a0, a1)),
        _mm512_castpd_ps(_mm512_unpacklo_pd(b0, b1)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(b0, b1)),
    ]
}

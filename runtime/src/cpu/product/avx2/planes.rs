//! `iq2_xxs` packed as sign planes, times `q8_k`: sums of four inputs from tables instead of products.
//!
//! A weight is (33 s₁ + 35 s₂ + 18 s₃) / 2 with three signs. For each four inputs a table holds their 16
//! signed sums, split as `32·high + low`, both bytes; four signs of a row select an entry, and the
//! look-ups of a group of 32 add up in bytes, 32 rows at once. `low` lies in -16 … 15 and `high` in
//! -16 … 15 (what `low` lacks, 16 per table, stands in the first `high` of each group), so no sum of eight
//! leaves a byte for any codes in ±127.
use super::super::ahead::Ahead;
use super::super::bytes::{view, view_mut};
use super::super::prepared::q8_k;
use super::super::repack::{PLANE_ORDER, PLANE_ROWS, SIGN_PLANES};
use super::super::{Isa, Job, Packing, ProductKernel};
use super::check_machine;
use ds4_ir::Scalar;
use std::arch::x86_64::*;

pub(super) static KERNELS: &[ProductKernel] = &[ProductKernel {
    name: "planes",
    weight: Scalar::Iq2Xxs,
    packing: Packing::SignPlanes,
    input: Scalar::Q8K,
    isa: Isa::Avx2,
    granule: PLANE_ROWS,
    prepared_bytes: |width| 8 * width + (width / 64).next_multiple_of(64),
    prepare: |row, width, out| {
        check_machine();
        // SAFETY: the machine has the instructions.
        unsafe { prepare(row, width, out) }
    },
    scratch_bytes: |_, _| 0,
    run: |job, _| {
        check_machine();
        // SAFETY: the machine has the instructions.
        unsafe { run(job) }
    },
}];

/// Per four codes: 16 low parts, 16 high parts; behind all of them the scales of the blocks.
#[target_feature(enable = "avx2,fma,f16c")]
fn prepare(row: &[u8], width: usize, out: &mut [u8]) {
    assert!(width.is_multiple_of(256), "whole blocks");
    let (tables, scales) = out.split_at_mut(8 * width);
    let (tables, scales) = (view_mut::<i8>(tables), view_mut::<f32>(scales));
    for (b, (d, x)) in q8_k(row).enumerate() {
        scales[b] = d;
        let tables = tables[2048 * b..][..2048].as_chunks_mut::<32>().0;
        for (q, (x, table)) in x.as_chunks::<4>().0.iter().zip(tables).enumerate() {
            let first = if q % 8 == 0 { 4 } else { 0 };
            for n in 0..16 {
                let signed = |i: usize| if n >> i & 1 == 1 { i16::from(x[i]) } else { -i16::from(x[i]) };
                let sum = signed(0) + signed(1) + signed(2) + signed(3);
                table[n] = ((sum & 31) - 16) as i8;
                table[16 + n] = ((sum >> 5) + first) as i8;
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run(job: &Job<'_>) {
    let blocks = job.m.width / 256;
    let size = const { SIGN_PLANES * PLANE_ROWS };
    for from in job.rows.clone().step_by(PLANE_ROWS) {
        let tile = &job.m.codes[from / PLANE_ROWS * blocks * size..][..blocks * size];
        for column in job.columns {
            let (tables, scales) = job.input(*column).split_at(8 * job.m.width);
            let sums = multiply(tile, tables, view(scales));
            let mut ordered = [0.0; PLANE_ROWS];
            for (row, sum) in PLANE_ORDER.into_iter().zip(sums) {
                ordered[row] = sum;
            }
            job.write(*column, from, &ordered);
        }
    }
}

/// Bytes that a tile is asked for ahead of its use.
const AHEAD: usize = 8192;

/// The products of 32 rows in the order of a tile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply(tile: &[u8], tables: &[u8], scales: &[f32]) -> [f32; PLANE_ROWS] {
    let blocks = tile.len() / (SIGN_PLANES * PLANE_ROWS);
    assert!(tables.len() >= 2048 * blocks && scales.len() >= blocks);
    let mut acc = [_mm256_setzero_ps(); 4];
    for b in 0..blocks {
        // SAFETY: the tile has this block, and so have the tables.
        unsafe {
            let (w, t) = (tile.as_ptr().add(SIGN_PLANES * PLANE_ROWS * b), tables.as_ptr().add(2048 * b));
            let mut isum = [_mm256_setzero_si256(); 4];
            for g in 0..8 {
                Ahead(w).at(AHEAD + 408 * g).all(408);
                group(w.add(384 * g), w.add(3072 + 16 * g), t.add(256 * g), &mut isum);
            }
            let dx = _mm256_set1_ps(scales[b]);
            for i in 0..4 {
                let d = _mm256_cvtph_ps(_mm_loadu_si128(w.add(3200 + 16 * i).cast()));
                let scale = _mm256_mul_ps(_mm256_mul_ps(d, _mm256_set1_ps(0.125)), dx);
                // The planes give twice the sum.
                let factor = _mm256_cvtepi32_ps(_mm256_srai_epi32::<1>(isum[i]));
                acc[i] = _mm256_fmadd_ps(factor, scale, acc[i]);
            }
        }
    }
    let mut sums = [0.0; PLANE_ROWS];
    for (acc, out) in acc.into_iter().zip(sums.as_chunks_mut::<8>().0) {
        // SAFETY: room for eight.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
    }
    sums
}

/// Adds twice the sums of a group of 32 elements, times their sub-scales.
///
/// # Safety
/// The planes, scales and tables of a group lie there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn group(planes: *const u8, scales: *const u8, tables: *const u8, isum: &mut [__m256i; 4]) {
    let zero = _mm256_setzero_si256();
    let nibble = _mm256_set1_epi8(15);
    let (mut low, mut high) = ([zero; 3], [zero; 3]);
    // SAFETY: as the caller says.
    let scale = unsafe {
        for pair in 0..4 {
            let table =
                |i: usize| _mm256_broadcastsi128_si256(_mm_load_si128(tables.add(64 * pair + 16 * i).cast()));
            let (low0, high0, low1, high1) = (table(0), table(1), table(2), table(3));
            for p in 0..3 {
                let signs = _mm256_loadu_si256(planes.add(96 * pair + 32 * p).cast());
                let first = _mm256_and_si256(signs, nibble);
                let second = _mm256_and_si256(_mm256_srli_epi16::<4>(signs), nibble);
                low[p] = _mm256_add_epi8(low[p], _mm256_shuffle_epi8(low0, first));
                high[p] = _mm256_add_epi8(high[p], _mm256_shuffle_epi8(high0, first));
                low[p] = _mm256_add_epi8(low[p], _mm256_shuffle_epi8(low1, second));
                high[p] = _mm256_add_epi8(high[p], _mm256_shuffle_epi8(high1, second));
            }
        }
        let scale = _mm_loadu_si128(scales.cast());
        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(scale), scale), nibble)
    };
    let odd =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
    let scale = _mm256_shuffle_epi8(odd, scale);
    let weights = _mm256_set1_epi16(32 << 8 | 1);
    for half in 0..2 {
        let unpack = |a, b| if half == 0 { _mm256_unpacklo_epi8(a, b) } else { _mm256_unpackhi_epi8(a, b) };
        let sum = |p: usize| _mm256_maddubs_epi16(weights, unpack(low[p], high[p]));
        let (p1, p2, p3) = (sum(0), sum(1), sum(2));
        // 33 p1 + 35 p2 + 18 p3 = 17 e + f.
        let both = _mm256_add_epi16(p1, p2);
        let e = _mm256_add_epi16(_mm256_add_epi16(both, both), p3);
        let f = _mm256_add_epi16(p3, _mm256_sub_epi16(p2, p1));
        let s = unpack(scale, zero);
        let s17 = _mm256_add_epi16(_mm256_slli_epi16::<4>(s), s);
        let (first, second) = (_mm256_unpacklo_epi16(e, f), _mm256_unpackhi_epi16(e, f));
        let products = [
            _mm256_madd_epi16(first, _mm256_unpacklo_epi16(s17, s)),
            _mm256_madd_epi16(second, _mm256_unpackhi_epi16(s17, s)),
        ];
        isum[2 * half] = _mm256_add_epi32(isum[2 * half], products[0]);
        isum[2 * half + 1] = _mm256_add_epi32(isum[2 * half + 1], products[1]);
    }
}

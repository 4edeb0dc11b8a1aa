//! `q8_0`, `mxfp4` and `fp4` times `q8_0`: blocks of 32 codes.
//!
//! Weights become unsigned by adding 128; what that adds to a sum, 128 times the sum of the input's
//! codes, is prepared with the input.
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved};
use super::super::prepared::{self, parts};
use super::super::{Column, Isa, Job, Packing, ProductKernel};
use super::{check_machine, stream32, sums_of_8, transposed};
use ds4_ir::Scalar;
use ds4_ir::view::Matrix;
use std::arch::x86_64::*;

pub(super) static KERNELS: &[ProductKernel] = &[
    kernel::<Q8_0, 2>("blocks32", Scalar::Q8_0),
    // Which is faster for a single column differs from machine to machine; tuning finds out.
    kernel::<Q8_0, 1>("stream32", Scalar::Q8_0),
    kernel::<MXFP4, 2>("blocks32", Scalar::Mxfp4),
    kernel::<FP4, 2>("blocks32", Scalar::Fp4),
];

const Q8_0: u8 = 0;
const MXFP4: u8 = 1;
const FP4: u8 = 2;

/// `STREAM`: fewest columns of `q8_0` for which rows are read as streams.
const fn kernel<const F: u8, const STREAM: usize>(name: &'static str, weight: Scalar) -> ProductKernel {
    ProductKernel {
        name,
        weight,
        packing: Packing::Stored,
        input: Scalar::Q8_0,
        isa: Isa::Avx512,
        granule: 1,
        prepared_bytes: |width| parts::<32, 32>(width).bytes,
        prepare,
        scratch_bytes,
        run: |job, scratch| {
            check_machine();
            // SAFETY: the machine has the instructions.
            unsafe { run::<F, STREAM>(job, scratch) }
        },
    }
}

fn prepare(row: &[u8], width: usize, out: &mut [u8]) {
    prepared::fill::<32, 32>(width, -128, prepared::q8_0(row), out);
}

/// Rows of a tile with many columns.
const TILE: usize = 16;
/// Blocks of a tile that are decoded at once: they stay in the first cache.
const CHUNK: usize = 32;
/// Fewest columns for which a tile is decoded.
const MANY: usize = 4;

fn scratch_bytes(width: usize, columns: usize) -> usize {
    let few = stream32::scratch_bytes(width, columns.min(MANY - 1));
    if columns < MANY {
        return few;
    }
    // A step may have fewer columns than its scratch was made for.
    few.max(carved::<u8>(CHUNK * 32 * TILE) + carved::<f32>(CHUNK * TILE) + carved::<f32>(columns * TILE))
}

#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn run<const F: u8, const STREAM: usize>(job: &Job<'_>, scratch: &mut [u8]) {
    if job.columns.len() >= MANY {
        return many::<F>(job, scratch);
    }
    if F == Q8_0 && job.columns.len() >= STREAM && stream32::takes(job.m.width) {
        return match job.columns.len() {
            1 => stream32::run::<1>(job, scratch),
            2 => stream32::run::<2>(job, scratch),
            _ => stream32::run::<3>(job, scratch),
        };
    }
    for from in job.rows.clone().step_by(8) {
        for column in job.columns {
            let sums = single::<F>(job, from, job.input(*column));
            job.write(*column, from, &sums[..8.min(job.rows.end - from)]);
        }
    }
}

/// Bytes of a block's codes and scale; `fp4` keeps its scales apart.
const fn block_bytes<const F: u8>() -> usize {
    match F {
        Q8_0 => 34,
        MXFP4 => 17,
        _ => 16,
    }
}

/// Eight rows times one input row.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn single<const F: u8>(job: &Job<'_>, from: usize, x: &[u8]) -> [f32; 8] {
    let rows = job.weight_rows::<8>(from);
    let apart: [&[u8]; 8] = std::array::from_fn(|i| scale_row::<F>(&job.m, job.row_at(from + i)));
    let parts = parts::<32, 32>(job.m.width);
    assert!(x.len() >= parts.bytes, "a prepared row");
    // The eight rows that follow come into the second cache in the order in which they lie.
    let size = const { 8 * block_bytes::<F>() };
    let next = Ahead(rows[0].as_ptr()).at(8 * rows[0].len());
    let mut acc = _mm256_setzero_ps();
    for b in 0..job.m.width.div_ceil(32) {
        next.at(size * b).all(size);
        let left = rows[0].len().saturating_sub(16 * b).min(16);
        // SAFETY: the rows and the prepared row have block `b`.
        unsafe {
            let codes = _mm256_load_si256(x.as_ptr().add(32 * b).cast());
            let mut sums = [_mm256_setzero_si256(); 8];
            let mut scales = [std::ptr::null(); 8];
            for i in 0..8 {
                let block = rows[i].as_ptr().add(block_bytes::<F>() * b);
                sums[i] = _mm256_dpbusd_epi32(sums[i], unsigned::<F>(block, left), codes);
                scales[i] = if F == FP4 { apart[i].as_ptr().add(b) } else { block };
            }
            let offset = _mm256_set1_epi32(*x.as_ptr().add(parts.sums + 4 * b).cast::<i32>());
            let isum = _mm256_cvtepi32_ps(_mm256_add_epi32(sums_of_8(sums), offset));
            let dx = _mm256_set1_ps(*x.as_ptr().add(parts.scales + 4 * b).cast::<f32>());
            acc = _mm256_fmadd_ps(isum, _mm256_mul_ps(scales_of_8::<F>(&scales), dx), acc);
        }
    }
    let mut sums = [0.0; 8];
    // SAFETY: room for eight.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), acc) };
    sums
}

/// Where the scales of a row lie: apart from the codes, or nowhere else.
fn scale_row<'a, const F: u8>(m: &Matrix<'a>, row: usize) -> &'a [u8] {
    if F == FP4 { m.scale_row(row) } else { &[] }
}

/// The codes of a block, each plus 128.
///
/// # Safety
/// There is a block, of which the last of an `fp4` row may have fewer than 16 bytes, `left`.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn unsigned<const F: u8>(block: *const u8, left: usize) -> __m256i {
    let doubled = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        -128, -127, -126, -125, -124, -122, -120, -116, -128, 127, 126, 125, 124, 122, 120, 116,
    ));
    let nibble = _mm_set1_epi8(15);
    // SAFETY: as the caller says.
    unsafe {
        match F {
            Q8_0 => {
                let codes = _mm256_loadu_si256(block.add(2).cast());
                _mm256_xor_si256(codes, _mm256_set1_epi8(-128))
            }
            MXFP4 => {
                let codes = _mm_loadu_si128(block.add(1).cast());
                let high = _mm_and_si128(_mm_srli_epi16::<4>(codes), nibble);
                let both = _mm256_set_m128i(high, _mm_and_si128(codes, nibble));
                _mm256_shuffle_epi8(doubled, both)
            }
            _ => {
                let codes = _mm_maskz_loadu_epi8((0xffffu32 >> (16 - left)) as u16, block.cast());
                let (low, high) =
                    (_mm_and_si128(codes, nibble), _mm_and_si128(_mm_srli_epi16::<4>(codes), nibble));
                let both = _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high));
                _mm256_shuffle_epi8(doubled, both)
            }
        }
    }
}

/// The scales that lie at eight places.
///
/// # Safety
/// They lie there.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn scales_of_8<const F: u8>(at: &[*const u8; 8]) -> __m256 {
    // SAFETY: as the caller says.
    unsafe {
        if F == Q8_0 {
            let d = |i: usize| at[i].cast::<i16>().read_unaligned();
            return _mm256_cvtph_ps(_mm_setr_epi16(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7)));
        }
        let d = |i: usize| prepared::HALF_E8M0[usize::from(*at[i])];
        _mm256_setr_ps(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7))
    }
}

/// A tile of 16 rows, chunk by chunk of its blocks, times all columns.
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn many<const F: u8>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let n = job.columns.len();
    let weights = carve::<u8>(&mut scratch, CHUNK * 32 * TILE);
    let scales = carve::<f32>(&mut scratch, CHUNK * TILE);
    let sums = carve::<f32>(&mut scratch, n * TILE);
    let blocks = job.m.width.div_ceil(32);
    for from in job.rows.clone().step_by(TILE) {
        sums.fill(0.0);
        let rows = job.weight_rows::<TILE>(from);
        let apart: [&[u8]; TILE] = std::array::from_fn(|i| scale_row::<F>(&job.m, job.row_at(from + i)));
        for first in (0..blocks).step_by(CHUNK) {
            let chunk = CHUNK.min(blocks - first);
            // What is decoded next: the rest of these rows, or the start of the next ones.
            let size = rows[0].len();
            let next = if first + CHUNK < blocks {
                size * CHUNK / blocks
            } else {
                TILE * size - first * size / blocks
            };
            for b in 0..chunk {
                let (weights, scales) = (&mut weights[512 * b..][..512], &mut scales[16 * b..][..16]);
                for row in &rows {
                    let at = row.as_ptr().wrapping_add((first + b) * size / blocks + next);
                    _mm_prefetch::<_MM_HINT_T0>(at.cast());
                }
                // SAFETY: the rows have such a block.
                unsafe { decode::<F>(&rows, &apart, first + b, weights, scales) };
            }
            let tile = Tile { weights: &weights[..512 * chunk], scales: &scales[..16 * chunk], first };
            let (mut columns, mut sums) = (job.columns, &mut *sums);
            while !columns.is_empty() {
                let step = match columns.len() {
                    12.. => multiply::<12>(job, &tile, columns, sums),
                    8.. => multiply::<8>(job, &tile, columns, sums),
                    4.. => multiply::<4>(job, &tile, columns, sums),
                    2.. => multiply::<2>(job, &tile, columns, sums),
                    _ => multiply::<1>(job, &tile, columns, sums),
                };
                (columns, sums) = (&columns[step..], &mut sums[TILE * step..]);
            }
        }
        let rows = TILE.min(job.rows.end - from);
        for (column, sums) in job.columns.iter().zip(sums.chunks_exact(TILE)) {
            job.write(*column, from, &sums[..rows]);
        }
    }
}

/// Decoded blocks of 16 rows.
struct Tile<'a> {
    /// Per block, per four elements: four bytes of each row.
    weights: &'a [u8],
    /// Per block: the scale of each row.
    scales: &'a [f32],
    /// Number of the first block.
    first: usize,
}

/// Block `b` of 16 rows, with scales apart if the format has them so, as a tile has it.
///
/// # Safety
/// The rows have such a block.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn decode<const F: u8>(
    rows: &[&[u8]; TILE],
    apart: &[&[u8]; TILE],
    b: usize,
    weights: &mut [u8],
    scales: &mut [f32],
) {
    assert!(weights.len() == 512 && scales.len() == TILE);
    // SAFETY: the rows have such a block, and the places have room for it.
    unsafe {
        // Vector i holds rows i and i + 8; within its halves, dwords are transposed 8 by 8.
        let mut v = [_mm512_setzero_si512(); 8];
        let mut at = [[std::ptr::null(); 8]; 2];
        let left = rows[0].len().saturating_sub(16 * b).min(16);
        for i in 0..8 {
            let (low, high) = (
                rows[i].as_ptr().add(block_bytes::<F>() * b),
                rows[i + 8].as_ptr().add(block_bytes::<F>() * b),
            );
            at[0][i] = if F == FP4 { apart[i].as_ptr().add(b) } else { low };
            at[1][i] = if F == FP4 { apart[i + 8].as_ptr().add(b) } else { high };
            let half = _mm512_castsi256_si512(unsigned::<F>(low, left));
            v[i] = _mm512_inserti64x4::<1>(half, unsigned::<F>(high, left));
        }
        for (i, dwords) in transposed(v).into_iter().enumerate() {
            _mm512_storeu_si512(weights.as_mut_ptr().add(64 * i).cast(), dwords);
        }
        for (at, out) in at.iter().zip(scales.as_chunks_mut::<8>().0) {
            _mm256_storeu_ps(out.as_mut_ptr(), scales_of_8::<F>(at));
        }
    }
}

/// The tile times the first `N` columns; answers `N`.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn multiply<const N: usize>(job: &Job<'_>, tile: &Tile<'_>, columns: &[Column], sums: &mut [f32]) -> usize {
    let parts = parts::<32, 32>(job.m.width);
    assert!(columns.len() >= N && sums.len() >= N * TILE && job.stride >= parts.bytes);
    let blocks = tile.weights.len() / 512;
    assert!(tile.scales.len() == blocks * TILE && (tile.first + blocks) * 32 <= parts.scales + 31);
    let x: [*const u8; N] = std::array::from_fn(|c| job.input(columns[c]).as_ptr());
    // SAFETY: blocks `first` to `first + blocks` lie inside the prepared rows, and the sums have room.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); N];
        for c in 0..N {
            acc[c] = _mm512_loadu_ps(sums.as_ptr().add(TILE * c));
        }
        for b in 0..blocks {
            let at = tile.first + b;
            let mut isum = [_mm512_setzero_si512(); N];
            for c in 0..N {
                isum[c] = _mm512_set1_epi32(*x[c].add(parts.sums).cast::<i32>().add(at));
            }
            for d in 0..8 {
                let w = _mm512_loadu_si512(tile.weights.as_ptr().add(512 * b + 64 * d).cast());
                for c in 0..N {
                    let codes = _mm512_set1_epi32(*x[c].cast::<i32>().add(8 * at + d));
                    isum[c] = _mm512_dpbusd_epi32(isum[c], w, codes);
                }
            }
            let dw = _mm512_loadu_ps(tile.scales.as_ptr().add(TILE * b));
            for c in 0..N {
                let dx = _mm512_set1_ps(*x[c].add(parts.scales).cast::<f32>().add(at));
                acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[c]), _mm512_mul_ps(dw, dx), acc[c]);
            }
        }
        for c in 0..N {
            _mm512_storeu_ps(sums.as_mut_ptr().add(TILE * c), acc[c]);
        }
    }
    N
}

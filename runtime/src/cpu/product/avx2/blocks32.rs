//! `q8_0`, `mxfp4` and `fp4` times `q8_0`: blocks of 32 codes.
//!
//! One column: magnitudes of the weights times input codes with the signs of the weights. Many: both
//! as 16 bit integers.
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved, view};
use super::super::prepared::{self, parts};
use super::super::{Column, Isa, Job, Packing, ProductKernel};
use super::{check_machine, sums_of_8};
use ds4_ir::Scalar;
use ds4_ir::view::Matrix;
use std::arch::x86_64::*;

pub(super) static KERNELS: &[ProductKernel] =
    &[kernel::<Q8_0>(Scalar::Q8_0), kernel::<MXFP4>(Scalar::Mxfp4), kernel::<FP4>(Scalar::Fp4)];

const Q8_0: u8 = 0;
const MXFP4: u8 = 1;
const FP4: u8 = 2;

const fn kernel<const F: u8>(weight: Scalar) -> ProductKernel {
    ProductKernel {
        name: "blocks32",
        weight,
        packing: Packing::Stored,
        input: Scalar::Q8_0,
        isa: Isa::Avx2,
        granule: 1,
        prepared_bytes: |width| parts::<32, 32>(width).bytes,
        prepare: |row, width, out| prepared::fill::<32, 32>(width, 1, prepared::q8_0(row), out),
        scratch_bytes,
        run: |job, scratch| {
            check_machine();
            // SAFETY: the machine has the instructions.
            unsafe { run::<F>(job, scratch) }
        },
    }
}

/// Rows that are multiplied side by side.
const TILE: usize = 8;
/// Blocks of a tile that are decoded at once: they stay in the first cache.
const CHUNK: usize = 16;
/// Fewest columns for which a tile is decoded.
const MANY: usize = 4;

fn scratch_bytes(width: usize, columns: usize) -> usize {
    if columns < MANY {
        return 0;
    }
    let inputs = columns * width.next_multiple_of(32);
    carved::<i16>(CHUNK * 32 * TILE)
        + carved::<f32>(CHUNK * TILE)
        + carved::<f32>(columns * TILE)
        + carved::<i16>(inputs)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run<const F: u8>(job: &Job<'_>, scratch: &mut [u8]) {
    if job.columns.len() >= MANY {
        return many::<F>(job, scratch);
    }
    for from in job.rows.clone().step_by(TILE) {
        for column in job.columns {
            let sums = single::<F>(job, from, job.input(*column));
            job.write(*column, from, &sums[..TILE.min(job.rows.end - from)]);
        }
    }
}

/// Eight rows from `from` on, with scales that lie apart; beyond the job's last row it is that one again.
fn rows_of<'a, const F: u8>(job: &Job<'a>, from: usize) -> ([&'a [u8]; TILE], [&'a [u8]; TILE]) {
    (job.weight_rows(from), std::array::from_fn(|i| scale_row::<F>(&job.m, job.row_at(from + i))))
}

/// Where the scales of a row lie: apart from the codes, or nowhere else.
fn scale_row<'a, const F: u8>(m: &Matrix<'a>, row: usize) -> &'a [u8] {
    if F == FP4 { m.scale_row(row) } else { &[] }
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
#[target_feature(enable = "avx2,fma,f16c")]
fn single<const F: u8>(job: &Job<'_>, from: usize, x: &[u8]) -> [f32; TILE] {
    let (rows, apart) = rows_of::<F>(job, from);
    let parts = parts::<32, 32>(job.m.width);
    assert!(x.len() >= parts.bytes, "a prepared row");
    // The eight rows that follow come into the second cache in the order in which they lie.
    let size = const { TILE * block_bytes::<F>() };
    let next = Ahead(rows[0].as_ptr()).at(TILE * rows[0].len());
    let mut acc = _mm256_setzero_ps();
    for b in 0..job.m.width.div_ceil(32) {
        next.at(size * b).all(size);
        let left = rows[0].len().saturating_sub(16 * b).min(16);
        // SAFETY: the rows and the prepared row have block `b`.
        unsafe {
            let codes = _mm256_load_si256(x.as_ptr().add(32 * b).cast());
            let mut sums = [_mm256_setzero_si256(); TILE];
            let mut scales = [std::ptr::null(); TILE];
            for i in 0..TILE {
                let block = rows[i].as_ptr().add(block_bytes::<F>() * b);
                let w = signed::<F>(block, left);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(codes, w));
                sums[i] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                scales[i] = if F == FP4 { apart[i].as_ptr().add(b) } else { block };
            }
            let isum = _mm256_cvtepi32_ps(sums_of_8(sums));
            let dx = _mm256_set1_ps(*x.as_ptr().add(parts.scales + 4 * b).cast::<f32>());
            acc = _mm256_fmadd_ps(isum, _mm256_mul_ps(scales_of_8::<F>(&scales), dx), acc);
        }
    }
    let mut sums = [0.0; TILE];
    // SAFETY: room for eight.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), acc) };
    sums
}

/// The codes of a block; twice the value of `mxfp4` and `fp4`.
///
/// # Safety
/// There is a block, of which the last of an `fp4` row may have fewer than 16 bytes, `left`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed<const F: u8>(block: *const u8, left: usize) -> __m256i {
    let doubled =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    let nibble = _mm_set1_epi8(15);
    // SAFETY: as the caller says.
    unsafe {
        match F {
            Q8_0 => _mm256_loadu_si256(block.add(2).cast()),
            MXFP4 => {
                let codes = _mm_loadu_si128(block.add(1).cast());
                let high = _mm_and_si128(_mm_srli_epi16::<4>(codes), nibble);
                _mm256_shuffle_epi8(doubled, _mm256_set_m128i(high, _mm_and_si128(codes, nibble)))
            }
            _ => {
                let codes = if left == 16 {
                    _mm_loadu_si128(block.cast())
                } else {
                    let mut copy = [0u8; 16];
                    copy.as_mut_ptr().copy_from_nonoverlapping(block, left);
                    _mm_loadu_si128(copy.as_ptr().cast())
                };
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
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales_of_8<const F: u8>(at: &[*const u8; TILE]) -> __m256 {
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

/// A tile of eight rows, chunk by chunk of its blocks, times all columns.
#[target_feature(enable = "avx2,fma,f16c")]
fn many<const F: u8>(job: &Job<'_>, mut scratch: &mut [u8]) {
    let n = job.columns.len();
    let blocks = job.m.width.div_ceil(32);
    let weights = carve::<i16>(&mut scratch, CHUNK * 32 * TILE);
    let scales = carve::<f32>(&mut scratch, CHUNK * TILE);
    let sums = carve::<f32>(&mut scratch, n * TILE);
    let inputs = carve::<i16>(&mut scratch, n * blocks * 32);
    for (column, wide) in job.columns.iter().zip(inputs.chunks_exact_mut(blocks * 32)) {
        for (x, wide) in view::<i8>(job.input(*column)).iter().zip(wide) {
            *wide = i16::from(*x);
        }
    }
    for from in job.rows.clone().step_by(TILE) {
        sums.fill(0.0);
        let (rows, apart) = rows_of::<F>(job, from);
        for first in (0..blocks).step_by(CHUNK) {
            let chunk = CHUNK.min(blocks - first);
            // What is decoded next: the rest of these rows, or the start of the next ones.
            let size = block_bytes::<F>();
            let next =
                if first + CHUNK < blocks { CHUNK * size } else { TILE * rows[0].len() - first * size };
            for b in 0..chunk {
                for row in &rows {
                    _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add((first + b) * size + next).cast());
                }
                let (weights, scales) = (&mut weights[256 * b..][..256], &mut scales[TILE * b..][..TILE]);
                // SAFETY: the rows have such a block.
                unsafe { decode::<F>(&rows, &apart, first + b, weights, scales) };
            }
            let tile =
                Tile { weights: &weights[..256 * chunk], scales: &scales[..TILE * chunk], first, inputs };
            let mut done = 0;
            while done < n {
                let columns = &job.columns[done..];
                done += match n - done {
                    6.. => multiply::<6>(job, &tile, columns, done, sums),
                    4.. => multiply::<4>(job, &tile, columns, done, sums),
                    2.. => multiply::<2>(job, &tile, columns, done, sums),
                    _ => multiply::<1>(job, &tile, columns, done, sums),
                };
            }
        }
        for (column, sums) in job.columns.iter().zip(sums.chunks_exact(TILE)) {
            job.write(*column, from, &sums[..TILE.min(job.rows.end - from)]);
        }
    }
}

/// Decoded blocks of eight rows.
struct Tile<'a> {
    /// Per block, per two elements: two codes of each row.
    weights: &'a [i16],
    /// Per block: the scale of each row.
    scales: &'a [f32],
    /// Number of the first block.
    first: usize,
    /// The codes of each column.
    inputs: &'a [i16],
}

/// Block `b` of eight rows, with scales apart if the format has them so, as a tile has it.
///
/// # Safety
/// The rows have such a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn decode<const F: u8>(
    rows: &[&[u8]; TILE],
    apart: &[&[u8]; TILE],
    b: usize,
    weights: &mut [i16],
    scales: &mut [f32],
) {
    assert!(weights.len() == 256 && scales.len() == TILE);
    // SAFETY: the rows have such a block, and the places have room for it.
    unsafe {
        let left = rows[0].len().saturating_sub(16 * b).min(16);
        let mut v = [_mm256_setzero_si256(); TILE];
        let mut at = [std::ptr::null(); TILE];
        for i in 0..TILE {
            let block = rows[i].as_ptr().add(block_bytes::<F>() * b);
            v[i] = signed::<F>(block, left);
            at[i] = if F == FP4 { apart[i].as_ptr().add(b) } else { block };
        }
        // Pairs of bytes, transposed 8 by 8 in both halves: pairs p and p + 8 of all rows.
        let w16 = |a, b| (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
        let w32 = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let w64 = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        let ((a0, b0), (a1, b1)) = (w16(v[0], v[1]), w16(v[2], v[3]));
        let ((a2, b2), (a3, b3)) = (w16(v[4], v[5]), w16(v[6], v[7]));
        let (low, high) = ([w32(a0, a1), w32(b0, b1)], [w32(a2, a3), w32(b2, b3)]);
        for i in 0..2 {
            let ((p0, p1), (p2, p3)) = (w64(low[i].0, high[i].0), w64(low[i].1, high[i].1));
            for (j, pairs) in [p0, p1, p2, p3].into_iter().enumerate() {
                let out = weights.as_mut_ptr().add(16 * (4 * i + j));
                let (first, second) = (_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
                _mm256_store_si256(out.cast(), _mm256_cvtepi8_epi16(first));
                _mm256_store_si256(out.add(16 * 8).cast(), _mm256_cvtepi8_epi16(second));
            }
        }
        _mm256_storeu_ps(scales.as_mut_ptr(), scales_of_8::<F>(&at));
    }
}

/// The tile times the first `N` columns, of which `done` precede; answers `N`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<const N: usize>(
    job: &Job<'_>,
    tile: &Tile<'_>,
    columns: &[Column],
    done: usize,
    sums: &mut [f32],
) -> usize {
    let parts = parts::<32, 32>(job.m.width);
    let all = job.m.width.div_ceil(32);
    let blocks = tile.weights.len() / 256;
    assert!(columns.len() >= N && job.stride >= parts.bytes && tile.first + blocks <= all);
    assert!(tile.scales.len() == blocks * TILE && tile.inputs.len() >= (done + N) * all * 32);
    let sums = &mut sums[done * TILE..][..N * TILE];
    let mut scales = [std::ptr::null::<f32>(); N];
    for c in 0..N {
        scales[c] = view::<f32>(&job.input(columns[c])[parts.scales..])[tile.first..].as_ptr();
    }
    // SAFETY: blocks `first` to `first + blocks` lie inside the inputs, and the sums have room.
    unsafe {
        let x = tile.inputs.as_ptr().add((done * all + tile.first) * 32);
        for b in 0..blocks {
            let mut isum = [_mm256_setzero_si256(); N];
            for p in 0..16 {
                let w = _mm256_load_si256(tile.weights.as_ptr().add(256 * b + 16 * p).cast());
                for c in 0..N {
                    let pair = _mm256_set1_epi32(
                        x.add(c * all * 32 + 32 * b + 2 * p).cast::<i32>().read_unaligned(),
                    );
                    isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(w, pair));
                }
            }
            let dw = _mm256_loadu_ps(tile.scales.as_ptr().add(TILE * b));
            for c in 0..N {
                let scale = _mm256_mul_ps(dw, _mm256_set1_ps(*scales[c].add(b)));
                let sum = sums.as_mut_ptr().add(TILE * c);
                _mm256_storeu_ps(
                    sum,
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum[c]), scale, _mm256_loadu_ps(sum)),
                );
            }
        }
    }
    N
}

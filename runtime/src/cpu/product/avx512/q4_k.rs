//! `q4_k` times `q8_k`, eight weight rows side by side.
//!
//! A block's codes become vectors of unsigned bytes, in an order that costs least; the input's codes are
//! prepared in the same order.
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved, view_mut};
use super::super::prepared::q8_k;
use super::super::{Column, Isa, Job, Packing, ProductKernel};
use super::{Parts, check_machine, joined, parts, settled, sums_of_4_wide, sums_of_8};
use ds4_ir::Scalar;
use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};

pub(super) static KERNELS: &[ProductKernel] = &[ProductKernel {
    name: "blocks",
    weight: Scalar::Q4K,
    packing: Packing::Stored,
    input: Scalar::Q8K,
    isa: Isa::Avx512,
    granule: 1,
    prepared_bytes: |width| parts(width).bytes,
    prepare,
    scratch_bytes: |_, columns| carved::<f32>(ROWS * columns),
    run: |job, scratch| {
        check_machine();
        // SAFETY: the machine has the instructions.
        unsafe { run(job, scratch) }
    },
}];

/// Rows that are multiplied side by side.
const ROWS: usize = 8;
/// Most columns that are multiplied side by side.
const FEW: usize = 4;
/// Most columns for which a block is decoded in registers, again for every [`FEW`] of them, and not into
/// memory once for all.
const FEW_MAX: usize = 8 * FEW;
/// Bytes of a stored block.
const BLOCK: usize = 144;

/// Codes lie in the order of the block's vectors; a sum is of 32 codes, half of the places stay empty.
fn prepare(row: &[u8], width: usize, out: &mut [u8]) {
    let parts = parts(width);
    let out = &mut out[..parts.bytes];
    out.fill(0);
    let (codes, rest) = out.split_at_mut(parts.scales);
    let (scales, sums) = rest.split_at_mut(parts.sums - parts.scales);
    let (codes, scales, sums) = (view_mut::<i8>(codes), view_mut::<f32>(scales), view_mut::<i16>(sums));
    for (b, (d, x)) in q8_k(row).enumerate() {
        scales[b] = d;
        let x = &x[..(width - 256 * b).min(256)];
        // Vectors: sub-blocks 0 2, 1 3, 4 6, 5 7.
        let codes = &mut codes[256 * b..][..256];
        for (i, x) in x.iter().enumerate() {
            codes[128 * (i / 128) + 64 * (i / 32 % 2) + 32 * (i / 64 % 2) + i % 32] = *x;
        }
        for (sum, x) in sums[16 * b..].iter_mut().zip(x.chunks(32)) {
            *sum = x.iter().map(|x| i16::from(*x)).sum();
        }
    }
}

/// A block of an input row.
#[derive(Clone, Copy)]
struct Input {
    codes: *const u8,
    sums: *const u8,
    scale: f32,
}

impl Parts {
    /// Block `b` of a prepared row.
    #[inline]
    fn input(&self, x: &[u8], b: usize) -> Input {
        assert!(x.len() >= self.bytes && b < self.blocks, "a prepared row");
        // SAFETY: one of the row's scales, which are aligned.
        let scale = unsafe { *x.as_ptr().add(self.scales).cast::<f32>().add(b) };
        Input { codes: x[256 * b..].as_ptr(), sums: x[self.sums + 32 * b..].as_ptr(), scale }
    }
}

#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn run(job: &Job<'_>, mut scratch: &mut [u8]) {
    let sums = carve::<f32>(&mut scratch, ROWS * job.columns.len());
    let parts = parts(job.m.width);
    // As even as can be: a column alone takes longest.
    let step = job.columns.len().div_ceil(job.columns.len().div_ceil(FEW));
    for from in job.rows.clone().step_by(ROWS) {
        sums.fill(0.0);
        let n = ROWS.min(job.rows.end - from);
        let rows = job.weight_rows::<ROWS>(from);
        for b in 0..parts.blocks {
            prefetch(&rows, b);
            if job.columns.len() > FEW_MAX {
                many(job, &rows, b, parts, sums);
                continue;
            }
            for (columns, sums) in job.columns.chunks(step).zip(sums.chunks_mut(step * ROWS)) {
                match columns.len() {
                    1 => few::<1>(job, &rows, b, parts, columns, sums),
                    2 => few::<2>(job, &rows, b, parts, columns, sums),
                    3 => few::<3>(job, &rows, b, parts, columns, sums),
                    _ => few::<FEW>(job, &rows, b, parts, columns, sums),
                }
            }
        }
        for (column, sums) in job.columns.iter().zip(sums.chunks_exact(ROWS)) {
            job.write(*column, from, &sums[..n]);
        }
    }
}

/// Asks for the block's share of the rows that follow, in the order in which they lie.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn prefetch(rows: &[&[u8]; ROWS], b: usize) {
    let size = const { ROWS * BLOCK };
    Ahead(rows[0].as_ptr()).at(ROWS * rows[0].len() + size * b).all(size);
}

/// A block of eight rows, decoded in registers, times the first `N` columns.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn few<const N: usize>(
    job: &Job<'_>,
    rows: &[&[u8]; ROWS],
    b: usize,
    parts: Parts,
    columns: &[Column],
    sums: &mut [f32],
) {
    // A loop, for `array::from_fn` is a call here.
    let mut x = [parts.input(job.input(columns[0]), b); N];
    for c in 1..N {
        x[c] = parts.input(job.input(columns[c]), b);
    }
    // What each row writes before it is read: zeros would cost as much as a row.
    let mut isums = [[const { MaybeUninit::<__m512i>::uninit() }; ROWS]; N];
    let mut msums = [[const { MaybeUninit::<__m256i>::uninit() }; ROWS]; N];
    for i in 0..ROWS {
        // SAFETY: the block is one of the row's.
        let w = unsafe { Block::decode(rows[i].as_ptr().add(BLOCK * b)) };
        let (isum, msum) = (w.isums(&x), w.msums(&x));
        for c in 0..N {
            isums[c][i].write(settled(isum[c]));
            msums[c][i].write(msum[c]);
        }
    }
    // SAFETY: the rows have this block.
    let scales = unsafe { scales_of_8(rows, b) };
    for c in 0..N {
        // SAFETY: each is written above.
        let (isums, msums) = unsafe {
            (
                transmute::<[MaybeUninit<__m512i>; ROWS], [__m512i; ROWS]>(isums[c]),
                transmute::<[MaybeUninit<__m256i>; ROWS], [__m256i; ROWS]>(msums[c]),
            )
        };
        add(isums, msums, scales, &x[c], &mut sums[ROWS * c..]);
    }
}

/// A block of eight rows, decoded once, times all columns.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn many(job: &Job<'_>, rows: &[&[u8]; ROWS], b: usize, parts: Parts, sums: &mut [f32]) {
    let mut w = [const { MaybeUninit::<Block>::uninit() }; ROWS];
    for i in 0..ROWS {
        // SAFETY: the block is one of the row's.
        w[i].write(unsafe { Block::decode(rows[i].as_ptr().add(BLOCK * b)) });
    }
    // SAFETY: each is written above.
    let w = unsafe { transmute::<&[MaybeUninit<Block>; ROWS], &[Block; ROWS]>(&w) };
    // SAFETY: the rows have this block.
    let scales = unsafe { scales_of_8(rows, b) };
    for (column, sums) in job.columns.iter().zip(sums.chunks_exact_mut(ROWS)) {
        let x = [parts.input(job.input(*column), b)];
        let mut isums = [_mm512_setzero_si512(); ROWS];
        let mut msums = [_mm256_setzero_si256(); ROWS];
        for i in 0..ROWS {
            [isums[i]] = w[i].isums(&x);
            [msums[i]] = w[i].msums(&x);
        }
        add(isums, msums, scales, &x[0], sums);
    }
}

/// Adds a block's terms to the sums of eight rows.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn add(v: [__m512i; ROWS], msums: [__m256i; ROWS], (d, dmin): (__m256, __m256), x: &Input, sums: &mut [f32]) {
    assert!(sums.len() >= ROWS);
    let (first, last) = (sums_of_4_wide([v[0], v[1], v[2], v[3]]), sums_of_4_wide([v[4], v[5], v[6], v[7]]));
    let halves = joined(first, last);
    let (low, high) = (_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves));
    let (isum, msum) = (_mm256_add_epi32(low, high), sums_of_8(msums));
    let dx = _mm256_set1_ps(x.scale);
    // SAFETY: room for eight, asserted.
    unsafe {
        let acc = _mm256_loadu_ps(sums.as_ptr());
        let acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum), _mm256_mul_ps(d, dx), acc);
        let acc = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(msum), _mm256_mul_ps(dmin, dx), acc);
        _mm256_storeu_ps(sums.as_mut_ptr(), acc);
    }
}

/// A decoded block of a weight row.
#[derive(Clone, Copy)]
struct Block {
    /// Codes.
    weights: [__m512i; 4],
    /// What the sums of each of these are multiplied by.
    factors: [__m512i; 4],
    /// Minimums, i16.
    mins: __m256i,
}

impl Block {
    /// # Safety
    /// A block lies there.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    unsafe fn decode(at: *const u8) -> Block {
        // SAFETY: as the caller says.
        let (first, last, codes) = unsafe {
            let codes = [_mm512_loadu_si512(at.add(16).cast()), _mm512_loadu_si512(at.add(80).cast())];
            (at.add(4).cast::<u64>().read_unaligned(), at.add(12).cast::<u32>().read_unaligned(), codes)
        };
        let (scales, mins) = scales_and_mins(first, last);
        let mins = _mm256_zextsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(mins.cast_signed())));
        let scales = _mm512_set1_epi64(scales.cast_signed());
        let nibble = _mm512_set1_epi8(15);
        let mut weights = [_mm512_setzero_si512(); 4];
        for half in 0..2 {
            weights[2 * half] = _mm512_and_si512(codes[half], nibble);
            weights[2 * half + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(codes[half]), nibble);
        }
        let mut factors = [_mm512_setzero_si512(); 4];
        for j in 0..4 {
            // Vector j has sub-blocks f and f + 2; of a dword, only the lowest byte is not zero.
            let f = (4 * (j / 2) + j % 2) as i32;
            let (low, high) = (_mm256_set1_epi32(!0xff | f), _mm256_set1_epi32(!0xff | (f + 2)));
            let place = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            factors[j] = _mm512_shuffle_epi8(scales, place);
        }
        Block { weights, factors, mins }
    }

    /// Sums of codes times sub-scales with each input, in 16 parts.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn isums<const N: usize>(&self, x: &[Input; N]) -> [__m512i; N] {
        let mut sums = [_mm512_setzero_si512(); N];
        for j in 0..4 {
            for c in 0..N {
                // SAFETY: a block of an input has so many codes.
                let codes = unsafe { _mm512_load_si512(x[c].codes.add(64 * j).cast()) };
                let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), self.weights[j], codes);
                // Sums of four products fit 16 bits, and the factor's upper halves are zero.
                sums[c] = _mm512_dpwssd_epi32(sums[c], part, self.factors[j]);
            }
        }
        sums
    }

    /// Sums of codes times minimums with each input, in eight parts.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn msums<const N: usize>(&self, x: &[Input; N]) -> [__m256i; N] {
        let mut sums = [_mm256_setzero_si256(); N];
        for c in 0..N {
            // SAFETY: a block of an input has so many sums.
            sums[c] = unsafe { _mm256_madd_epi16(self.mins, _mm256_load_si256(x[c].sums.cast())) };
        }
        sums
    }
}

/// The eight scales and the eight minimums of a block of `q4_k`, a byte each, from its 12 bytes.
#[inline]
fn scales_and_mins(first: u64, last: u32) -> (u64, u64) {
    let (a, b, c) = (first as u32, (first >> 32) as u32, last);
    let six = 0x3f3f_3f3f;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    // The upper two bits of the last four lie above those of the first four.
    let scales = join(a & six, c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030);
    let mins = join(b & six, c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030);
    (scales, mins)
}

/// Scale and scale of the minimums of a block of eight rows.
///
/// # Safety
/// The rows have this block.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn scales_of_8(rows: &[&[u8]; ROWS], b: usize) -> (__m256, __m256) {
    // SAFETY: as the caller says.
    let d = |i: usize| unsafe { rows[i].as_ptr().add(BLOCK * b).cast::<i32>().read_unaligned() };
    let both = _mm256_setr_epi32(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7));
    let dmin = _mm256_cvtepi32_epi16(_mm256_srli_epi32::<16>(both));
    (_mm256_cvtph_ps(_mm256_cvtepi32_epi16(both)), _mm256_cvtph_ps(dmin))
}

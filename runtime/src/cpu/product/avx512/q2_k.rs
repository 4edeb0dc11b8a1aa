//! `q2_k` times `q8_k`, 16 weight rows side by side: a lane of a vector is a row.
//!
//! A block of 16 rows is transposed when it is read. Four codes of each row then lie in a dword of their
//! row's lane, and are multiplied with four codes of the input that every lane gets alike: no sum runs
//! across lanes.
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved, view_mut};
use super::super::prepared::q8_k;
use super::super::{Isa, Job, Packing, ProductKernel};
use super::{Parts, check_machine, parts};
use ds4_ir::Scalar;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::mem::{MaybeUninit, transmute};

pub(super) static KERNELS: &[ProductKernel] = &[ProductKernel {
    name: "lanes",
    weight: Scalar::Q2K,
    packing: Packing::Stored,
    input: Scalar::Q8K,
    isa: Isa::Avx512,
    granule: 1,
    prepared_bytes: |width| parts(width).bytes,
    prepare,
    scratch_bytes: |_, columns| carved::<f32>(TILE * columns),
    run: |job, scratch| {
        check_machine();
        // SAFETY: the machine has the instructions.
        unsafe { run(job, scratch) }
    },
}];

/// Rows of a tile.
const TILE: usize = 16;
/// Bytes of a stored block.
const BLOCK: usize = 84;
/// Vectors of a tile's block: four codes of each row, two minimums of each row.
const WEIGHTS: usize = 64;
const MINS: usize = 8;

/// Codes lie in their order; a sum is of 16 codes, of each four in the order 0 2 1 3.
fn prepare(row: &[u8], width: usize, out: &mut [u8]) {
    let parts = parts(width);
    let (codes, rest) = out[..parts.bytes].split_at_mut(parts.scales);
    let (scales, sums) = rest.split_at_mut(parts.sums - parts.scales);
    let (codes, scales, sums) = (view_mut::<i8>(codes), view_mut::<f32>(scales), view_mut::<i16>(sums));
    let blocks = codes.as_chunks_mut::<256>().0.iter_mut().zip(scales).zip(sums.as_chunks_mut::<16>().0);
    for (b, ((d, x), ((codes, scale), sums))) in q8_k(row).zip(blocks).enumerate() {
        let n = (width - 256 * b).min(256);
        codes[..n].copy_from_slice(&x[..n]);
        codes[n..].fill(0);
        *scale = d;
        for (i, codes) in codes.as_chunks::<16>().0.iter().enumerate() {
            let sum: i16 = codes.iter().map(|x| i16::from(*x)).sum();
            sums[i / 4 * 4 + [0, 2, 1, 3][i % 4]] = sum;
        }
    }
}

/// A block of an input row.
#[derive(Clone, Copy)]
struct Input {
    codes: *const i32,
    sums: *const i32,
    scale: f32,
}

impl Input {
    /// Codes 4`i` and following in every lane.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn codes(&self, i: usize) -> __m512i {
        debug_assert!(i < WEIGHTS);
        // SAFETY: a block has so many.
        _mm512_set1_epi32(unsafe { *self.codes.add(i) })
    }

    /// Sums 2`i` and 2`i` + 1 in every lane.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn sums(&self, i: usize) -> __m512i {
        debug_assert!(i < MINS);
        // SAFETY: a block has so many.
        _mm512_set1_epi32(unsafe { *self.sums.add(i) })
    }
}

/// A block of all columns of a job.
#[derive(Clone, Copy)]
struct At<'a> {
    parts: Parts,
    job: &'a Job<'a>,
    b: usize,
}

impl At<'_> {
    /// Of `N` columns from `first` on.
    #[inline]
    fn inputs<const N: usize>(self, first: usize) -> [Input; N] {
        let At { parts, job, b } = self;
        let input = |c: usize| {
            let x = job.input(job.columns[first + c]);
            assert!(x.len() >= parts.bytes && b < parts.blocks, "a prepared row");
            // SAFETY: the row has this block, and its scales are aligned.
            let scale = unsafe { *x.as_ptr().add(parts.scales).cast::<f32>().add(b) };
            Input {
                codes: x[256 * b..].as_ptr().cast(),
                sums: x[parts.sums + 32 * b..].as_ptr().cast(),
                scale,
            }
        };
        // A loop, for `array::from_fn` is a call here.
        let mut x = [input(0); N];
        for c in 1..N {
            x[c] = input(c);
        }
        x
    }
}

#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn run(job: &Job<'_>, mut scratch: &mut [u8]) {
    let n = job.columns.len();
    let sums = carve::<f32>(&mut scratch, TILE * n);
    let parts = parts(job.m.width);
    for from in job.rows.clone().step_by(TILE) {
        sums.fill(0.0);
        let rows = job.weight_rows::<TILE>(from);
        let next = Ahead(rows[0].as_ptr()).at(TILE * rows[0].len());
        for b in 0..parts.blocks {
            // The rows that follow come in the order in which they lie.
            let ahead = next.at(TILE * BLOCK * b);
            if n > 1 {
                ahead.all(TILE * BLOCK);
            }
            let at = At { parts, job, b };
            // SAFETY: the rows have this block.
            let block = unsafe { Block::read(&rows, b) };
            match n {
                1 => {
                    // Asked for plane by plane, 16 in all.
                    ahead.page(TILE * BLOCK);
                    let lines = const { (TILE * BLOCK).div_ceil(64) };
                    let ask =
                        |plane| (lines * plane / 16..lines * (plane + 1) / 16).for_each(|n| ahead.line(n));
                    block.few::<1>(at, sums, ask);
                }
                2 => block.few::<2>(at, sums, |_| ()),
                3 => block.few::<3>(at, sums, |_| ()),
                4 => block.few::<4>(at, sums, |_| ()),
                5 => block.few::<5>(at, sums, |_| ()),
                6 => block.few::<6>(at, sums, |_| ()),
                7 => block.few::<7>(at, sums, |_| ()),
                // From here on decoding into memory pays.
                _ => block.many(at, sums),
            }
        }
        let rows = TILE.min(job.rows.end - from);
        for (column, sums) in job.columns.iter().zip(sums.chunks_exact(TILE)) {
            job.write(*column, from, &sums[..rows]);
        }
    }
}

/// A block of 16 rows; in vectors a row has a lane.
struct Block<'a> {
    rows: &'a [&'a [u8]; TILE],
    b: usize,
    /// Scale and minimum, four bits each, of sub-blocks 4i to 4i + 3.
    scales: [__m512i; 4],
    d: __m512,
    dmin: __m512,
}

impl<'a> Block<'a> {
    /// # Safety
    /// The rows have block `b`.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    unsafe fn read(rows: &'a [&'a [u8]; TILE], b: usize) -> Block<'a> {
        // SAFETY: as the caller says.
        unsafe {
            let d = |i: usize| rows[i].as_ptr().add(BLOCK * b + 80).cast::<i32>().read_unaligned();
            let low = _mm256_setr_epi32(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7));
            let high = _mm256_setr_epi32(d(8), d(9), d(10), d(11), d(12), d(13), d(14), d(15));
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            let half = |v| _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
            let (d, dmin) = (half(both), half(_mm512_srli_epi32::<16>(both)));
            Block { rows, b, scales: transposed(rows, BLOCK * b), d, dmin }
        }
    }

    /// Bytes 16`q` and following of the rows' codes.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn quarter(&self, q: usize) -> [__m512i; 4] {
        // SAFETY: the rows have this block, and the quarter is one of four.
        unsafe { transposed(self.rows, BLOCK * self.b + 16 + 16 * q) }
    }

    /// The scale of sub-block `s` in the lowest bits of each lane.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn scale(&self, s: usize) -> __m512i {
        let by = _mm_cvtsi32_si128(8 * (s % 4) as i32);
        _mm512_and_si512(_mm512_srl_epi32(self.scales[s / 4], by), _mm512_set1_epi32(15))
    }

    /// The minimums of two sub-blocks, i16: 0 2, 1 3, 4 6, 5 7 and so on.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn mins(&self) -> [__m512i; MINS] {
        let mut mins = [_mm512_setzero_si512(); MINS];
        let nibble = _mm512_set1_epi32(0x000f_000f);
        for i in 0..MINS / 2 {
            mins[2 * i] = _mm512_and_si512(_mm512_srli_epi32::<4>(self.scales[i]), nibble);
            mins[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi32::<12>(self.scales[i]), nibble);
        }
        mins
    }

    /// Times `N` columns, all there are; `ask` is called before each of the 16 planes.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn few<const N: usize>(&self, at: At<'_>, sums: &mut [f32], ask: impl Fn(usize)) {
        let x = &at.inputs::<N>(0);
        let mut isums = [_mm512_setzero_si512(); N];
        for q in 0..4 {
            let codes = self.quarter(q);
            ask(4 * q);
            self.plane::<N, 0>(q, &codes, x, &mut isums);
            ask(4 * q + 1);
            self.plane::<N, 1>(q, &codes, x, &mut isums);
            ask(4 * q + 2);
            self.plane::<N, 2>(q, &codes, x, &mut isums);
            ask(4 * q + 3);
            self.plane::<N, 3>(q, &codes, x, &mut isums);
        }
        self.add(isums, &self.mins(), x, sums);
    }

    /// Adds products of plane `P` of a quarter times their scale.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn plane<const N: usize, const P: usize>(
        &self,
        q: usize,
        codes: &[__m512i; 4],
        x: &[Input; N],
        isums: &mut [__m512i; N],
    ) {
        let s = sub_block(q, P);
        let (codes, scale) = (plane::<P>(codes), self.scale(s));
        for c in 0..N {
            let mut dot = _mm512_setzero_si512();
            for i in 0..4 {
                dot = _mm512_dpbusd_epi32(dot, codes[i], x[c].codes(4 * s + i));
            }
            // Sums of 16 products fit 16 bits, and the scale's upper halves are zero.
            isums[c] = _mm512_dpwssd_epi32(isums[c], dot, scale);
        }
    }

    /// Times all columns, many at once; weights are decoded once, into memory.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn many(&self, at: At<'_>, sums: &mut [f32]) {
        let mut weights = [const { MaybeUninit::<__m512i>::uninit() }; WEIGHTS];
        for q in 0..4 {
            let codes = self.quarter(q);
            self.decode::<0>(q, &codes, &mut weights);
            self.decode::<1>(q, &codes, &mut weights);
            self.decode::<2>(q, &codes, &mut weights);
            self.decode::<3>(q, &codes, &mut weights);
        }
        let weights = black_box(&weights);
        // SAFETY: each is written above.
        let weights = unsafe { transmute::<&[MaybeUninit<__m512i>; WEIGHTS], &[__m512i; WEIGHTS]>(weights) };
        let mins = self.mins();
        let (n, mut first) = (at.job.columns.len(), 0);
        while first < n {
            let left = n - first;
            let (x, sums) = (first, &mut sums[TILE * first..]);
            first += match left.div_ceil(left.div_ceil(12)) {
                12 => self.multiply::<12>(weights, &mins, &at.inputs(x), sums),
                11 => self.multiply::<11>(weights, &mins, &at.inputs(x), sums),
                10 => self.multiply::<10>(weights, &mins, &at.inputs(x), sums),
                9 => self.multiply::<9>(weights, &mins, &at.inputs(x), sums),
                8 => self.multiply::<8>(weights, &mins, &at.inputs(x), sums),
                7 => self.multiply::<7>(weights, &mins, &at.inputs(x), sums),
                6 => self.multiply::<6>(weights, &mins, &at.inputs(x), sums),
                _ => self.multiply::<5>(weights, &mins, &at.inputs(x), sums),
            };
        }
    }

    /// Plane `P` of a quarter: codes times their scales.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn decode<const P: usize>(
        &self,
        q: usize,
        codes: &[__m512i; 4],
        weights: &mut [MaybeUninit<__m512i>; WEIGHTS],
    ) {
        let s = sub_block(q, P);
        let (codes, scale) = (plane::<P>(codes), self.scale(s));
        let scale = _mm512_or_si512(scale, _mm512_slli_epi32::<16>(scale));
        for i in 0..4 {
            // Each byte's product stays below 256.
            weights[4 * s + i].write(_mm512_mullo_epi16(codes[i], scale));
        }
    }

    /// Weights times `N` columns; answers `N`.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn multiply<const N: usize>(
        &self,
        weights: &[__m512i; WEIGHTS],
        mins: &[__m512i; MINS],
        x: &[Input; N],
        sums: &mut [f32],
    ) -> usize {
        let mut isums = [_mm512_setzero_si512(); N];
        for i in 0..WEIGHTS {
            for c in 0..N {
                isums[c] = _mm512_dpbusd_epi32(isums[c], weights[i], x[c].codes(i));
            }
        }
        self.add(isums, mins, x, sums);
        N
    }

    /// Adds the terms of the block to the sums of the columns.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn add<const N: usize>(
        &self,
        isums: [__m512i; N],
        mins: &[__m512i; MINS],
        x: &[Input; N],
        sums: &mut [f32],
    ) {
        assert!(sums.len() >= N * TILE);
        for c in 0..N {
            let mut msum = _mm512_setzero_si512();
            for i in 0..MINS {
                msum = _mm512_dpwssd_epi32(msum, mins[i], x[c].sums(i));
            }
            let dx = _mm512_set1_ps(x[c].scale);
            // SAFETY: room for a tile of each column, asserted.
            unsafe {
                let at = sums.as_mut_ptr().add(TILE * c);
                let acc = _mm512_loadu_ps(at);
                let acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isums[c]), _mm512_mul_ps(self.d, dx), acc);
                let acc = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(msum), _mm512_mul_ps(self.dmin, dx), acc);
                _mm512_storeu_ps(at, acc);
            }
        }
    }
}

/// The sub-block whose codes are bits 2`p` and following of bytes 16`q` and following.
#[inline]
const fn sub_block(q: usize, p: usize) -> usize {
    8 * (q / 2) + q % 2 + 2 * p
}

/// Bits 2`P` and following of each byte.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn plane<const P: usize>(codes: &[__m512i; 4]) -> [__m512i; 4] {
    let mut plane = [_mm512_setzero_si512(); 4];
    for i in 0..4 {
        let bits = _mm512_srl_epi32(codes[i], _mm_cvtsi32_si128(2 * P as i32));
        plane[i] = _mm512_and_si512(bits, _mm512_set1_epi8(3));
    }
    plane
}

/// Four dwords of each row from byte `at` on, a row in each lane.
///
/// # Safety
/// The rows have them.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn transposed(rows: &[&[u8]; TILE], at: usize) -> [__m512i; 4] {
    // SAFETY: as the caller says.
    let row = |i: usize| unsafe { _mm_loadu_si128(rows[i].as_ptr().add(at).cast()) };
    let every_fourth = |i: usize| {
        let v = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(row(i)), row(i + 4));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(v, row(i + 8)), row(i + 12))
    };
    let v = [every_fourth(0), every_fourth(1), every_fourth(2), every_fourth(3)];
    let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    [
        _mm512_unpacklo_epi64(a, c),
        _mm512_unpackhi_epi64(a, c),
        _mm512_unpacklo_epi64(b, d),
        _mm512_unpackhi_epi64(b, d),
    ]
}

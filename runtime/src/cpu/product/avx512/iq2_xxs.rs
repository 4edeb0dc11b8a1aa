//! `iq2_xxs` times `q8_k`, eight weight rows side by side.
//!
//! A row is cut into units of two blocks. While a unit of eight rows is multiplied vector by vector, the
//! next one is decoded row by row: multiplying keeps other parts of the core busy than decoding.
use super::super::ahead::Ahead;
use super::super::bytes::{carve, carved, view_mut};
use super::super::prepared::q8_k;
use super::super::{Isa, Job, Packing, ProductKernel};
use super::{check_machine, joined, opaque, settled, sums_of_4_wide};
use ds4_ir::Scalar;
use ds4_ir::formats::IQ2XXS_GRID;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

pub(super) static KERNELS: &[ProductKernel] = &[ProductKernel {
    name: "units",
    weight: Scalar::Iq2Xxs,
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
/// Most columns that are multiplied side by side: sums of all rows and columns lie in registers.
const FEW: usize = 5;
/// Rows whose sums lie in registers.
const HALF: usize = ROWS / 2;
/// Bytes of a stored block, and of a unit.
const BLOCK: usize = 66;
const UNIT: usize = 2 * BLOCK;

/// Where the parts of a prepared row lie:
///
/// ```text
/// codes   i8, 512 per unit in the order of the unit's vectors     each part starts at a
/// scales  f32 per block                                           multiple of 64 bytes
/// sums    i32 per 32 codes, times -64, 16 per unit
/// ```
#[derive(Clone, Copy)]
struct Parts {
    blocks: usize,
    units: usize,
    scales: usize,
    sums: usize,
    bytes: usize,
}

const fn parts(width: usize) -> Parts {
    let blocks = width.div_ceil(256);
    let units = blocks.div_ceil(2);
    let scales = 512 * units;
    let sums = scales + (4 * blocks).next_multiple_of(64);
    Parts { blocks, units, scales, sums, bytes: sums + 64 * units }
}

fn prepare(row: &[u8], width: usize, out: &mut [u8]) {
    let parts = parts(width);
    let out = &mut out[..parts.bytes];
    out.fill(0);
    let (codes, rest) = out.split_at_mut(parts.scales);
    let (scales, sums) = rest.split_at_mut(parts.sums - parts.scales);
    let (codes, scales, sums) = (view_mut::<i8>(codes), view_mut::<f32>(scales), view_mut::<i32>(sums));
    for (b, (d, x)) in q8_k(row).enumerate() {
        scales[b] = d;
        let x = &x[..(width - 256 * b).min(256)];
        // Byte k of lane 8 (b mod 2) + g of vector j is element 32g + 8k + j.
        let codes = &mut codes[512 * (b / 2)..][..512];
        for (i, x) in x.iter().enumerate() {
            codes[64 * (i % 8) + 4 * (8 * (b % 2) + i / 32) + i / 8 % 4] = *x;
        }
        for (sum, x) in sums[8 * b..].iter_mut().zip(x.chunks(32)) {
            *sum = -64 * x.iter().map(|x| i32::from(*x)).sum::<i32>();
        }
    }
}

/// A unit of an input row.
#[derive(Clone, Copy)]
struct Input {
    codes: *const u8,
    sums: __m512i,
    scales: [f32; 2],
}

/// Whether a unit has a second block.
fn has_two(parts: Parts, unit: usize) -> bool {
    2 * unit + 1 < parts.blocks
}

#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn run(job: &Job<'_>, mut scratch: &mut [u8]) {
    let n = job.columns.len();
    let sums = carve::<f32>(&mut scratch, ROWS * n);
    let parts = parts(job.m.width);
    assert!(job.stride >= parts.bytes, "prepared rows");
    let mut rows = job.weight_rows::<ROWS>(job.rows.start);
    let (mut now, mut then): (Units, Units) = ([MaybeUninit::uninit(); ROWS], [MaybeUninit::uninit(); ROWS]);
    let (mut now, mut then) = (&mut now, &mut then);
    let first = Next { rows: &rows, unit: 0, two: has_two(parts, 0), ahead: ahead(&rows, 0) };
    for i in 0..ROWS {
        // SAFETY: rows have a first unit.
        now[i].write(unsafe { first.decoded(i) });
    }
    for from in job.rows.clone().step_by(ROWS) {
        sums.fill(0.0);
        let following = job.weight_rows::<ROWS>(from + ROWS);
        for unit in 0..parts.units {
            let (rows_next, next) = if unit + 1 < parts.units { (&rows, unit + 1) } else { (&following, 0) };
            let next =
                Next { rows: rows_next, unit: next, two: has_two(parts, next), ahead: ahead(&rows, unit) };
            let at = At { job, parts, unit };
            // SAFETY: the rows have this unit.
            let scales = unsafe { scales_of_8(&rows, unit, has_two(parts, unit)) };
            let mut first = 0;
            while first < n {
                // As even as can be: a column alone takes longest.
                let left = n - first;
                let step = left.div_ceil(left.div_ceil(FEW));
                let sums = &mut sums[ROWS * first..];
                // SAFETY: the present units are decoded, and the rows have the next ones.
                unsafe {
                    match (step, first) {
                        (1, _) => at.step::<1, true>(now, then, &next, first, scales, sums),
                        (2, 0) => at.step::<2, true>(now, then, &next, first, scales, sums),
                        (3, 0) => at.step::<3, true>(now, then, &next, first, scales, sums),
                        (4, 0) => at.step::<4, true>(now, then, &next, first, scales, sums),
                        (_, 0) => at.step::<FEW, true>(now, then, &next, first, scales, sums),
                        (2, _) => at.step::<2, false>(now, then, &next, first, scales, sums),
                        (3, _) => at.step::<3, false>(now, then, &next, first, scales, sums),
                        (4, _) => at.step::<4, false>(now, then, &next, first, scales, sums),
                        _ => at.step::<FEW, false>(now, then, &next, first, scales, sums),
                    }
                }
                first += step;
            }
            (now, then) = (then, now);
        }
        let n = ROWS.min(job.rows.end - from);
        for (column, sums) in job.columns.iter().zip(sums.chunks_exact(ROWS)) {
            job.write(*column, from, &sums[..n]);
        }
        rows = following;
    }
}

/// The unit's share of the rows that follow, in the order in which they lie.
fn ahead(rows: &[&[u8]; ROWS], unit: usize) -> Ahead {
    // What is decoded is ahead of what is multiplied by a unit.
    Ahead(rows[0].as_ptr()).at(ROWS * (rows[0].len() + UNIT * (unit + 1)))
}

/// A unit of eight rows as far as it is decoded.
type Units = [MaybeUninit<Coded>; ROWS];

/// A unit of eight rows that is decoded next.
struct Next<'a> {
    rows: &'a [&'a [u8]; ROWS],
    unit: usize,
    /// Whether it has a second block.
    two: bool,
    /// What is asked for meanwhile.
    ahead: Ahead,
}

impl Next<'_> {
    /// Of row `i`.
    ///
    /// # Safety
    /// The rows have this unit.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    unsafe fn decoded(&self, i: usize) -> Coded {
        // SAFETY: as the caller says.
        unsafe { Coded::of(self.rows[i].as_ptr().add(UNIT * self.unit), self.two) }
    }
}

/// A unit of all columns of a job.
#[derive(Clone, Copy)]
struct At<'a> {
    job: &'a Job<'a>,
    parts: Parts,
    unit: usize,
}

impl At<'_> {
    /// Of column `c`.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn input(self, c: usize) -> Input {
        let At { job, parts, unit } = self;
        let x = job.input(job.columns[c]);
        assert!(x.len() >= parts.bytes && unit < parts.units, "a prepared row");
        // SAFETY: the row has this unit; what lies in it is aligned.
        unsafe {
            let scale = |b: usize| *x.as_ptr().add(parts.scales).cast::<f32>().add(b.min(parts.blocks - 1));
            Input {
                codes: x.as_ptr().add(512 * unit),
                sums: _mm512_load_si512(x.as_ptr().add(parts.sums + 64 * unit).cast()),
                scales: [scale(2 * unit), scale(2 * unit + 1)],
            }
        }
    }

    /// Adds a unit's terms to the sums of `N` columns from `first` on, and decodes the next unit if it
    /// says so.
    ///
    /// # Safety
    /// The present unit is decoded, and the rows have the next one.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    unsafe fn step<const N: usize, const NEXT: bool>(
        self,
        now: &Units,
        then: &mut Units,
        next: &Next<'_>,
        first: usize,
        scales: [__m256; 2],
        sums: &mut [f32],
    ) {
        let mut x = [self.input(first); N];
        for c in 1..N {
            x[c] = self.input(first + c);
        }
        if NEXT {
            next.ahead.page(ROWS * UNIT);
            // The two halves ask for the lines before this one.
            next.ahead.line(const { ROWS * UNIT / 64 });
        }
        // SAFETY: as the caller says.
        let halves = unsafe {
            [self.half::<N, NEXT>(0, now, then, next, &x), self.half::<N, NEXT>(HALF, now, then, next, &x)]
        };
        for c in 0..N {
            self.add([halves[0][c], halves[1][c]], scales, &x[c], &mut sums[ROWS * c..]);
        }
    }

    /// Sums of half of the rows from `row` on, as [`add`] takes them.
    ///
    /// # Safety
    /// As [`At::step`].
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    unsafe fn half<const N: usize, const NEXT: bool>(
        self,
        row: usize,
        now: &Units,
        then: &mut Units,
        next: &Next<'_>,
        x: &[Input; N],
    ) -> [__m512i; N] {
        let mut isums = [[_mm512_setzero_si512(); HALF]; N];
        for c in 0..N {
            isums[c] = [x[c].sums; HALF];
        }
        // SAFETY: as the caller says; a unit of an input has eight vectors of codes.
        unsafe {
            for p in 0..4 {
                let p = opaque(p) % 4;
                for k in 0..2 {
                    if NEXT {
                        next.ahead.line(2 * (row + p) + k);
                    }
                    let values = load(&VALUES[p][k]);
                    let mut codes = [_mm512_setzero_si512(); N];
                    for c in 0..N {
                        codes[c] = _mm512_load_si512(x[c].codes.add(128 * p + 64 * k).cast());
                    }
                    for i in 0..HALF {
                        let pairs = now[row + i].assume_init_ref().pairs[p];
                        let weights = settled(_mm512_permutexvar_epi8(pairs, values));
                        for c in 0..N {
                            isums[c][i] = _mm512_dpbusd_epi32(isums[c][i], weights, codes[c]);
                        }
                    }
                }
                if NEXT {
                    then[row + p].write(next.decoded(row + p));
                }
            }
            let mut sums = [_mm512_setzero_si512(); N];
            for c in 0..N {
                for i in 0..HALF {
                    isums[c][i] = _mm512_mullo_epi32(isums[c][i], now[row + i].assume_init_ref().factors);
                }
                sums[c] = sums_of_4_wide(isums[c]);
            }
            sums
        }
    }

    /// Adds a unit's terms to the sums of eight rows, block by block.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn add(self, [low, high]: [__m512i; 2], scales: [__m256; 2], x: &Input, sums: &mut [f32]) {
        assert!(sums.len() >= ROWS);
        let isums = joined(low, high);
        let isums = [_mm512_castsi512_si256(isums), _mm512_extracti64x4_epi64::<1>(isums)];
        // SAFETY: room for eight, asserted.
        let mut acc = unsafe { _mm256_loadu_ps(sums.as_ptr()) };
        for b in 0..if has_two(self.parts, self.unit) { 2 } else { 1 } {
            let scale = _mm256_mul_ps(scales[b], _mm256_set1_ps(x.scales[b]));
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isums[b]), scale, acc);
        }
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), acc) }
    }
}

/// The scales of both blocks of a unit of eight rows, an eighth of them.
///
/// # Safety
/// The rows have this unit, and its second block if `two`.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn scales_of_8(rows: &[&[u8]; ROWS], unit: usize, two: bool) -> [__m256; 2] {
    // SAFETY: as the caller says.
    let halves = |from: usize| unsafe {
        let d = |i: usize| rows[i].as_ptr().add(UNIT * unit + from).cast::<i16>().read_unaligned();
        let d = _mm256_cvtph_ps(_mm_setr_epi16(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7)));
        _mm256_mul_ps(d, _mm256_set1_ps(0.125))
    };
    [halves(0), if two { halves(BLOCK) } else { _mm256_setzero_ps() }]
}

/// A unit of `iq2_xxs` whose indices are looked up: two codes and two signs in each byte of a vector.
#[derive(Clone, Copy)]
struct Coded {
    pairs: [__m512i; 4],
    /// Twice the scales plus one.
    factors: __m512i,
}

impl Coded {
    /// # Safety
    /// A block lies there, and another behind it if `two`.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    unsafe fn of(at: *const u8, two: bool) -> Coded {
        // SAFETY: as the caller says; the mask leaves out a block that is not there.
        let (a, b) = unsafe {
            let mask = if two { 0xff } else { 0 };
            (_mm512_loadu_si512(at.add(2).cast()), _mm512_maskz_loadu_epi64(mask, at.wrapping_add(68).cast()))
        };
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let indices = _mm512_permutex2var_epi32(a, even, b);
        let signs = _mm512_permutex2var_epi32(a, _mm512_or_si512(even, _mm512_set1_epi32(1)), b);
        // Bit 27 belongs to a sign.
        let factors = _mm512_or_si512(_mm512_srli_epi32::<27>(signs), _mm512_set1_epi32(1));
        // Four fields of seven bits to bytes, then bit 7 the parity of the others.
        let fields = _mm512_set1_epi64(0x352e_2720_150e_0700);
        let signs = _mm512_multishift_epi64_epi8(fields, signs);
        let signs = _mm512_gf2p8affine_epi64_epi8::<0>(signs, _mm512_set1_epi64(0x0102_0408_1020_407f));
        let upper = _mm512_movepi8_mask(indices);
        let codes = |table: &[[u8; 64]; 4]| {
            let low = _mm512_permutex2var_epi8(load(&table[0]), indices, load(&table[1]));
            let high = _mm512_permutex2var_epi8(load(&table[2]), indices, load(&table[3]));
            _mm512_mask_blend_epi8(upper, low, high)
        };
        let (c, d) = (codes(&CODES[0]), codes(&CODES[1]));
        // Bits of `codes` where the mask has ones, else of `signs`.
        let merge =
            |mask: i8, codes, signs| _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi8(mask), codes, signs);
        let pairs = [
            merge(0x3c, _mm512_srli_epi16::<2>(c), signs),
            merge(0x33, d, signs),
            merge(0x0f, c, signs),
            merge(0x33, _mm512_srli_epi16::<2>(d), _mm512_srli_epi16::<4>(signs)),
        ];
        Coded { pairs, factors }
    }
}

#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn load(table: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
}

/// Two bits per magnitude, by index: 0, 1, 2 for 8, 25, 43. The first table has those of positions
/// 4 5 0 1, the second those of 2 6 3 7, lowest bits first.
static CODES: [[[u8; 64]; 4]; 2] = {
    let order = [[4, 5, 0, 1], [2, 6, 3, 7]];
    let mut tables = [[[0; 64]; 4]; 2];
    let mut i = 0;
    while i < 2 * 256 * 4 {
        let (t, index, k) = (i / 1024, i / 4 % 256, i % 4);
        let code = match IQ2XXS_GRID[index][order[t][k]] {
            8 => 0,
            25 => 1,
            _ => 2,
        };
        tables[t][index / 64][index % 64] |= code << (2 * k);
        i += 1;
    }
    tables
};

/// The value of the first and the second position of each pair, plus 64, by six bits: two codes and two
/// signs. The low bits of codes and signs lie at these places.
static VALUES: [[[u8; 64]; 2]; 4] = {
    let places = [[[2, 0], [4, 1]], [[0, 2], [4, 3]], [[0, 4], [2, 5]], [[0, 2], [4, 3]]];
    let mut tables = [[[0; 64]; 2]; 4];
    let mut i = 0;
    while i < 4 * 2 * 64 {
        let (p, k, bits) = (i / 128, i / 64 % 2, i % 64);
        let [code, sign] = places[p][k];
        let magnitude = [8, 25, 43, 0][bits >> code & 3];
        tables[p][k][bits] = if bits >> sign & 1 == 1 { 64 - magnitude } else { 64 + magnitude };
        i += 1;
    }
    tables
};

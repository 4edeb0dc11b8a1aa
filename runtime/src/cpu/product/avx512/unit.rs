//! Units of a row of 256-code blocks: their bytes as vectors, and the input's in the same order.
use super::super::bytes::view_mut;
use super::super::prepared::q8_k;
use ds4_ir::formats::IQ2XXS_GRID;
use std::arch::x86_64::*;

pub(super) const IQ2_XXS: u8 = 0;
pub(super) const Q2_K: u8 = 1;
pub(super) const Q4_K: u8 = 2;

/// Where the parts of a prepared row lie:
///
/// ```text
/// codes   i8, 256 or 512 per unit in the order of the unit's vectors     each part starts at a
/// scales  f32 per block                                                  multiple of 64 bytes
/// sums    64 bytes per unit of iq2_xxs: i32 per 32 codes, times -64
///         32 bytes per unit of q2_k and q4_k: i16 per 16 or 32 codes
/// ```
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) blocks: usize,
    pub(super) units: usize,
    scales: usize,
    sums: usize,
    pub(super) bytes: usize,
}

pub(super) const fn parts<const F: u8>(width: usize) -> Parts {
    let blocks = width.div_ceil(256);
    let units = if F == IQ2_XXS { blocks.div_ceil(2) } else { blocks };
    let scales = units * if F == IQ2_XXS { 512 } else { 256 };
    let sums = scales + (4 * blocks).next_multiple_of(64);
    let bytes = sums + units * if F == IQ2_XXS { 64 } else { 32 };
    Parts { blocks, units, scales, sums, bytes: bytes.next_multiple_of(64) }
}

/// A unit of an input row.
#[derive(Clone, Copy)]
pub(super) struct Input {
    codes: *const u8,
    sums: *const u8,
    pub(super) scales: [f32; 2],
    pub(super) blocks: usize,
}

impl Parts {
    /// Unit `unit` of a prepared row.
    #[inline]
    pub(super) fn unit<const F: u8>(&self, x: &[u8], unit: usize) -> Input {
        assert!(x.len() >= self.bytes && unit < self.units, "a prepared row");
        let scale = |b: usize| {
            let b = b.min(self.blocks - 1);
            // SAFETY: one of the row's scales, which are aligned.
            unsafe { *x.as_ptr().add(self.scales).cast::<f32>().add(b) }
        };
        let (codes, sums) = if F == IQ2_XXS { (512, 64) } else { (256, 32) };
        let first = if F == IQ2_XXS { 2 * unit } else { unit };
        Input {
            codes: x[codes * unit..].as_ptr(),
            sums: x[self.sums + sums * unit..].as_ptr(),
            scales: [scale(first), scale(first + 1)],
            blocks: (self.blocks - first).min(2),
        }
    }
}

/// Where element `i` of block `b` lies among the codes.
const fn place<const F: u8>(b: usize, i: usize) -> usize {
    match F {
        // Byte k of lane 8·(b mod 2) + g of vector j is element 32g + 8k + j.
        IQ2_XXS => 512 * (b / 2) + 64 * (i % 8) + 4 * (8 * (b % 2) + i / 32) + i / 8 % 4,
        // Vector j holds elements 32j and following of both halves.
        Q2_K => 256 * b + 64 * (i / 32 % 4) + 32 * (i / 128) + i % 32,
        // Vectors: sub-blocks 0 2, 1 3, 4 6, 5 7.
        _ => 256 * b + 128 * (i / 128) + 64 * (i / 32 % 2) + 32 * (i / 64 % 2) + i % 32,
    }
}

pub(super) fn prepare<const F: u8>(row: &[u8], width: usize, out: &mut [u8]) {
    let parts = parts::<F>(width);
    let out = &mut out[..parts.bytes];
    out.fill(0);
    let (codes, rest) = out.split_at_mut(parts.scales);
    let (scales, sums) = rest.split_at_mut(parts.sums - parts.scales);
    let (codes, scales) = (view_mut::<i8>(codes), view_mut::<f32>(scales));
    for (b, (d, x)) in q8_k(row).enumerate() {
        scales[b] = d;
        let n = (width - 256 * b).min(256);
        for (i, x) in x[..n].iter().enumerate() {
            codes[place::<F>(b, i)] = *x;
        }
        let sum = |from: usize, n_sum: usize| -> i32 {
            x[..n].iter().skip(from).take(n_sum).map(|x| i32::from(*x)).sum()
        };
        if F == IQ2_XXS {
            let sums = &mut view_mut::<i32>(sums)[8 * b..][..8];
            (0..8).for_each(|g| sums[g] = -64 * sum(32 * g, 32));
        } else {
            let (count, size) = if F == Q2_K { (16, 16) } else { (8, 32) };
            let sums = &mut view_mut::<i16>(sums)[16 * b..][..count];
            (0..count).for_each(|g| sums[g] = sum(size * g, size) as i16);
        }
    }
}

/// A decoded unit of a weight row.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    /// Unsigned bytes: `iq2_xxs` magnitudes with their sign plus 64, `q2_k` codes times their scale,
    /// `q4_k` codes.
    weights: [__m512i; 8],
    /// What sums are multiplied by: `iq2_xxs` has one vector for all, `q4_k` one per vector of weights.
    factors: [__m512i; 4],
    /// Minimums, i16.
    mins: __m256i,
}

impl Unit {
    /// Bytes of a stored unit.
    pub(super) const fn bytes<const F: u8>() -> usize {
        match F {
            IQ2_XXS => 132,
            Q2_K => 84,
            _ => 144,
        }
    }

    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    pub(super) fn zero() -> Unit {
        let zero = _mm512_setzero_si512();
        Unit { weights: [zero; 8], factors: [zero; 4], mins: _mm256_setzero_si256() }
    }

    /// Sums of codes times sub-scales with each input, in 16 parts; those of the second block of
    /// `iq2_xxs` in the upper eight.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    pub(super) fn isums<const F: u8, const N: usize>(&self, x: &[Input; N]) -> [__m512i; N] {
        if F == IQ2_XXS {
            return iq2_xxs_isums(|j| self.weights[j], self.factors[0], x);
        }
        let mut sums = [_mm512_setzero_si512(); N];
        for j in 0..4 {
            for c in 0..N {
                // SAFETY: a unit of an input has so many codes.
                let codes = unsafe { _mm512_load_si512(x[c].codes.add(64 * j).cast()) };
                sums[c] = if F == Q2_K {
                    _mm512_dpbusd_epi32(sums[c], self.weights[j], codes)
                } else {
                    let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), self.weights[j], codes);
                    // Sums of four products fit 16 bits, and the factor's upper halves are zero.
                    _mm512_dpwssd_epi32(sums[c], part, self.factors[j])
                };
            }
        }
        sums
    }

    /// Sums of codes times minimums with each input, in eight parts.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    pub(super) fn msums<const N: usize>(&self, x: &[Input; N]) -> [__m256i; N] {
        let mut sums = [_mm256_setzero_si256(); N];
        for c in 0..N {
            // SAFETY: a unit of an input has so many sums.
            sums[c] = unsafe { _mm256_madd_epi16(self.mins, _mm256_load_si256(x[c].sums.cast())) };
        }
        sums
    }
}

/// Decodes a unit of a row of `blocks` blocks.
///
/// # Safety
/// The row has this unit.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
pub(super) unsafe fn decode<const F: u8>(row: &[u8], unit: usize, blocks: usize) -> Unit {
    let at = row.as_ptr().wrapping_add(Unit::bytes::<F>() * unit);
    // SAFETY: as the caller says.
    unsafe {
        match F {
            IQ2_XXS => decode_iq2_xxs(at, 2 * unit + 1 < blocks),
            Q2_K => decode_q2_k(at),
            _ => decode_q4_k(at),
        }
    }
}

/// A unit of `iq2_xxs` whose indices are looked up: two codes and two signs in each byte of a vector.
#[derive(Clone, Copy)]
pub(super) struct Coded {
    pairs: [__m512i; 4],
    /// Twice the scales plus one.
    factors: __m512i,
}

impl Coded {
    /// # Safety
    /// A block lies there, and another behind it if `two`.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    pub(super) unsafe fn of(at: *const u8, two: bool) -> Coded {
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

    /// Vector `j` of the unit's weights.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    fn weights(&self, j: usize) -> __m512i {
        _mm512_permutexvar_epi8(self.pairs[j / 2], load(&VALUES[j / 2][j % 2]))
    }

    /// As [`Unit::isums`].
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    pub(super) fn isums<const N: usize>(&self, x: &[Input; N]) -> [__m512i; N] {
        iq2_xxs_isums(|j| self.weights(j), self.factors, x)
    }
}

/// [`Unit::isums`] of `iq2_xxs` with vectors of weights and factors.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn iq2_xxs_isums<const N: usize>(
    weights: impl Fn(usize) -> __m512i,
    factors: __m512i,
    x: &[Input; N],
) -> [__m512i; N] {
    // Two chains for each: one would take longer than all else.
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    for c in 0..N {
        // SAFETY: a unit of an input has sums.
        sums[c][0] = unsafe { _mm512_load_si512(x[c].sums.cast()) };
    }
    for j in 0..8 {
        let w = weights(j);
        for c in 0..N {
            // SAFETY: a unit of an input has so many codes.
            let codes = unsafe { _mm512_load_si512(x[c].codes.add(64 * j).cast()) };
            let chain = &mut sums[c][if N > 2 { 0 } else { j % 2 }];
            *chain = _mm512_dpbusd_epi32(*chain, w, codes);
        }
    }
    let mut isums = [_mm512_setzero_si512(); N];
    for c in 0..N {
        isums[c] = _mm512_mullo_epi32(_mm512_add_epi32(sums[c][0], sums[c][1]), factors);
    }
    isums
}

#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn load(table: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
}

/// # Safety
/// A block lies there, and another behind it if `two`.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn decode_iq2_xxs(at: *const u8, two: bool) -> Unit {
    // SAFETY: as the caller says.
    let coded = unsafe { Coded::of(at, two) };
    let mut unit = Unit::zero();
    unit.factors[0] = coded.factors;
    for j in 0..8 {
        unit.weights[j] = coded.weights(j);
    }
    unit
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

/// A block of `q2_k` as it is stored.
struct Q2K {
    /// The 16 sub-scales, four times.
    scales: __m512i,
    mins: __m256i,
    /// Codes in the order of a unit's vectors.
    codes: [__m512i; 4],
}

impl Q2K {
    /// # Safety
    /// A block lies there.
    #[inline]
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
    unsafe fn read(at: *const u8) -> Q2K {
        // SAFETY: as the caller says.
        let (scales, codes) = unsafe { (_mm_loadu_si128(at.cast()), _mm512_loadu_si512(at.add(16).cast())) };
        let nibble = _mm_set1_epi8(15);
        let mins = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(scales), nibble));
        let scales = _mm512_broadcast_i32x4(_mm_and_si128(scales, nibble));
        let three = _mm512_set1_epi8(3);
        let codes = [
            _mm512_and_si512(codes, three),
            _mm512_and_si512(_mm512_srli_epi16::<2>(codes), three),
            _mm512_and_si512(_mm512_srli_epi16::<4>(codes), three),
            _mm512_and_si512(_mm512_srli_epi16::<6>(codes), three),
        ];
        Q2K { scales, mins, codes }
    }
}

/// Sums of a block of `q2_k` as [`Unit::isums`] and [`Unit::msums`] have them, without multiplying codes
/// and scales first: that pays for one input row.
///
/// # Safety
/// A block lies there.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
pub(super) unsafe fn q2_k_sums(at: *const u8, x: &Input) -> (__m512i, __m256i) {
    // SAFETY: as the caller says, and a unit of an input has so many codes and sums.
    unsafe {
        let block = Q2K::read(at);
        let mut sum = _mm512_setzero_si512();
        for j in 0..4 {
            let x = _mm512_load_si512(x.codes.add(64 * j).cast());
            let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), block.codes[j], x);
            // Of each four lanes the scale of one sub-block, its upper bytes zero.
            let first = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 8, 8, 8, 8, 9, 9, 9, 9);
            let place = _mm512_add_epi32(first, _mm512_set1_epi32(!0xff | (2 * j as i32)));
            let factor = _mm512_shuffle_epi8(block.scales, place);
            // Sums of four products fit 16 bits.
            sum = _mm512_dpwssd_epi32(sum, part, factor);
        }
        (sum, _mm256_madd_epi16(block.mins, _mm256_load_si256(x.sums.cast())))
    }
}

/// # Safety
/// A block lies there.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn decode_q2_k(at: *const u8) -> Unit {
    // SAFETY: as the caller says.
    let block = unsafe { Q2K::read(at) };
    let mut unit = Unit::zero();
    unit.mins = block.mins;
    // Of each 16 bytes, vector j has sub-block 8h + 2j + b: the scale s in every word, from which a
    // product makes the bytes 0 s 2s 3s, which the codes select.
    let multiples = _mm512_set1_epi32(770 << 16 | 256);
    let lane = _mm512_setr_epi64(0, 0, 1, 1, 8, 8, 9, 9);
    let words = _mm512_shuffle_epi8(lane, _mm512_set1_epi16(0));
    let words = _mm512_or_si512(words, _mm512_set1_epi16(0x8000u16 as i16));
    for j in 0..4 {
        let place = _mm512_add_epi8(words, _mm512_set1_epi16(2 * j as i16));
        let table = _mm512_mullo_epi16(_mm512_shuffle_epi8(block.scales, place), multiples);
        unit.weights[j] = _mm512_shuffle_epi8(table, block.codes[j]);
    }
    unit
}

/// # Safety
/// A block lies there.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
unsafe fn decode_q4_k(at: *const u8) -> Unit {
    let mut unit = Unit::zero();
    // SAFETY: as the caller says.
    let (first, last, codes) = unsafe {
        let codes = [_mm512_loadu_si512(at.add(16).cast()), _mm512_loadu_si512(at.add(80).cast())];
        (at.add(4).cast::<u64>().read_unaligned(), at.add(12).cast::<u32>().read_unaligned(), codes)
    };
    let (scales, mins) = q4_k_scales(first, last);
    unit.mins = _mm256_zextsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(mins.cast_signed())));
    let nibble = _mm512_set1_epi8(15);
    let scales = _mm512_set1_epi64(scales.cast_signed());
    for half in 0..2 {
        unit.weights[2 * half] = _mm512_and_si512(codes[half], nibble);
        unit.weights[2 * half + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(codes[half]), nibble);
    }
    for j in 0..4 {
        // Vector j has sub-blocks f and f + 2; of a dword, only the lowest byte is not zero.
        let f = (4 * (j / 2) + j % 2) as i32;
        let (low, high) = (_mm256_set1_epi32(!0xff | f), _mm256_set1_epi32(!0xff | (f + 2)));
        let place = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        unit.factors[j] = _mm512_shuffle_epi8(scales, place);
    }
    unit
}

/// The eight scales and the eight minimums of a block of `q4_k`, a byte each, from its 12 bytes.
#[inline]
fn q4_k_scales(first: u64, last: u32) -> (u64, u64) {
    let (a, b, c) = (first as u32, (first >> 32) as u32, last);
    let six = 0x3f3f_3f3f;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    // The upper two bits of the last four lie above those of the first four.
    let scales = join(a & six, c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030);
    let mins = join(b & six, c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030);
    (scales, mins)
}

/// First and second scale of a unit of eight rows: d of both blocks of `iq2_xxs`, else d and dmin.
///
/// # Safety
/// The rows have this unit.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
pub(super) unsafe fn scales_of_8<const F: u8>(rows: &[&[u8]; 8], unit: usize, two: bool) -> (__m256, __m256) {
    let at = |i: usize| rows[i].as_ptr().wrapping_add(Unit::bytes::<F>() * unit);
    // SAFETY: as the caller says.
    unsafe {
        if F == IQ2_XXS {
            let halves = |from: usize| {
                let d = |i: usize| at(i).add(from).cast::<i16>().read_unaligned();
                _mm256_cvtph_ps(_mm_setr_epi16(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7)))
            };
            return (halves(0), if two { halves(66) } else { _mm256_setzero_ps() });
        }
        let from = if F == Q2_K { 80 } else { 0 };
        let d = |i: usize| at(i).add(from).cast::<i32>().read_unaligned();
        let both = _mm256_setr_epi32(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7));
        let second = _mm256_cvtepi32_epi16(_mm256_srli_epi32::<16>(both));
        (_mm256_cvtph_ps(_mm256_cvtepi32_epi16(both)), _mm256_cvtph_ps(second))
    }
}

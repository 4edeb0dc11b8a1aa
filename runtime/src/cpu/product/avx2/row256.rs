//! Blocks of 256 codes as vectors of 32 bytes, and input rows in the same order.
use super::super::bytes::view_mut;
use super::super::prepared::q8_k;
use super::super::repack::INDEX_SIGNS;
use super::super::twin::q4_k_scale_min;
use ds4_ir::formats::{IQ2XXS_GRID, iq2xxs_signs};
use std::arch::x86_64::*;

pub(super) const IQ2_XXS: u8 = 0;
pub(super) const Q2_K: u8 = 1;
pub(super) const Q4_K: u8 = 2;
/// `iq2_xxs` packed as index bytes and signs.
pub(super) const SIGNS: u8 = 3;
/// `q2_k` transposed.
pub(super) const Q2_T: u8 = 4;

/// Bytes of a stored block.
pub(super) const fn block_bytes<const F: u8>() -> usize {
    match F {
        IQ2_XXS => 66,
        SIGNS => INDEX_SIGNS,
        Q2_K | Q2_T => 84,
        _ => 144,
    }
}

/// Whether weights are magnitudes with signs and there are no minimums.
pub(super) const fn is_iq2<const F: u8>() -> bool {
    matches!(F, IQ2_XXS | SIGNS)
}

/// Vectors that follow each other, share factors, and whose sums of pairs add up in 16 bits.
pub(super) const fn run_length<const F: u8>() -> usize {
    match F {
        SIGNS => 2,
        Q2_T => 8,
        _ => 1,
    }
}

/// Where element `i` of a block lies among the prepared codes.
const fn place<const F: u8>(i: usize) -> usize {
    match F {
        SIGNS => 128 * (i / 128) + 32 * (i % 32 / 8) + 8 * (i / 32 % 4) + i % 8,
        Q2_T => 32 * (i % 16 / 2) + 2 * (i / 16) + i % 2,
        _ => i,
    }
}

/// Where the parts of a prepared row lie, each at a multiple of 64 bytes: codes in whole blocks, a scale
/// per block, 16 sums of i16 per block (of 16 codes; of 32 codes and then zeros for `q4_k`).
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) blocks: usize,
    pub(super) scales: usize,
    pub(super) sums: usize,
    pub(super) bytes: usize,
}

pub(super) const fn parts(width: usize) -> Parts {
    let blocks = width.div_ceil(256);
    let scales = 256 * blocks;
    let sums = scales + (4 * blocks).next_multiple_of(64);
    Parts { blocks, scales, sums, bytes: (sums + 32 * blocks).next_multiple_of(64) }
}

pub(super) fn prepare<const F: u8>(row: &[u8], width: usize, out: &mut [u8]) {
    let parts = parts(width);
    let out = &mut out[..parts.bytes];
    out.fill(0);
    let (codes, rest) = out.split_at_mut(parts.scales);
    let (scales, sums) = rest.split_at_mut(parts.sums - parts.scales);
    let (codes, scales, sums) = (view_mut::<i8>(codes), view_mut::<f32>(scales), view_mut::<i16>(sums));
    let size = if F == Q4_K { 32 } else { 16 };
    for (b, (d, x)) in q8_k(row).enumerate() {
        scales[b] = d;
        let n = (width - 256 * b).min(256);
        let codes = &mut codes[256 * b..][..256];
        for (i, x) in x[..n].iter().enumerate() {
            codes[place::<F>(i)] = *x;
        }
        for (sum, codes) in sums[16 * b..][..16].iter_mut().zip(x[..n].chunks(size)) {
            *sum = codes.iter().map(|x| i16::from(*x)).sum();
        }
    }
}

/// 32 weights of a block: `magnitudes` are unsigned bytes, `signs` (of `iq2_xxs`) bytes that are
/// positive or negative, `factors` the sub-scale of each pair as i16.
#[derive(Clone, Copy)]
pub(super) struct Vector {
    pub(super) magnitudes: __m256i,
    pub(super) signs: __m256i,
    pub(super) factors: __m256i,
}

/// Calls `each` with the eight vectors of a block in turn.
///
/// # Safety
/// A block lies there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn for_each<const F: u8>(block: *const u8, mut each: impl FnMut(usize, Vector)) {
    // SAFETY: as the caller says.
    unsafe {
        match F {
            IQ2_XXS => {
                for g in 0..8 {
                    each(g, iq2_xxs(block.add(2 + 8 * g)));
                }
            }
            SIGNS => {
                let signs = _mm256_loadu_si256(block.add(32).cast());
                let one = _mm256_set1_epi8(1);
                let scales = block.add(64).cast::<u32>().read_unaligned();
                // The low byte of word w is that of group w / 4.
                let place = _mm256_setr_epi64x(
                    0x8000_8000_8000_8000u64 as i64,
                    0x8001_8001_8001_8001u64 as i64,
                    0x8002_8002_8002_8002u64 as i64,
                    0x8003_8003_8003_8003u64 as i64,
                );
                let mut shifted = _mm256_slli_epi16::<7>(signs);
                for h in 0..2 {
                    let scale = (scales >> (4 * h) & 0x0f0f_0f0f) << 1 | 0x0101_0101;
                    let factors = _mm256_shuffle_epi8(_mm256_set1_epi32(scale as i32), place);
                    for k in 0..4 {
                        let v = 4 * h + k;
                        let grid =
                            |c: usize| i64::from_le_bytes(IQ2XXS_GRID[usize::from(*block.add(4 * v + c))]);
                        let magnitudes = _mm256_setr_epi64x(grid(0), grid(1), grid(2), grid(3));
                        each(v, Vector { magnitudes, signs: _mm256_or_si256(shifted, one), factors });
                        shifted = match v {
                            0 => _mm256_slli_epi16::<6>(signs),
                            1 => _mm256_slli_epi16::<5>(signs),
                            2 => _mm256_slli_epi16::<4>(signs),
                            3 => _mm256_slli_epi16::<3>(signs),
                            4 => _mm256_slli_epi16::<2>(signs),
                            5 => _mm256_slli_epi16::<1>(signs),
                            _ => signs,
                        };
                    }
                }
            }
            Q2_T => {
                let three = _mm256_set1_epi8(3);
                let scales = _mm_and_si128(_mm_loadu_si128(block.cast()), _mm_set1_epi8(15));
                let factors = _mm256_cvtepu8_epi16(scales);
                for h in 0..2 {
                    let codes = _mm256_loadu_si256(block.add(16 + 32 * h).cast());
                    let shifted = [
                        codes,
                        _mm256_srli_epi16::<2>(codes),
                        _mm256_srli_epi16::<4>(codes),
                        _mm256_srli_epi16::<6>(codes),
                    ];
                    for j in 0..4 {
                        let magnitudes = _mm256_and_si256(shifted[j], three);
                        each(4 * h + j, Vector { magnitudes, signs: magnitudes, factors });
                    }
                }
            }
            Q2_K => {
                let three = _mm256_set1_epi8(3);
                let scales = _mm_and_si128(_mm_loadu_si128(block.cast()), _mm_set1_epi8(15));
                let scales = _mm256_broadcastsi128_si256(scales);
                for h in 0..2 {
                    let codes = _mm256_loadu_si256(block.add(16 + 32 * h).cast());
                    let shifted = [
                        codes,
                        _mm256_srli_epi16::<2>(codes),
                        _mm256_srli_epi16::<4>(codes),
                        _mm256_srli_epi16::<6>(codes),
                    ];
                    for j in 0..4 {
                        // Words of the scales 8h + 2j and the one behind it.
                        let at = (8 * h + 2 * j) as i16 | 0x8000u16 as i16;
                        let place = _mm256_set_m128i(_mm_set1_epi16(at + 1), _mm_set1_epi16(at));
                        let factors = _mm256_shuffle_epi8(scales, place);
                        let magnitudes = _mm256_and_si256(shifted[j], three);
                        each(4 * h + j, Vector { magnitudes, signs: magnitudes, factors });
                    }
                }
            }
            _ => {
                let nibble = _mm256_set1_epi8(15);
                let packed = std::slice::from_raw_parts(block.add(4), 12);
                for i in 0..4 {
                    let codes = _mm256_loadu_si256(block.add(16 + 32 * i).cast());
                    let halves = [codes, _mm256_srli_epi16::<4>(codes)];
                    for j in 0..2 {
                        let scale = q4_k_scale_min(packed, 2 * i + j).0;
                        let magnitudes = _mm256_and_si256(halves[j], nibble);
                        let factors = _mm256_set1_epi16(i16::from(scale));
                        each(2 * i + j, Vector { magnitudes, signs: magnitudes, factors });
                    }
                }
            }
        }
    }
}

/// Bytes of plus or minus one by sign code.
static SIGN_BYTES: [[u8; 8]; 128] = {
    let mut bytes = [[1; 8]; 128];
    let mut i = 0;
    while i < 128 * 8 {
        if iq2xxs_signs((i / 8) as u8) >> (i % 8) & 1 == 1 {
            bytes[i / 8][i % 8] = 0xff;
        }
        i += 1;
    }
    bytes
};

/// # Safety
/// A group of 32 weights lies there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn iq2_xxs(group: *const u8) -> Vector {
    // SAFETY: as the caller says.
    let word = unsafe { group.cast::<u64>().read_unaligned() };
    let grid = |k: u32| i64::from_le_bytes(IQ2XXS_GRID[(word >> (8 * k) & 0xff) as usize]);
    let sign = |k: u32| i64::from_le_bytes(SIGN_BYTES[(word >> (32 + 7 * k) & 0x7f) as usize]);
    Vector {
        magnitudes: _mm256_setr_epi64x(grid(0), grid(1), grid(2), grid(3)),
        signs: _mm256_setr_epi64x(sign(0), sign(1), sign(2), sign(3)),
        factors: _mm256_set1_epi16((word >> 60) as i16 * 2 + 1),
    }
}

/// The minimum of each sum of a prepared block.
///
/// # Safety
/// A block lies there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn mins<const F: u8>(block: *const u8) -> __m256i {
    // SAFETY: as the caller says.
    unsafe {
        match F {
            IQ2_XXS | SIGNS => _mm256_setzero_si256(),
            Q2_K | Q2_T => {
                let scales = _mm_srli_epi16::<4>(_mm_loadu_si128(block.cast()));
                _mm256_cvtepu8_epi16(_mm_and_si128(scales, _mm_set1_epi8(15)))
            }
            _ => {
                let packed = std::slice::from_raw_parts(block.add(4), 12);
                let mut mins = [0; 16];
                for (j, min) in mins[..8].iter_mut().enumerate() {
                    *min = q4_k_scale_min(packed, j).1;
                }
                _mm256_cvtepu8_epi16(_mm_loadu_si128(mins.as_ptr().cast()))
            }
        }
    }
}

/// `dw` and `dmin` of blocks at eight places.
///
/// # Safety
/// Blocks lie there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn scales_of_8<const F: u8>(at: &[*const u8; 8]) -> (__m256, __m256) {
    // SAFETY: as the caller says.
    unsafe {
        if is_iq2::<F>() {
            let from = if F == SIGNS { 68 } else { 0 };
            let d = |i: usize| at[i].add(from).cast::<i16>().read_unaligned();
            let d = _mm256_cvtph_ps(_mm_setr_epi16(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7)));
            return (_mm256_mul_ps(d, _mm256_set1_ps(0.125)), _mm256_setzero_ps());
        }
        let from = if F == Q4_K { 0 } else { 80 };
        let d = |i: usize| at[i].add(from).cast::<i32>().read_unaligned();
        let both = _mm256_setr_epi32(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7));
        // First halves to the lower quarter of each lane, second halves to the upper.
        let place =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
        let apart = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(both, place));
        (
            _mm256_cvtph_ps(_mm256_castsi256_si128(apart)),
            _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(apart)),
        )
    }
}

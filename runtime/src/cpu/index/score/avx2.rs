//! Index scores of eight keys to a register.
use super::{CODES, GROUPS, HALVES_BIASED, Head, ROW, SIDE, SPREAD_MAX};
use std::arch::x86_64::*;

/// Heads whose sums are held at once.
const PART: usize = 64;

/// As `plain`, eight keys to a register.
#[target_feature(enable = "avx2,fma")]
pub(super) fn scores(heads: &[Head], spread: u8, keys: &[u8], out: &mut [f32; SIDE]) -> u32 {
    let (first, second) = out.split_at_mut(8);
    let (low, high) = keys.split_at(8 * ROW);
    eight(heads, spread, low, first) | eight(heads, spread, high, second) << 8
}

/// Eight rows of eight words, transposed.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed8(r: [__m256i; 8]) -> [__m256i; 8] {
    let mut t = [_mm256_setzero_si256(); 8];
    for i in (0..8).step_by(4) {
        let (a, b) = (_mm256_unpacklo_epi32(r[i], r[i + 1]), _mm256_unpackhi_epi32(r[i], r[i + 1]));
        let (c, d) = (_mm256_unpacklo_epi32(r[i + 2], r[i + 3]), _mm256_unpackhi_epi32(r[i + 2], r[i + 3]));
        t[i] = _mm256_unpacklo_epi64(a, c);
        t[i + 1] = _mm256_unpackhi_epi64(a, c);
        t[i + 2] = _mm256_unpacklo_epi64(b, d);
        t[i + 3] = _mm256_unpackhi_epi64(b, d);
    }
    let mut out = [_mm256_setzero_si256(); 8];
    for w in 0..4 {
        out[w] = _mm256_permute2x128_si256::<0x20>(t[w], t[4 + w]);
        out[4 + w] = _mm256_permute2x128_si256::<0x31>(t[w], t[4 + w]);
    }
    out
}

#[target_feature(enable = "avx2,fma")]
fn eight(heads: &[Head], spread: u8, keys: &[u8], out: &mut [f32]) -> u32 {
    let rows = keys.as_chunks::<ROW>().0;
    let mut words = [_mm256_setzero_si256(); 16];
    for half in 0..2 {
        let r: [__m256i; 8] = std::array::from_fn(|i| {
            // SAFETY: 32 bytes of the row from there.
            unsafe { _mm256_loadu_si256(rows[i][32 * half..32 * half + 32].as_ptr().cast()) }
        });
        words[8 * half..8 * half + 8].copy_from_slice(&transposed8(r));
    }
    let scale_words: [i32; 8] =
        std::array::from_fn(|i| i32::from_le_bytes([rows[i][64], rows[i][65], rows[i][66], rows[i][67]]));
    // SAFETY: eight words.
    let scale_words = unsafe { _mm256_loadu_si256(scale_words.as_ptr().cast()) };
    let byte = _mm256_set1_epi32(255);
    let zero = _mm256_setzero_si256();
    let (mut low, mut high, mut not) = (byte, zero, zero);
    let mut scales = [_mm256_setzero_ps(); GROUPS];
    for (g, scale) in scales.iter_mut().enumerate() {
        let code = _mm256_and_si256(_mm256_srlv_epi32(scale_words, _mm256_set1_epi32(8 * g as i32)), byte);
        not = _mm256_or_si256(not, _mm256_cmpeq_epi32(code, byte));
        let any = _mm256_or_si256(
            _mm256_or_si256(words[4 * g], words[4 * g + 1]),
            _mm256_or_si256(words[4 * g + 2], words[4 * g + 3]),
        );
        let dead = _mm256_cmpeq_epi32(_mm256_and_si256(any, _mm256_set1_epi32(0x7777_7777)), zero);
        low = _mm256_min_epi32(low, _mm256_or_si256(code, _mm256_and_si256(dead, byte)));
        let code = _mm256_andnot_si256(dead, code);
        high = _mm256_max_epi32(high, code);
        *scale = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(code));
    }
    let live = _mm256_cmpgt_epi32(_mm256_add_epi32(high, _mm256_set1_epi32(1)), low);
    let wide = _mm256_cmpgt_epi32(
        _mm256_sub_epi32(high, low),
        _mm256_set1_epi32(i32::from(SPREAD_MAX) - i32::from(spread)),
    );
    let outside = _mm256_or_si256(
        _mm256_cmpgt_epi32(_mm256_set1_epi32(i32::from(*CODES.start())), low),
        _mm256_cmpgt_epi32(high, _mm256_set1_epi32(i32::from(*CODES.end()))),
    );
    let not = _mm256_or_si256(not, _mm256_and_si256(live, _mm256_or_si256(wide, outside)));
    let exact = !_mm256_movemask_ps(_mm256_castsi256_ps(not)) as u32 & 255;

    // SAFETY: sixteen bytes.
    let table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(HALVES_BIASED.as_ptr().cast()) });
    let nibble = _mm256_set1_epi8(15);
    let mut parts = [_mm256_setzero_ps(); PART];
    let mut total = _mm256_set1_ps(-0.0);
    let ones = _mm256_set1_epi16(1);
    for heads in heads.chunks(PART) {
        for g in 0..GROUPS {
            let mut k = [zero; 8];
            for i in 0..4 {
                let word = words[4 * g + i];
                k[i] = _mm256_shuffle_epi8(table, _mm256_and_si256(word, nibble));
                k[4 + i] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(word), nibble));
            }
            for (head, part) in heads.iter().zip(&mut parts) {
                // Sixteen products of at most 24 · 12 stay within 16 bits.
                let (mut a, mut b) = (zero, zero);
                for i in 0..4 {
                    let low = _mm256_set1_epi32(i32::from_le_bytes(head.codes[4 * g + i].map(|c| c as u8)));
                    let high =
                        _mm256_set1_epi32(i32::from_le_bytes(head.codes[16 + 4 * g + i].map(|c| c as u8)));
                    a = _mm256_add_epi16(a, _mm256_maddubs_epi16(k[i], low));
                    b = _mm256_add_epi16(b, _mm256_maddubs_epi16(k[4 + i], high));
                }
                let sum = _mm256_madd_epi16(_mm256_add_epi16(a, b), ones);
                let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, _mm256_set1_epi32(head.bias[g])));
                let scaled = _mm256_mul_ps(sum, scales[g]);
                let before = if g == 0 { _mm256_setzero_ps() } else { *part };
                *part = _mm256_fmadd_ps(scaled, _mm256_set1_ps(head.scales[g]), before);
            }
        }
        for (head, part) in heads.iter().zip(&parts) {
            let s = _mm256_max_ps(*part, _mm256_setzero_ps());
            total = _mm256_add_ps(total, _mm256_mul_ps(s, _mm256_set1_ps(head.weight)));
        }
    }
    // SAFETY: eight numbers.
    unsafe { _mm256_storeu_ps(out[..8].as_mut_ptr(), total) };
    exact
}

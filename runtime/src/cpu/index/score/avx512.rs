//! Index scores of sixteen keys to a register.
use super::{CODES, GROUPS, HALVES_BIASED, Head, ROW, SIDE, SPREAD_MAX};
use std::arch::x86_64::*;

/// Heads whose sums are held at once.
const PART: usize = 64;

/// Sixteen rows of sixteen words as sixteen words of sixteen rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(r: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = [_mm512_setzero_si512(); 16];
    for i in (0..16).step_by(4) {
        let (a, b) = (_mm512_unpacklo_epi32(r[i], r[i + 1]), _mm512_unpackhi_epi32(r[i], r[i + 1]));
        let (c, d) = (_mm512_unpacklo_epi32(r[i + 2], r[i + 3]), _mm512_unpackhi_epi32(r[i + 2], r[i + 3]));
        t[i] = _mm512_unpacklo_epi64(a, c);
        t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d);
        t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // t[4 k + w] holds, in its 128-bit part p, word 4 p + w of rows 4 k to 4 k + 3.
    let mut out = [_mm512_setzero_si512(); 16];
    for w in 0..4 {
        let low01 = _mm512_shuffle_i32x4::<0x88>(t[w], t[4 + w]);
        let high01 = _mm512_shuffle_i32x4::<0xdd>(t[w], t[4 + w]);
        let low23 = _mm512_shuffle_i32x4::<0x88>(t[8 + w], t[12 + w]);
        let high23 = _mm512_shuffle_i32x4::<0xdd>(t[8 + w], t[12 + w]);
        out[w] = _mm512_shuffle_i32x4::<0x88>(low01, low23);
        out[4 + w] = _mm512_shuffle_i32x4::<0x88>(high01, high23);
        out[8 + w] = _mm512_shuffle_i32x4::<0xdd>(low01, low23);
        out[12 + w] = _mm512_shuffle_i32x4::<0xdd>(high01, high23);
    }
    out
}

/// As `plain`, sixteen keys to a register.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn scores(heads: &[Head], spread: u8, keys: &[u8], out: &mut [f32; SIDE]) -> u32 {
    let rows = keys.as_chunks::<ROW>().0;
    let words: [__m512i; 16] = transposed(std::array::from_fn(|i| {
        // SAFETY: a row has more than 64 bytes.
        unsafe { _mm512_loadu_si512(rows[i].as_ptr().cast()) }
    }));
    let scale_words: [i32; 16] =
        std::array::from_fn(|i| i32::from_le_bytes([rows[i][64], rows[i][65], rows[i][66], rows[i][67]]));
    // SAFETY: sixteen words.
    let scale_words = unsafe { _mm512_loadu_si512(scale_words.as_ptr().cast()) };
    let byte = _mm512_set1_epi32(255);
    let mut low = byte;
    let mut high = _mm512_setzero_si512();
    let mut not = 0u16;
    let mut scales = [_mm512_setzero_ps(); GROUPS];
    for (g, scale) in scales.iter_mut().enumerate() {
        let code = _mm512_and_si512(_mm512_srlv_epi32(scale_words, _mm512_set1_epi32(8 * g as i32)), byte);
        not |= _mm512_cmpeq_epi32_mask(code, byte);
        let any = _mm512_or_si512(
            _mm512_or_si512(words[4 * g], words[4 * g + 1]),
            _mm512_or_si512(words[4 * g + 2], words[4 * g + 3]),
        );
        let live = _mm512_test_epi32_mask(any, _mm512_set1_epi32(0x7777_7777));
        low = _mm512_mask_min_epi32(low, live, low, code);
        high = _mm512_mask_max_epi32(high, live, high, code);
        *scale = _mm512_castsi512_ps(_mm512_maskz_slli_epi32::<23>(live, code));
    }
    let live = _mm512_cmple_epi32_mask(low, high);
    let wide = _mm512_cmpgt_epi32_mask(
        _mm512_sub_epi32(high, low),
        _mm512_set1_epi32(i32::from(SPREAD_MAX) - i32::from(spread)),
    );
    let outside = _mm512_cmplt_epi32_mask(low, _mm512_set1_epi32(i32::from(*CODES.start())))
        | _mm512_cmpgt_epi32_mask(high, _mm512_set1_epi32(i32::from(*CODES.end())));
    let exact = !(not | live & (wide | outside));

    // SAFETY: sixteen bytes.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(HALVES_BIASED.as_ptr().cast()) });
    let nibble = _mm512_set1_epi8(15);
    let codes = |i: usize| {
        let word = words[i % 16];
        let word = if i < 16 { word } else { _mm512_srli_epi16::<4>(word) };
        _mm512_shuffle_epi8(table, _mm512_and_si512(word, nibble))
    };
    let mut parts = [_mm512_setzero_ps(); PART];
    let mut total = _mm512_set1_ps(-0.0);
    for heads in heads.chunks(PART) {
        for (g, scales) in scales.iter().enumerate() {
            let k: [__m512i; 8] = [
                codes(4 * g),
                codes(4 * g + 1),
                codes(4 * g + 2),
                codes(4 * g + 3),
                codes(16 + 4 * g),
                codes(17 + 4 * g),
                codes(18 + 4 * g),
                codes(19 + 4 * g),
            ];
            for (head, part) in heads.iter().zip(&mut parts) {
                let mut a = _mm512_set1_epi32(head.bias[g]);
                let mut b = _mm512_setzero_si512();
                for i in 0..4 {
                    a = _mm512_dpbusd_epi32(
                        a,
                        k[i],
                        _mm512_set1_epi32(i32::from_le_bytes(head.codes[4 * g + i].map(|c| c as u8))),
                    );
                    b = _mm512_dpbusd_epi32(
                        b,
                        k[4 + i],
                        _mm512_set1_epi32(i32::from_le_bytes(head.codes[16 + 4 * g + i].map(|c| c as u8))),
                    );
                }
                let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(a, b));
                let scaled = _mm512_mul_ps(sum, *scales);
                let before = if g == 0 { _mm512_setzero_ps() } else { *part };
                *part = _mm512_fmadd_ps(scaled, _mm512_set1_ps(head.scales[g]), before);
            }
        }
        for (head, part) in heads.iter().zip(&parts) {
            let s = _mm512_max_ps(*part, _mm512_setzero_ps());
            total = _mm512_add_ps(total, _mm512_mul_ps(s, _mm512_set1_ps(head.weight)));
        }
    }
    // SAFETY: sixteen numbers.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), total) };
    u32::from(exact)
}

//! Kernels for AVX-512 with VNNI, VBMI and GFNI (Zen 4, Ice Lake and later).
//!
//! A matrix with one column streams from memory: a kernel asks for the lines of later rows while it
//! works on the present ones (see [`super::ahead`]). With many columns it decodes a tile of weight rows once.
#![allow(clippy::needless_range_loop, reason = "several arrays of vectors go side by side")]

mod blocks32;
mod decoded;
mod iq2_xxs;
mod q2_k;
mod q4_k;
mod stream32;

use super::{Isa, ProductKernel, isas};
use std::arch::asm;
use std::arch::x86_64::*;

pub(super) static KERNELS: &[&[ProductKernel]] =
    &[blocks32::KERNELS, iq2_xxs::KERNELS, q2_k::KERNELS, q4_k::KERNELS, decoded::KERNELS];

/// Where the parts of a prepared row of `q8_k` lie for kernels of single blocks:
///
/// ```text
/// codes   i8, 256 per block          each part starts at a multiple of 64 bytes
/// scales  f32 per block
/// sums    i16, 16 places per block
/// ```
#[derive(Clone, Copy)]
struct Parts {
    blocks: usize,
    scales: usize,
    sums: usize,
    bytes: usize,
}

const fn parts(width: usize) -> Parts {
    let blocks = width.div_ceil(256);
    let scales = 256 * blocks;
    let sums = scales + (4 * blocks).next_multiple_of(64);
    Parts { blocks, scales, sums, bytes: (sums + 32 * blocks).next_multiple_of(64) }
}

/// Panics on a machine without the instruction set: what makes a call of a kernel sound.
fn check_machine() {
    assert!(isas().contains(&Isa::Avx512), "this machine lacks AVX-512 with VNNI, VBMI and GFNI");
}

/// Eight vectors of eight integers to their sums: lane i is the sum of vector i.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn sums_of_8(v: [__m256i; 8]) -> __m256i {
    let add32 = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let add64 = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let low = add64(add32(v[0], v[1]), add32(v[2], v[3]));
    let high = add64(add32(v[4], v[5]), add32(v[6], v[7]));
    let across = _mm256_permute2x128_si256::<0x21>(low, high);
    _mm256_add_epi32(across, _mm256_blend_epi32::<0xf0>(low, high))
}

/// Transposes the dwords of eight vectors within each half.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn transposed(v: [__m512i; 8]) -> [__m512i; 8] {
    let pair = |a, b| (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let quad = |a, b| (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let ((a0, b0), (a1, b1), (a2, b2), (a3, b3)) =
        (pair(v[0], v[1]), pair(v[2], v[3]), pair(v[4], v[5]), pair(v[6], v[7]));
    // Per 128 bits dword d or d + 4 of vectors 0 to 3 (`low`) or 4 to 7 (`high`).
    let (low, high) = ((quad(a0, a1), quad(b0, b1)), (quad(a2, a3), quad(b2, b3)));
    let first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let join = |at, low, high| _mm512_permutex2var_epi64(low, at, high);
    [
        join(first, low.0.0, high.0.0),
        join(first, low.0.1, high.0.1),
        join(first, low.1.0, high.1.0),
        join(first, low.1.1, high.1.1),
        join(second, low.0.0, high.0.0),
        join(second, low.0.1, high.0.1),
        join(second, low.1.0, high.1.0),
        join(second, low.1.1, high.1.1),
    ]
}

/// Four vectors of sixteen integers: each 128 bits are sums of four integers of each vector.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn sums_of_4_wide(v: [__m512i; 4]) -> __m512i {
    let add32 = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low, high) = (add32(v[0], v[1]), add32(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high))
}

/// Of two results of [`sums_of_4_wide`] the sums of the halves of the eight vectors.
#[inline]
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512bw,avx512dq,avx512vl,gfni,f16c,fma")]
fn joined(low: __m512i, high: __m512i) -> __m512i {
    let first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let join = |at| _mm512_permutex2var_epi64(low, at, high);
    _mm512_add_epi32(join(first), join(second))
}

/// The vector, computed before anything that follows in the code: work of several rows at once does not
/// fit the registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn settled(mut v: __m512i) -> __m512i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(zmm_reg) v, options(nomem, nostack, preserves_flags)) };
    v
}

/// The number, of which the compiler knows nothing.
#[inline(always)]
fn opaque(mut n: usize) -> usize {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) n, options(pure, nomem, nostack, preserves_flags)) };
    n
}

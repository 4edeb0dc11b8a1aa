//! Kernels for AVX2 with FMA and F16C (Haswell, Zen and later).
#![allow(clippy::needless_range_loop, reason = "several arrays of vectors go side by side")]

mod blocks256;
mod blocks32;
mod decoded;
mod planes;
mod row256;

use super::{Isa, ProductKernel, isas};
use std::arch::x86_64::*;

pub(super) static KERNELS: &[&[ProductKernel]] =
    &[blocks32::KERNELS, blocks256::KERNELS, planes::KERNELS, decoded::KERNELS];

/// Panics on a machine without the instruction set: what makes a call of a kernel sound.
fn check_machine() {
    assert!(isas().contains(&Isa::Avx2), "this machine lacks AVX2 with FMA and F16C");
}

/// Eight vectors of eight integers to their sums: lane i is the sum of vector i.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sums_of_8(v: [__m256i; 8]) -> __m256i {
    let add32 = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let add64 = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let low = add64(add32(v[0], v[1]), add32(v[2], v[3]));
    let high = add64(add32(v[4], v[5]), add32(v[6], v[7]));
    let across = _mm256_permute2x128_si256::<0x21>(low, high);
    _mm256_add_epi32(across, _mm256_blend_epi32::<0xf0>(low, high))
}

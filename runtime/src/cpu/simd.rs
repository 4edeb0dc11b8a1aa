//! One function, several instruction sets.
//!
//! [`versions!`] compiles the body of a function once for each instruction set of the architecture.
//! Operations and their order are those of the source: the compiler neither contracts nor reorders
//! them, so every version gives the same bits, and the plain one is the twin of the others.
use super::product::Isa;

/// The partial sums of a fused [`dot`](ds4_ir::ops::attend::fused_dot) of some rows side by side: eight lanes
/// for each row.
pub(super) trait Lanes: Copy {
    /// Rows side by side.
    const ROWS: usize;
    /// `x` in every lane.
    fn splat(x: f32) -> Self;
    /// The first 8 · `ROWS` numbers of `x`.
    fn load(x: &[f32]) -> Self;
    /// The eight numbers of `x` for every row.
    fn repeat(x: &[f32; 8]) -> Self;
    /// Writes the lanes to the start of `out`.
    fn store(self, out: &mut [f32]);
    /// `self · x + sum`, lane by lane, rounded once.
    fn fma(self, x: Self, sum: Self) -> Self;
    /// Four rows' lanes joined pairwise, as `dot` joins them; of each, the first row, then the second.
    fn joined(of: [Self; 4]) -> [[f32; 4]; 2];
}

impl Lanes for [f32; 8] {
    const ROWS: usize = 1;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 8]
    }

    #[inline(always)]
    fn load(x: &[f32]) -> Self {
        x[..8].try_into().expect("eight numbers")
    }

    #[inline(always)]
    fn repeat(x: &[f32; 8]) -> Self {
        *x
    }

    #[inline(always)]
    fn store(self, out: &mut [f32]) {
        out[..8].copy_from_slice(&self);
    }

    #[inline(always)]
    fn fma(self, x: Self, sum: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(x[i], sum[i]))
    }

    #[inline(always)]
    fn joined(of: [Self; 4]) -> [[f32; 4]; 2] {
        [of.map(|[a, b, c, d, e, f, g, h]| ((a + b) + (c + d)) + ((e + f) + (g + h))), [0.0; 4]]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// Used by versions for AVX2 and FMA only.
    impl Lanes for __m256 {
        const ROWS: usize = 1;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: the machine has AVX2.
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        fn load(x: &[f32]) -> Self {
            // SAFETY: as above, and eight numbers are there.
            unsafe { _mm256_loadu_ps(x[..8].as_ptr()) }
        }

        #[inline(always)]
        fn repeat(x: &[f32; 8]) -> Self {
            Self::load(x)
        }

        #[inline(always)]
        fn store(self, out: &mut [f32]) {
            // SAFETY: as above, and there is place for eight numbers.
            unsafe { _mm256_storeu_ps(out[..8].as_mut_ptr(), self) }
        }

        #[inline(always)]
        fn fma(self, x: Self, sum: Self) -> Self {
            // SAFETY: the machine has FMA.
            unsafe { _mm256_fmadd_ps(self, x, sum) }
        }

        #[inline(always)]
        fn joined([a, b, c, d]: [Self; 4]) -> [[f32; 4]; 2] {
            let mut out = [0.0; 4];
            // SAFETY: the machine has AVX2, and there is place for four numbers.
            unsafe {
                let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
                let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
                _mm_storeu_ps(out.as_mut_ptr(), sums);
            }
            [out, [0.0; 4]]
        }
    }

    /// Used by versions for AVX-512 only.
    impl Lanes for __m512 {
        const ROWS: usize = 2;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: the machine has AVX-512 F and DQ.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(x: &[f32]) -> Self {
            // SAFETY: as above, and sixteen numbers are there.
            unsafe { _mm512_loadu_ps(x[..16].as_ptr()) }
        }

        #[inline(always)]
        fn repeat(x: &[f32; 8]) -> Self {
            // SAFETY: as above, and eight numbers are there.
            unsafe { _mm512_broadcast_f32x8(_mm256_loadu_ps(x.as_ptr())) }
        }

        #[inline(always)]
        fn store(self, out: &mut [f32]) {
            // SAFETY: as above, and there is place for sixteen numbers.
            unsafe { _mm512_storeu_ps(out[..16].as_mut_ptr(), self) }
        }

        #[inline(always)]
        fn fma(self, x: Self, sum: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(self, x, sum) }
        }

        #[inline(always)]
        fn joined(of: [Self; 4]) -> [[f32; 4]; 2] {
            // SAFETY: as above.
            let first = of.map(|x| unsafe { _mm512_castps512_ps256(x) });
            // SAFETY: as above.
            let second = of.map(|x| unsafe { _mm512_extractf32x8_ps::<1>(x) });
            [__m256::joined(first)[0], __m256::joined(second)[0]]
        }
    }
}

/// [`Lanes::ROWS`] of the version for `isa`.
pub(super) fn rows(isa: Isa) -> usize {
    if isa == Isa::Avx512 { 2 } else { 1 }
}

/// Compiles a function for every [`Isa`](crate::cpu::product::Isa); the first argument says which version runs, which must be
/// one that this machine has. `V` is the version's [`Lanes`].
macro_rules! versions {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$lanes:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name(isa: crate::cpu::product::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters, reason = "a version need not use lanes")]
            fn any<$lanes: crate::cpu::simd::Lanes>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    any::<std::arch::x86_64::__m256>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    any::<std::arch::x86_64::__m512>($($arg),*)
                }
                match isa {
                    // SAFETY: the machine has what the version needs.
                    crate::cpu::product::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    crate::cpu::product::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    _ => {}
                }
            }
            let _ = isa;
            any::<[f32; 8]>($($arg),*)
        }
    };
}
pub(super) use versions;

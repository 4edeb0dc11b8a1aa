//! Asking for memory before it is needed, on x86.
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Bytes of a line and of a page.
const LINE: usize = 64;
const PAGE: usize = 4096;
/// Lines of the next page that are asked for. From them a core learns to fetch the page by itself.
const FIRST: usize = 4;

/// Weights that are needed later: they come into the second cache. A core has buffers for a dozen lines
/// underway, and all its loads wait while these are full; where a step of a kernel is long, lines are asked for
/// one by one in between.
#[derive(Clone, Copy)]
pub(super) struct Ahead(pub(super) *const u8);

impl Ahead {
    /// The weights from byte `n` on.
    #[inline(always)]
    pub(super) fn at(self, n: usize) -> Ahead {
        Ahead(self.0.wrapping_add(n))
    }

    /// Asks for line `n`.
    #[inline(always)]
    pub(super) fn line(self, n: usize) {
        // SAFETY: a hint, which no address makes fail.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at(LINE * n).0.cast()) }
    }

    /// Of a step of `bytes` that begins a page, asks for the first lines of the page behind it: what a core
    /// fetches by itself ends with a page.
    #[inline(always)]
    pub(super) fn page(self, bytes: usize) {
        let within = self.0.addr() % PAGE;
        if within < bytes {
            let next = self.at(PAGE - within);
            (0..FIRST).for_each(|n| next.line(n));
        }
    }

    /// Asks for all of the step's `bytes`, a constant.
    #[inline(always)]
    pub(super) fn all(self, bytes: usize) {
        self.page(bytes);
        (0..bytes.div_ceil(LINE)).for_each(|n| self.line(n));
    }
}

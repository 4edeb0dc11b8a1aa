//! The entries that each token reads (spec 2.6):
//!
//! ```text
//! index_select  (topk (index_scores ?q ?weights ?entries ?pos) ?k)
//! ```
//!
//! Scores of up to a number of tokens at once go through scratch. Steps of few tokens spread the keys
//! of a token over blocks in a first launch and select in a second; larger steps give each block
//! tokens of its own, whose scores it makes and selects from.
#[cfg(feature = "gpu")]
mod score;
#[cfg(feature = "gpu")]
mod select;
#[cfg(feature = "gpu")]
mod text;

use super::common::groups_of;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::Scalar;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {crate::emit, cubecl::prelude::*};

/// Steps of up to so many tokens spread a token's keys over blocks.
const SPREAD_TOKENS: u32 = 8;
/// Tokens whose scores are held at once in larger steps, as far as the bytes below allow.
const BLOCKS: std::ops::RangeInclusive<u64> = 8..=128;
/// Bytes of scores that a larger step aims at.
const SCORE_BYTES: u64 = 4 << 20;
/// Threads of a block.
const THREADS: u32 = 256;
/// Keys that a block scores at once.
const KEYS: u32 = 32;
/// Heads that it takes at once: each thread has one key and one head.
const HEADS: u32 = THREADS / KEYS;

pub(crate) const KERNEL: Kernel = Kernel {
    op: "index_select",
    launches,
    cases: &[
        Case {
            header: "%q: idx4[t, 9, 32], %w: f32[t, 9], %e: state entries/4 idx4[32], %pos: i32[t]",
            node: "index_select %q, %w, %e, %pos, k=3 : i32[t, 3]",
            steps: &[0..3, 3..4, 4..11, 11..60],
        },
        Case {
            header: "%q: f32[t, 4, 40], %w: f32[t, 4], %e: state entries/4 f32[40], %pos: i32[t]",
            node: "index_select %q, %w, %e, %pos, k=8 : i32[t, 8]",
            steps: &[0..1, 1..40, 40..42],
        },
    ],
    tolerance: 0.0,
};

/// The op as its texts are specialised on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Select {
    heads: u32,
    width: u32,
    /// Element type of queries and keys.
    scalar: Scalar,
    /// Tokens of an entry.
    ratio: u32,
    /// Most entries of a token.
    entries: u32,
    k: u32,
    subgroups: u32,
}

impl Select {
    /// Whether queries and keys are codes and scales.
    fn is_packed(self) -> bool {
        self.scalar != Scalar::F32
    }

    fn row_bytes(self) -> usize {
        self.scalar.row_bytes(self.width as usize)
    }

    /// Distance of rows of numbers in shared memory: one element of padding keeps neighbouring rows in different
    /// banks.
    #[cfg(feature = "gpu")]
    fn pitch(self) -> usize {
        self.width as usize + 1
    }

    /// Groups of 16 bytes that so many packed rows take.
    fn raw(self, rows: u32) -> usize {
        let bytes = if self.is_packed() { rows * self.row_bytes() as u32 } else { 0 };
        groups_of(bytes) as usize
    }
}

#[derive(Debug)]
struct Scores(Select);

#[derive(Debug)]
struct Choice(Select);

/// Scores and selection in one launch of so many blocks.
#[derive(Debug)]
struct Both(Select, u32);

fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    let (q, state) = (site.value(0), site.state(2));
    let (heads, width) = (q.dims[1].constant()?, q.dims[2].constant()?);
    let is_readable = match state.scalar {
        Scalar::F32 => true,
        Scalar::Idx4 => width % 8 == 0,
        _ => false,
    };
    let ratio = state.kind.span();
    let entries = (maxima.ctx / ratio).max(1);
    let s = Select {
        heads,
        width,
        scalar: state.scalar,
        ratio,
        entries,
        k: site.int(4),
        subgroups: THREADS / target.subgroup,
    };
    // Keys and queries lie in shared memory as they are and as numbers.
    let numbers = (KEYS + HEADS) * (width + 1) + THREADS;
    let shared_bytes = 4 * numbers + 16 * (s.raw(KEYS) + s.raw(HEADS)) as u32;
    if !is_readable || shared_bytes > target.shared_bytes_max.min(32 << 10) {
        return None;
    }
    let row_bytes = u64::from(entries) * 4;
    let inputs = [Binding::Step, Binding::Value(0), Binding::Value(1), Binding::Value(2)];
    let scratch = |rows: u64| Binding::Scratch { offset: 0, bytes: rows * row_bytes };
    let block = [THREADS, 1, 1];
    if maxima.tokens <= SPREAD_TOKENS {
        let scores = scratch(maxima.tokens.into());
        let mut bindings = inputs.to_vec();
        bindings.push(scores.clone());
        let grid = [entries.div_ceil(KEYS), maxima.tokens, 1];
        let first = Launch { text: Arc::new(Scores(s)), block, grid, bindings };
        let bindings = vec![Binding::Step, scores, Binding::Out];
        let grid = [maxima.tokens, 1, 1];
        return Some(vec![first, Launch { text: Arc::new(Choice(s)), block, grid, bindings }]);
    }
    let blocks = (SCORE_BYTES / row_bytes).clamp(*BLOCKS.start(), *BLOCKS.end());
    let blocks = blocks.min(u64::from(maxima.tokens));
    let mut bindings = inputs.to_vec();
    bindings.extend([scratch(blocks), Binding::Out]);
    let text = Arc::new(Both(s, blocks as u32));
    Some(vec![Launch { text, block, grid: [blocks as u32, 1, 1], bindings }])
}

impl Text for Scores {
    fn name(&self) -> &'static str {
        "index_scores"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let new = text::index_scores::IndexScores::new;
        CubeKernel::define(&new(set, dev, lang, b0, b1, b2, b3, b4, self.0))
    }
}

impl Text for Choice {
    fn name(&self) -> &'static str {
        "index_choice"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&text::index_choice::IndexChoice::new(set, dev, lang, b0, b1, b2, self.0))
    }
}

impl Text for Both {
    fn name(&self) -> &'static str {
        "index_select"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let new = text::index_select::IndexSelect::new;
        CubeKernel::define(&new(set, dev, lang, b0, b1, b2, b3, b4, b5, self.0, self.1))
    }
}

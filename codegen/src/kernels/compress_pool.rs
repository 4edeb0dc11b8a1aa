//! `compress_pool tail k gate @ape pos`: per channel `Σ softmax(gate + ape)·k` over the tokens of each
//! block that this step closes; for ratio 4 lane A of the block before and lane B of its own (spec 2.5).
//!
//! One thread per channel of an entry. Tokens of this step are read from k and gate, earlier ones from
//! the tail.
use super::common::{Number, Rows, THREADS};
use super::push::Slots;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use ds4_ir::{Role, StateKind};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::{number, rows},
    crate::{emit, step},
    cubecl::prelude::*,
};

pub(crate) const KERNEL: Kernel = Kernel {
    op: "compress_pool",
    launches,
    cases: &[
        Case {
            header: "%tail: state tail/4 f32[160], %k: f32[t, 80], %gate: f32[t, 80], @ape: f32[4, 80], %pos: i32[t]",
            node: "compress_pool %tail, %k, %gate, @ape, %pos : f32[m4, 40]",
            steps: &[0..3, 3..4, 4..16],
        },
        Case {
            header: "%tail: state tail/8 f32[80], %k: f32[t, 40], %gate: f32[t, 40], @ape: bf16[8, 40], %pos: i32[t]",
            node: "compress_pool %tail, %k, %gate, @ape, %pos : f32[m8, 40]",
            steps: &[0..7, 7..8, 8..24],
        },
    ],
    tolerance: 2e-6,
};

/// How the entries of a compressor are pooled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Pool {
    /// Tokens of a block.
    pub(crate) ratio: u32,
    /// Channels of an entry.
    pub(crate) width: u32,
    /// Rows of the tail.
    pub(crate) capacity: u32,
    /// Element type of `ape`.
    pub(crate) ape: Number,
}

impl Pool {
    /// For operands `tail k gate @ape pos` from operand `at` on.
    pub(crate) fn of(site: &Site<'_>, at: usize, maxima: &Maxima) -> Option<Pool> {
        let tail = site.state(at);
        let ratio = tail.kind.span();
        let lanes = if StateKind::overlaps(ratio) { 2 } else { 1 };
        let Slots::Cyclic(capacity) = Slots::of(tail.kind, maxima) else { return None };
        let ape = Number::of(site.weight(at + 3).scalar)?;
        Some(Pool { ratio, width: tail.width / (2 * lanes), capacity, ape })
    }

    /// The bindings of tail, k, gate and ape.
    pub(crate) fn bindings(at: usize) -> [Binding; 4] {
        let ape = Binding::Weight(at + 3, Role::Codes);
        [Binding::Value(at), Binding::Value(at + 1), Binding::Value(at + 2), ape]
    }

    /// Whether an entry is made of two blocks.
    #[cfg(feature = "gpu")]
    fn overlaps(self) -> bool {
        StateKind::overlaps(self.ratio)
    }

    /// Elements of a token's k.
    #[cfg(feature = "gpu")]
    fn half(self) -> usize {
        self.width as usize * if self.overlaps() { 2 } else { 1 }
    }
}

#[derive(Debug)]
struct Spec {
    rows: Rows,
    pool: Pool,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _: &Target) -> Option<Vec<Launch>> {
    let spec = Spec { rows: Rows::of(&site.ty.tensor()?.dims[..1]), pool: Pool::of(site, 0, maxima)? };
    let mut bindings = vec![Binding::Step];
    bindings.extend(Pool::bindings(0));
    bindings.push(Binding::Out);
    let grid = [spec.rows.max(maxima), spec.pool.width.div_ceil(THREADS), 1];
    Some(vec![Launch { text: Arc::new(spec), block: [THREADS, 1, 1], grid, bindings }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "compress_pool"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&compress_pool::CompressPool::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, self.rows, self.pool,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn compress_pool(
    step: &[i32],
    tail: &[f32],
    k: &[f32],
    gate: &[f32],
    ape: &[u32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] pool: Pool,
) {
    let entry = CUBE_POS_X as usize;
    let channel = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    let width = comptime!(pool.width as usize);
    if entry < rows(step, n_rows) && channel < width {
        out[entry * width + channel] = pooled(step, tail, k, gate, ape, entry, channel, pool);
    }
}

/// Channel `channel` of the entry-th block that the step closes.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn pooled(
    step: &[i32],
    tail: &[f32],
    k: &[f32],
    gate: &[f32],
    ape: &[u32],
    entry: usize,
    channel: usize,
    #[comptime] pool: Pool,
) -> f32 {
    let (ratio, width) = comptime!((pool.ratio as usize, pool.width as usize));
    let start = step[step::START] as usize;
    let first = (start / ratio + entry) * ratio;
    // A softmax as it goes: the sums are scaled anew whenever a larger gate comes.
    let mut state = Softmax { max: f32::NEG_INFINITY, total: 0.0f32, sum: 0.0f32 };
    if comptime!(pool.overlaps()) {
        // Block 0 has no block before it: its lane A counts as -∞, which is the same as absent.
        if first >= ratio {
            for i in 0..ratio {
                take(&mut state, step, tail, k, gate, ape, first - ratio + i, channel, pool);
            }
        }
        for i in 0..ratio {
            take(&mut state, step, tail, k, gate, ape, first + i, width + channel, pool);
        }
    } else {
        for i in 0..ratio {
            take(&mut state, step, tail, k, gate, ape, first + i, channel, pool);
        }
    }
    state.sum / state.total
}

#[cfg(feature = "gpu")]
#[derive(CubeType)]
struct Softmax {
    max: f32,
    total: f32,
    sum: f32,
}

/// Takes in the token at position `p`, channel `c` of its k and gate.
#[cfg(feature = "gpu")]
#[cube]
fn take(
    state: &mut Softmax,
    step: &[i32],
    tail: &[f32],
    k: &[f32],
    gate: &[f32],
    ape: &[u32],
    p: usize,
    c: usize,
    #[comptime] pool: Pool,
) {
    let half = comptime!(pool.half());
    let start = step[step::START] as usize;
    let old = p < start;
    let held = p % comptime!(pool.capacity as usize) * comptime!(2 * half) + c;
    let fresh = (p - start) * half + c;
    let key = if old { tail[held] } else { k[fresh] };
    let weight = if old {
        tail[held + half]
    } else {
        gate[fresh] + number(ape, p % comptime!(pool.ratio as usize) * half + c, pool.ape)
    };
    let max = max(state.max, weight);
    let (old, new) = ((state.max - max).exp(), (weight - max).exp());
    state.total = state.total * old + new;
    state.sum = state.sum * old + new * key;
    state.max = max;
}

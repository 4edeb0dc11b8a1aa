//! `hc_gates mix @scale @base iters= eps=`: pre, post and the Sinkhorn-normalised combine matrix, and
//! `hc_head_gates mix @scale @base eps=`: `sigmoid(mix · scale + base) + eps` (spec 2.1).
//!
//! One thread per token: the combine matrix of four streams is sixteen registers.
use super::common::{Number, Rows};
use crate::{Binding, Case, Kernel, Launch, Text};
use ds4_ir::Role;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::{number, rows},
    crate::emit,
    cubecl::prelude::*,
};

const THREADS: u32 = 64;
/// Most streams whose combine matrix a thread holds.
const STREAMS_MAX: u32 = 8;

pub(crate) const KERNEL: Kernel = Kernel {
    op: "hc_gates",
    launches: |site, maxima, _| launches(site, maxima, false),
    cases: &[
        Case {
            header: "%mix: f32[t, 24], @scale: f32[3], @base: f32[24]",
            node: "hc_gates %mix, @scale, @base, iters=20, eps=1e-6 : f32[t, 24]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "%mix: f32[t, 8], @scale: bf16[3], @base: bf16[8]",
            node: "hc_gates %mix, @scale, @base, iters=3, eps=1e-6 : f32[t, 8]",
            steps: &[0..3],
        },
    ],
    tolerance: 5e-6,
};

pub(crate) const HEAD: Kernel = Kernel {
    op: "hc_head_gates",
    launches: |site, maxima, _| launches(site, maxima, true),
    cases: &[Case {
        header: "%mix: f32[t, 4], @scale: f32[1], @base: f32[4]",
        node: "hc_head_gates %mix, @scale, @base, eps=1e-6 : f32[t, 4]",
        steps: &[0..1, 1..8],
    }],
    tolerance: 2e-6,
};

/// Gates as their text is specialised on them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Gates {
    /// Streams.
    pub(crate) streams: u32,
    /// Whether these are the head's: pre gates alone.
    pub(crate) head: bool,
    /// Rounds of Sinkhorn's normalisation.
    pub(crate) rounds: u32,
    /// Bits of epsilon.
    pub(crate) eps: u32,
    /// Element types of `scale` and `base`.
    pub(crate) numbers: (Number, Number),
}

impl Gates {
    /// For so many gates; `scale` and `base` are the operands of those numbers, `lits` the first literal.
    pub(crate) fn of(site: &Site<'_>, gates: u32, head: bool, scale: usize, lits: usize) -> Option<Gates> {
        let streams = (1..=STREAMS_MAX).find(|n| if head { *n == gates } else { n * n + 2 * n == gates })?;
        let rounds = if head { 0 } else { site.int(lits) };
        let eps = (site.real(if head { lits } else { lits + 1 }) as f32).to_bits();
        let number = |i: usize| Number::of(site.weight(i).scalar);
        Some(Gates { streams, head, rounds, eps, numbers: (number(scale)?, number(scale + 1)?) })
    }

    /// Gates of a token.
    pub(crate) fn count(self) -> u32 {
        if self.head { self.streams } else { self.streams * (self.streams + 2) }
    }
}

#[derive(Debug)]
struct Spec {
    rows: Rows,
    gates: Gates,
}

fn launches(site: &Site<'_>, maxima: &Maxima, head: bool) -> Option<Vec<Launch>> {
    let mix = site.value(0);
    let gates = Gates::of(site, mix.dims[1].constant()?, head, 1, 3)?;
    let spec = Spec { rows: Rows::of(&mix.dims[..1]), gates };
    Some(vec![Launch {
        block: [THREADS, 1, 1],
        grid: [spec.rows.max(maxima).div_ceil(THREADS), 1, 1],
        bindings: vec![
            Binding::Step,
            Binding::Value(0),
            Binding::Weight(1, Role::Codes),
            Binding::Weight(2, Role::Codes),
            Binding::Out,
        ],
        text: Arc::new(spec),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        if self.gates.head { "hc_head_gates" } else { "hc_gates" }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&hc_gates::HcGates::new(set, dev, lang, b0, b1, b2, b3, b4, self.rows, self.gates))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn hc_gates(
    step: &[i32],
    mix: &[f32],
    scale: &[u32],
    base: &[u32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] gates: Gates,
) {
    let row = ABSOLUTE_POS as usize;
    if row < rows(step, n_rows) {
        let count = comptime!(gates.count() as usize);
        let mut m = Array::<f32>::new(count);
        #[unroll]
        for i in 0..count {
            m[i] = mix[row * count + i];
        }
        gate(&mut m, scale, base, gates);
        #[unroll]
        for i in 0..count {
            out[row * count + i] = m[i];
        }
    }
}

/// The gates of a token in place of its mix.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn gate(m: &mut Array<f32>, scale: &[u32], base: &[u32], #[comptime] gates: Gates) {
    let n = comptime!(gates.streams as usize);
    let eps = comptime!(f32::from_bits(gates.eps));
    let (scales, bases) = comptime!(gates.numbers);
    #[unroll]
    for j in 0..n {
        m[j] =
            sigmoid(m[j] * number(scale, 0usize.runtime(), scales) + number(base, j.runtime(), bases)) + eps;
    }
    if comptime!(!gates.head) {
        #[unroll]
        for i in 0..n {
            let j = comptime!(n + i);
            let x = m[j] * number(scale, 1usize.runtime(), scales) + number(base, j.runtime(), bases);
            m[j] = 2.0f32 * sigmoid(x);
        }
        #[unroll]
        for i in 0..comptime!(n * n) {
            let j = comptime!(2 * n + i);
            m[j] = m[j] * number(scale, 2usize.runtime(), scales) + number(base, j.runtime(), bases);
        }
        sinkhorn(m, gates);
    }
}

#[cfg(feature = "gpu")]
#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}

/// Softmax over each row of the combine matrix, then rows and columns normalised in turn, columns
/// first; round one is the softmax and the first columns (spec 2.1).
#[cfg(feature = "gpu")]
#[cube]
fn sinkhorn(m: &mut Array<f32>, #[comptime] gates: Gates) {
    let n = comptime!(gates.streams as usize);
    let eps = comptime!(f32::from_bits(gates.eps));
    #[unroll]
    for i in 0..n {
        let row = comptime!(2 * n + i * n);
        let mut top = m[row];
        #[unroll]
        for j in 1..n {
            top = max(top, m[comptime!(row + j)]);
        }
        let mut sum = 0.0f32;
        #[unroll]
        for j in 0..n {
            m[comptime!(row + j)] = (m[comptime!(row + j)] - top).exp();
            sum += m[comptime!(row + j)];
        }
        #[unroll]
        for j in 0..n {
            m[comptime!(row + j)] = m[comptime!(row + j)] / sum + eps;
        }
    }
    if comptime!(gates.rounds > 0) {
        columns(m, gates);
        for _ in 1..comptime!(gates.rounds) {
            #[unroll]
            for i in 0..n {
                let row = comptime!(2 * n + i * n);
                let mut sum = 0.0f32;
                #[unroll]
                for j in 0..n {
                    sum += m[comptime!(row + j)];
                }
                #[unroll]
                for j in 0..n {
                    m[comptime!(row + j)] /= sum + eps;
                }
            }
            columns(m, gates);
        }
    }
}

#[cfg(feature = "gpu")]
#[cube]
fn columns(m: &mut Array<f32>, #[comptime] gates: Gates) {
    let n = comptime!(gates.streams as usize);
    let eps = comptime!(f32::from_bits(gates.eps));
    #[unroll]
    for j in 0..n {
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..n {
            sum += m[comptime!(2 * n + i * n + j)];
        }
        #[unroll]
        for i in 0..n {
            m[comptime!(2 * n + i * n + j)] /= sum + eps;
        }
    }
}

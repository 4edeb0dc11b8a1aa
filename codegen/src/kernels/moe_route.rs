//! `moe_route x @w @bias fmt= k= scale=`, `moe_route_hash x @w @table ids fmt= scale=`:
//!
//! ```text
//! moe_route      = (select_experts ?s (add ?s ?bias) ?k ?scale)
//! moe_route_hash = (hash_experts ?s ?table ?ids ?scale)
//! where ?s       = (router_scores (matmul (round_act ?x ?fmt) ?w))
//! ```
//! A product as in `matmul` into scratch, then one subgroup per token: every lane keeps its share of
//! the scores in registers and the largest is taken k times, ties to the lower index.
use super::common::{Number, Rows};
use super::matmul;
use super::product::Product;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use ds4_ir::{Role, Scalar};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::{number, rows},
    crate::emit,
    cubecl::prelude::*,
};

pub(crate) const MOE_ROUTE: Kernel = Kernel {
    op: "moe_route",
    launches: |site, maxima, target| {
        let bias = Number::of(site.weight(2).scalar)?;
        launches(site, maxima, target, Choice::Score(bias), site.int(4), site.real(5))
    },
    cases: &[
        Case {
            header: "%x: f32[t, 96], @w: f32[37, 96], @bias: f32[37]",
            node: "moe_route %x, @w, @bias, fmt=f32, k=6, scale=1.5 : route[t, 6]",
            steps: &[0..1, 1..4],
        },
        Case {
            header: "%x: f32[t, 96], @w: bf16[8, 96], @bias: f32[8]",
            node: "moe_route %x, @w, @bias, fmt=f32, k=8, scale=2.5 : route[t, 8]",
            steps: &[0..1, 1..4],
        },
    ],
    tolerance: 1e-5,
};

pub(crate) const MOE_ROUTE_HASH: Kernel = Kernel {
    op: "moe_route_hash",
    launches: |site, maxima, target| {
        let table = site.weight(2);
        let wide = table.scalar == Scalar::I64;
        launches(site, maxima, target, Choice::Hash { wide }, table.dims[1].constant()?, site.real(5))
    },
    cases: &[
        Case {
            header: "%x: f32[t, 96], @w: f32[8, 96], @table: i32[16, 2], %ids: i32[t]",
            node: "moe_route_hash %x, @w, @table, %ids, fmt=f32, scale=1.5 : route[t, 2]",
            steps: &[0..1, 1..4],
        },
        Case {
            header: "%x: f32[t, 1536], @w: bf16[8, 1536], @table: i32[16, 2], %ids: i32[t]",
            node: "moe_route_hash %x, @w, @table, %ids, fmt=f32, scale=1.5 : route[t, 2]",
            steps: &[0..4],
        },
        Case {
            header: "%x: f32[t, 96], @w: f32[8, 96], @table: i64[16, 3], %ids: i32[t]",
            node: "moe_route_hash %x, @w, @table, %ids, fmt=f32, scale=1.5 : route[t, 3]",
            steps: &[0..1, 1..4],
        },
    ],
    tolerance: 1e-5,
};

/// How experts are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Choice {
    /// By score and bias.
    Score(Number),
    /// By token id, from a table of `i64` or `i32`.
    Hash { wide: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Select {
    tokens: Rows,
    experts: u32,
    k: u32,
    choice: Choice,
    scale: u32,
}

fn launches(
    site: &Site<'_>,
    maxima: &Maxima,
    target: &Target,
    choice: Choice,
    k: u32,
    scale: f64,
) -> Option<Vec<Launch>> {
    let (x, w) = (site.value(0), site.weight(1));
    let [experts, width] = w.constants()?[..] else { return None };
    let fmt = site.format(if matches!(choice, Choice::Score(_)) { 3 } else { 4 });
    let tokens = Rows::of(&x.dims[..1]);
    let most = tokens.max(maxima);
    let product = Product::new(w.scalar, experts, x.scalar, width, most, target)?.rounded(fmt, width)?;
    let bytes = u64::from(most) * u64::from(experts) * 4;
    let logits = Binding::Scratch { offset: 0, bytes };
    let first = matmul::launch(tokens, product, most, 0, Binding::Step, (1, w.scalar), logits.clone());
    let ids = if matches!(choice, Choice::Score(_)) { Binding::Step } else { Binding::Value(3) };
    let second = Launch {
        block: [target.subgroup, 1, 1],
        grid: [most, 1, 1],
        bindings: vec![Binding::Step, logits, Binding::Weight(2, Role::Codes), ids, Binding::Out],
        text: Arc::new(Select { tokens, experts, k, choice, scale: (scale as f32).to_bits() }),
    };
    Some(vec![first, second])
}

impl Text for Select {
    fn name(&self) -> &'static str {
        match self.choice {
            Choice::Score(_) => "select_experts",
            Choice::Hash { .. } => "hash_experts",
        }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let lanes = at.target.subgroup;
        match self.choice {
            Choice::Score(bias) => CubeKernel::define(&select_experts::SelectExperts::new(
                set, dev, lang, b0, b1, b2, b3, b4, *self, bias, lanes,
            )),
            Choice::Hash { wide } => CubeKernel::define(&hash_experts::HashExperts::new(
                set, dev, lang, b0, b1, b2, b3, b4, *self, wide,
            )),
        }
    }
}

/// √softplus.
#[cfg(feature = "gpu")]
#[cube]
fn score(x: f32) -> f32 {
    (max(x, 0.0f32) + ln_1p((-x.abs()).exp())).sqrt()
}

/// ln(1 + x) for x in [0, 1], to a rounding or two: the logarithm of a rounded sum, corrected by what
/// the rounding did to x.
#[cfg(feature = "gpu")]
#[cube]
fn ln_1p(x: f32) -> f32 {
    let sum = 1.0f32 + x;
    let kept = sum - 1.0f32;
    select(kept == 0.0f32, x, sum.ln() * (x / max(kept, 1e-30f32)))
}

/// A number that orders as floats do; NaN lies below all.
#[cfg(feature = "gpu")]
#[cube]
fn order(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    let key = select((bits >> 31u32) == 1u32, !bits, bits | 0x8000_0000u32);
    select((bits & 0x7fff_ffffu32) > 0x7f80_0000u32, 1u32, key)
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn select_experts(
    step: &[i32],
    logits: &[f32],
    bias: &[u32],
    _ids: &[i32],
    out: &mut [u32],
    #[comptime] s: Select,
    #[comptime] kind: Number,
    #[comptime] lanes: u32,
) {
    let token = CUBE_POS_X as usize;
    if token >= rows(step, comptime!(s.tokens)) {
        terminate!();
    }
    let (experts, each) = comptime!((s.experts as usize, s.experts.div_ceil(lanes) as usize));
    let lane = UNIT_POS as usize;
    let mut scores = Array::<f32>::new(each);
    let mut keys = Array::<u32>::new(each);
    #[unroll]
    for i in 0..each {
        let expert = lane + comptime!(i * lanes as usize);
        if expert < experts {
            scores[i] = score(logits[token * experts + expert]);
            keys[i] = order(scores[i] + number(bias, expert, kind));
        }
    }
    let mut sum = 0.0f32;
    let mut weight = 0.0f32;
    let mut chosen = 0u32;
    for slot in 0..comptime!(s.k) {
        let mut top = 0u32;
        #[unroll]
        for i in 0..each {
            top = max(top, keys[i]);
        }
        let top = plane_max(top);
        let mut first = 0xffff_ffffu32;
        let mut its = 0.0f32;
        #[unroll]
        for i in 0..each {
            let expert = UNIT_POS + comptime!(i as u32 * lanes);
            if keys[i] == top && expert < first {
                first = expert;
                its = scores[i];
            }
        }
        let winner = plane_min(first);
        // One lane has it; it tells the others and takes it out.
        let its = plane_shuffle(its, winner % lanes);
        #[unroll]
        for i in 0..each {
            if UNIT_POS + comptime!(i as u32 * lanes) == winner {
                keys[i] = 0u32;
            }
        }
        sum += its;
        if UNIT_POS == slot {
            chosen = winner;
            weight = its;
        }
    }
    if UNIT_POS < comptime!(s.k) {
        let at = (token * comptime!(s.k as usize) + lane) * 2usize;
        out[at] = chosen;
        out[at + 1] = u32::reinterpret(weight / sum * comptime!(f32::from_bits(s.scale)));
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn hash_experts(
    step: &[i32],
    logits: &[f32],
    table: &[u32],
    ids: &[i32],
    out: &mut [u32],
    #[comptime] s: Select,
    #[comptime] wide: bool,
) {
    let token = CUBE_POS_X as usize;
    if token >= rows(step, comptime!(s.tokens)) {
        terminate!();
    }
    let (k, lane) = (comptime!(s.k as usize), UNIT_POS as usize);
    let mut weight = 0.0f32;
    let mut expert = 0u32;
    if lane < k {
        let entry = ids[token] as usize * k + lane;
        // Expert numbers are small: the low word of a wide one is all of it.
        expert = table[if wide { 2usize * entry } else { entry }];
        weight = score(logits[token * comptime!(s.experts as usize) + expert as usize]);
    }
    let sum = plane_sum(weight);
    if lane < k {
        let at = (token * k + lane) * 2usize;
        out[at] = expert;
        out[at + 1] = u32::reinterpret(weight / sum * comptime!(f32::from_bits(s.scale)));
    }
}

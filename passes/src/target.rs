//! What each target can launch and what that costs: the prices that `fuse` chooses by.
//!
//! For the GPUs this is the list of kernels intended. Every primitive is one launch everywhere.
use crate::cost::{Cost, Site};
use ds4_ir::ops::{Sig, SigArg, Term};
use ds4_ir::plan::Maxima;
use ds4_ir::{Dim, StateKind, Type};
use std::fmt;

/// What a module is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// The processor itself.
    Cpu,
    /// NVIDIA.
    Cuda,
    /// AMD.
    Hip,
    /// Apple.
    Metal,
}

/// A fused op's launches on each target, in the order of [`Target::ALL`]; 0 where it has no kernel.
struct Row(&'static str, [u8; 4]);

/// Two launches where the work is split over the device and joined: scores then selection, partial
/// softmaxes then their merge.
#[rustfmt::skip]
const KERNELS: &[Row] = &[
    //                             cpu cuda hip metal
    Row("compress_append",        [0,  1,  1,  1]),
    Row("compress_index_append",  [0,  1,  1,  1]),
    Row("compress_index_row",     [1,  1,  1,  1]),
    Row("compress_row",           [1,  1,  1,  1]),
    Row("csa_attend",             [1,  2,  2,  2]),
    Row("hc_enter",               [1,  1,  1,  1]),
    Row("hc_head_enter",          [1,  1,  1,  1]),
    Row("hc_pre_norm",            [1,  1,  1,  1]),
    Row("hca_attend",             [1,  2,  2,  2]),
    Row("head_rope",              [1,  1,  1,  1]),
    Row("index_query",            [1,  1,  1,  1]),
    Row("index_select",           [1,  2,  2,  2]),
    Row("kv_row",                 [1,  1,  1,  1]),
    Row("linear",                 [1,  1,  1,  1]),
    Row("mlp_up",                 [1,  1,  1,  1]),
    Row("moe_down",               [1,  1,  1,  1]),
    Row("moe_post",               [0,  1,  1,  1]),
    Row("moe_route",              [1,  2,  2,  2]),
    Row("moe_route_hash",         [1,  2,  2,  2]),
    Row("moe_up",                 [1,  1,  1,  1]),
    Row("norm_linear",            [1,  1,  1,  1]),
    Row("out_low",                [1,  1,  1,  1]),
    Row("out_post",               [0,  1,  1,  1]),
    Row("swa_attend",             [1,  2,  2,  2]),
];

/// Round figures of a machine of that kind, for choosing only: a launch in ns, memory in GB/s,
/// arithmetic in GFLOP/s.
struct Rates(u64, u64, u64);

impl Target {
    /// All targets by name.
    pub const ALL: [(&'static str, Target); 4] =
        [("cpu", Target::Cpu), ("cuda", Target::Cuda), ("hip", Target::Hip), ("metal", Target::Metal)];

    /// Reads a name of [`Target::ALL`].
    pub fn parse(name: &str) -> Option<Target> {
        Target::ALL.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
    }

    fn rates(self) -> Rates {
        match self {
            Target::Cpu => Rates(3_000, 50, 500),
            Target::Cuda => Rates(2_000, 1_500, 40_000),
            Target::Hip => Rates(4_000, 250, 20_000),
            Target::Metal => Rates(3_000, 500, 15_000),
        }
    }

    /// Launches of one node, `None` where the target has no kernel for it.
    pub fn launches(self, site: &Site<'_>) -> Option<u64> {
        if site.is_view() {
            return Some(0);
        }
        if site.op.definition().is_none() {
            return Some(1);
        }
        let row = KERNELS.iter().find(|row| row.0 == site.op.name)?;
        Some(u64::from(row.1[self as usize])).filter(|n| *n > 0)
    }

    /// Whether the target has a kernel for the op of that name.
    pub fn has_kernel(self, op: &str) -> bool {
        KERNELS.iter().find(|row| row.0 == op).is_none_or(|row| row.1[self as usize] > 0)
    }

    /// The cost of one node with its launches, `None` where the target has no kernel for it.
    pub fn cost(self, site: &Site<'_>, maxima: &Maxima) -> Option<Cost> {
        Some(Cost { launches: self.launches(site)?, ..site.cost(maxima) })
    }

    /// What choosing this node is charged, in picoseconds; `None` is infinite.
    pub fn price(self, site: &Site<'_>, maxima: &Maxima) -> Option<u64> {
        let Rates(launch_ns, gb_s, gflop_s) = self.rates();
        let cost = self.cost(site, maxima)?;
        let time = cost.launches * launch_ns * 1000
            + cost.bytes() * 1000 / gb_s
            + (cost.flops + cost.int_ops) * 1000 / gflop_s;
        // Of two spellings that cost the same the primitive one is kept.
        Some(time + u64::from(site.op.definition().is_some()))
    }

    /// Bytes that a kernel needs beside operands and result.
    ///
    /// On the CPU a fused op without loops of its own runs its parts in turn, in scratch. The GPU
    /// kernels intended hold what they can on chip; what goes through memory is listed here.
    pub fn scratch(self, site: &Site<'_>, maxima: &Maxima) -> u64 {
        match self {
            Target::Cpu => cpu_scratch(site, maxima),
            _ => gpu_scratch(site, maxima),
        }
    }
}

/// Fused ops whose CPU kernel streams: its buffers are rows per thread, and scores for small steps.
pub const CPU_STREAMS: [&str; 10] = [
    "compress_index_row",
    "compress_row",
    "csa_attend",
    "hc_pre_norm",
    "hca_attend",
    "head_rope",
    "index_query",
    "index_select",
    "kv_row",
    "swa_attend",
];

/// Most tokens whose attention and index scores a CPU splits over its threads, through scratch.
const CPU_SPLIT_TOKENS: u32 = 8;
/// Keys of a block of scores, which has a maximum per head.
const CPU_KEY_BLOCK: u64 = 16;

/// Scores of all keys that a token may see, by key and head, for each token of a small step.
fn cpu_scores(site: &Site<'_>, maxima: &Maxima) -> u64 {
    if maxima.tokens > CPU_SPLIT_TOKENS {
        return 0;
    }
    let dims = |i: usize| match site.args[i] {
        SigArg::Value(ty) => ty.tensor().map_or(&[][..], |t| &t.dims[..]),
        _ => &[],
    };
    let extent = |i: usize, axis: usize| dims(i).get(axis).and_then(|d| d.constant()).map_or(0, u64::from);
    let rows = |i: usize| match site.args[i] {
        SigArg::Value(Type::State(s)) => match s.kind {
            StateKind::Ring(span) => u64::from(span),
            kind => u64::from(maxima.ctx.div_ceil(kind.span())),
        },
        _ => 0,
    };
    let floats = match site.op.name {
        "swa_attend" => attend_floats(rows(1), extent(0, 1)),
        "csa_attend" => attend_floats(rows(1) + extent(4, 1), extent(0, 1)),
        "hca_attend" => attend_floats(rows(1) + rows(3), extent(0, 1)),
        "index_select" => rows(2),
        _ => 0,
    };
    u64::from(maxima.tokens) * floats * 4
}

fn attend_floats(keys: u64, heads: u64) -> u64 {
    (keys.div_ceil(CPU_KEY_BLOCK) + keys) * heads
}

fn cpu_scratch(site: &Site<'_>, maxima: &Maxima) -> u64 {
    let Some(definition) = site.op.definition().filter(|_| !CPU_STREAMS.contains(&site.op.name)) else {
        return cpu_scores(site, maxima);
    };
    let types = definition.types(&Sig { args: site.args.to_vec() }).expect("a typed node has typed parts");
    let inner = definition.terms.iter().zip(&types).take(definition.terms.len() - 1);
    let part = |(term, ty): (&Term, &Option<Type>)| {
        let (Term::Apply(op, args), Some(ty)) = (term, ty) else { return 0 };
        let arg = |i: &usize| match (&definition.terms[*i], &types[*i]) {
            (Term::Formal(at), _) => site.args[*at],
            (_, ty) => SigArg::Value(ty.as_ref().expect("a part has a type")),
        };
        let args: Vec<SigArg<'_>> = args.iter().map(arg).collect();
        if (Site { op, args: &args, ty }).is_view() {
            return 0;
        }
        ty.tensor().and_then(|t| maxima.bytes(t)).unwrap_or(0)
    };
    inner.map(part).sum()
}

/// Tokens that split their work over the device; with more, tokens fill it.
const SPLIT_TOKENS: u64 = 8;
/// Keys of one partial softmax.
const SPLIT_KEYS: u64 = 128;
/// Tokens whose index scores are held at once.
const SCORE_TOKENS: u64 = 32;
/// Partial sums of a long row.
const SPLIT_ROW: u64 = 32;

fn gpu_scratch(site: &Site<'_>, maxima: &Maxima) -> u64 {
    let tokens = u64::from(maxima.tokens);
    let out = site.ty.tensor();
    let last = |i: usize| match site.args[i] {
        SigArg::Value(ty) => ty.tensor().and_then(|t| t.dims.last()?.constant()).map_or(0, u64::from),
        SigArg::Weight(ty) => u64::from(ty.dims[0].constant().unwrap_or(0)),
        SigArg::Lit(_) => 0,
    };
    let entries = site.args.iter().find_map(|a| match a {
        SigArg::Value(Type::State(s)) if matches!(s.kind, StateKind::Entries(_)) => {
            Some(u64::from(maxima.ctx.div_ceil(s.kind.span())))
        }
        _ => None,
    });
    let partial = |keys: u64| {
        let dims = out.map_or(&[][..], |t| &t.dims[1..]);
        let fixed = |d: &Dim| d.constant().map_or(0, u64::from);
        let [heads, width] = dims else { return 0 };
        tokens.min(SPLIT_TOKENS) * keys.div_ceil(SPLIT_KEYS) * fixed(heads) * (fixed(width) + 2) * 4
    };
    match site.op.name {
        "index_select" => tokens.min(SCORE_TOKENS) * entries.unwrap_or(0) * 4,
        "swa_attend" => partial(128),
        "csa_attend" => partial(128 + last(4)),
        // Partial softmaxes of a whole context would be as large as the values: at most 64 parts.
        "hca_attend" => partial((128 + entries.unwrap_or(0)).min(64 * SPLIT_KEYS)),
        "moe_route" | "moe_route_hash" => tokens * last(1) * 4,
        "hc_enter" | "hc_head_enter" => tokens * last(1) * SPLIT_ROW * 4,
        _ => 0,
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Target::ALL[*self as usize].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fused_op_is_somewhere_and_every_row_is_an_op() {
        let names: Vec<&str> = KERNELS.iter().map(|row| row.0).collect();
        assert!(names.is_sorted(), "{names:?}");
        let fused = ds4_ir::ops::ops().filter(|op| op.definition().is_some());
        let mut fused: Vec<&str> = fused.map(|op| op.name).collect();
        fused.sort_unstable();
        assert_eq!(names, fused);
    }
}

//! What kernels need of the arena beside operands and results.
use crate::Target;
use crate::cost::{Site, elements};
use ds4_ir::ops::{Sig, SigArg, Term};
use ds4_ir::plan::Maxima;
use ds4_ir::{Scalar, StateKind, Type};

impl Target {
    /// Bytes that a kernel needs beside operands and result.
    ///
    /// On the CPU products need their prepared inputs, and a fused op without a kernel of its own runs
    /// its parts in turn, in scratch. Of a device the kernels say what they need; 0 where there is none.
    pub fn scratch(self, site: &Site<'_>, maxima: &Maxima) -> u64 {
        match self {
            Target::Cpu => cpu_scratch(site, maxima),
            Target::Gpu(kernels) => kernels.needs(site, maxima).map_or(0, |needs| needs.scratch),
        }
    }
}

/// Fused ops whose CPU kernel streams: its buffers are rows per thread, and scores for small steps.
const CPU_STREAMS: [&str; 10] = [
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

/// Alignment of the pieces of a product's scratch, and the most pieces there are.
const PIECES: (u64, u64) = (64, 10);
/// Bytes of a list's entry: an input row and a result row, or a route and its place.
const COLUMN: u64 = 8;

fn cpu_scratch(site: &Site<'_>, maxima: &Maxima) -> u64 {
    let rows = |i: usize, w: usize| elements(site.value(i), maxima) / site.columns(w);
    let normed = site.op.name.starts_with("hc_");
    let input = |x: usize, fmt: Scalar, weights: &[usize]| {
        let columns = COLUMN * rows(x, weights[0]);
        // Numbers are read as they lie.
        if !normed && fmt == Scalar::F32 && site.columns(weights[0]).is_multiple_of(16) {
            return columns;
        }
        columns + rows(x, weights[0]) * prepared(site, fmt, weights)
    };
    let grouping = |w: usize, routes: usize| {
        let experts = site.weight(w).dims[0].constant().map_or(0, u64::from);
        2 * COLUMN * elements(site.value(routes), maxima) + 4 * (1 + 3 * experts)
    };
    let mix = || elements(site.value(0), maxima) / site.columns(1) * site.rows(1) * 4;
    let own = match site.op.name {
        "matmul" | "grouped_matmul" => input(0, site.value(0).scalar, &[1]),
        "expert_matmul" => input(0, site.value(0).scalar, &[1]) + grouping(1, 2),
        "mlp_up" => input(0, site.format(3), &[1, 2]),
        "moe_up" => input(0, site.format(4), &[1, 2]) + grouping(1, 3),
        "moe_down" => input(0, site.format(5), &[1]) + input(3, site.format(6), &[4]) + grouping(1, 2),
        "hc_enter" | "hc_head_enter" => input(0, site.format(5), &[1]) + mix(),
        "moe_route" => input(0, site.format(3), &[1]) + mix(),
        "moe_route_hash" => input(0, site.format(4), &[1]) + mix(),
        name if CPU_STREAMS.contains(&name) => return cpu_scores(site, maxima),
        _ => return cpu_parts(site, maxima),
    };
    own + PIECES.0 * PIECES.1
}

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

/// Bytes of an input row of `fmt` as the kernels for these weights read it, at most.
fn prepared(site: &Site<'_>, fmt: Scalar, weights: &[usize]) -> u64 {
    let width = site.columns(weights[0]);
    let integers = |w: Scalar| match fmt {
        Scalar::Q8_0 => matches!(w, Scalar::Q8_0 | Scalar::Mxfp4 | Scalar::Fp4),
        Scalar::Q8K => matches!(w, Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs),
        _ => false,
    };
    // Codes, then scales and sums of blocks; or numbers; or tables of signed sums, then scales, where the
    // weight may be packed as sign planes.
    let bytes = |w: Scalar| {
        if integers(w) && w == Scalar::Iq2Xxs {
            8 * width + (width / 64).next_multiple_of(PIECES.0) + PIECES.0
        } else if integers(w) {
            width.next_multiple_of(256) / 4 * 5 + 2 * PIECES.0
        } else {
            width * 4 + PIECES.0
        }
    };
    let mut scalars: Vec<Scalar> = weights.iter().map(|i| site.weight(*i).scalar).collect();
    scalars.dedup();
    scalars.into_iter().map(bytes).sum()
}

/// The values of a fused op's parts, and the scratch of the neediest.
fn cpu_parts(site: &Site<'_>, maxima: &Maxima) -> u64 {
    let Some(definition) = site.op.definition() else { return 0 };
    let types = definition.types(&Sig { args: site.args.to_vec() }).expect("a typed node has typed parts");
    let last = definition.terms.len() - 1;
    let (mut values, mut neediest) = (0, 0);
    for (i, (term, ty)) in definition.terms.iter().zip(&types).enumerate() {
        let (Term::Apply(op, args), Some(ty)) = (term, ty) else { continue };
        let arg = |i: &usize| match (&definition.terms[*i], &types[*i]) {
            (Term::Formal(at), _) => site.args[*at],
            (_, ty) => SigArg::Value(ty.as_ref().expect("a part has a type")),
        };
        let args: Vec<SigArg<'_>> = args.iter().map(arg).collect();
        let part = Site { op, args: &args, ty };
        if part.is_view() {
            continue;
        }
        neediest = neediest.max(cpu_scratch(&part, maxima));
        if i < last {
            values += ty.tensor().and_then(|t| maxima.bytes(t)).unwrap_or(0);
        }
    }
    values + neediest
}

//! `hc_enter h @w @scale @base norm_eps= fmt= iters= eps=`,
//! `hc_head_enter h @w @scale @base norm_eps= fmt= eps=`:
//!
//! ```text
//! hc_enter      = (hc_gates      (matmul (round_act (flat_norm ?h ?norm_eps) ?fmt) ?w) ?scale ?base ?iters ?eps)
//! hc_head_enter = (hc_head_gates (matmul (round_act (flat_norm ?h ?norm_eps) ?fmt) ?w) ?scale ?base ?eps)
//! ```
//! A long row against few rows of the matrix: the first launch cuts the row into as many parts as it
//! has tiles and writes each part's sums of squares and products; the second adds them up, norms, and
//! runs the gates in one subgroup per token, an entry of the combine matrix per lane.
use super::common::{Number, Rows};
use super::product::{Norm, Product, matrix};
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use ds4_ir::{Role, Scalar};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::{number, rows},
    super::product::{Tile, Window, norm_factors, row_sums, stage},
    crate::emit,
    cubecl::prelude::*,
};

pub(crate) const HC_ENTER: Kernel = Kernel {
    op: "hc_enter",
    launches: |site, maxima, target| launches(site, maxima, target, false),
    cases: &[
        Case {
            header: "%h: f32[t, 4, 160], @w: f32[24, 640], @scale: f32[3], @base: f32[24]",
            node: "hc_enter %h, @w, @scale, @base, norm_eps=1e-6, fmt=f32, iters=20, eps=1e-6 : f32[t, 24]",
            steps: &[0..1, 1..4],
        },
        Case {
            header: "%h: f32[t, 2, 128], @w: bf16[8, 256], @scale: f32[3], @base: bf16[8]",
            node: "hc_enter %h, @w, @scale, @base, norm_eps=1e-6, fmt=bf16, iters=3, eps=1e-4 : f32[t, 8]",
            steps: &[0..1, 1..4],
        },
    ],
    tolerance: 1e-5,
};

pub(crate) const HC_HEAD_ENTER: Kernel = Kernel {
    op: "hc_head_enter",
    launches: |site, maxima, target| launches(site, maxima, target, true),
    cases: &[Case {
        header: "%h: f32[w, 4, 160], @w: f32[4, 640], @scale: f32[1], @base: f32[4]",
        node: "hc_head_enter %h, @w, @scale, @base, norm_eps=1e-6, fmt=f32, eps=1e-6 : f32[w, 4]",
        steps: &[0..1, 1..4],
    }],
    tolerance: 1e-5,
};

#[derive(Debug)]
struct Mix {
    inputs: Rows,
    product: Product,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Gates {
    inputs: Rows,
    /// Gates of a token.
    mix: u32,
    /// Streams; 0 for the head, whose gates are n and no more.
    streams: u32,
    /// Parts of a row.
    parts: u32,
    width: u32,
    /// Whether the first launch has normed its input already.
    normed: bool,
    norm_eps: u32,
    iters: u32,
    eps: u32,
    scale: Number,
    base: Number,
}

fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target, head: bool) -> Option<Vec<Launch>> {
    let (h, w) = (site.value(0), site.weight(1));
    let [mix, width] = w.constants()?[..] else { return None };
    let inputs = Rows::of(&h.dims[..1]);
    let most = inputs.max(maxima);
    let product = Product::new(w.scalar, mix, h.scalar, width, most, target)?;
    let product = product.cut(512, mix.div_ceil(product.subgroups));
    let fmt = site.format(5);
    let product = product.rounded(fmt, width)?;
    let norm_eps = (site.real(4) as f32).to_bits();
    // Rounding comes after the norm; without it the norm's factor is applied to the sums.
    let normed = fmt != Scalar::F32;
    let product = Product { norm: if normed { Norm::Plain(norm_eps) } else { Norm::None }, ..product };
    let streams = if head { 0 } else { h.dims[1].constant()? };
    // The combine matrix lies in one subgroup, rows and columns found by their bits.
    let fits = streams == 0 || streams.is_power_of_two() && streams * streams <= target.subgroup;
    let gates = Gates {
        inputs,
        mix,
        streams,
        parts: product.tiles(),
        width,
        normed,
        norm_eps,
        iters: if head { 0 } else { site.int(6) },
        eps: (site.real(if head { 6 } else { 7 }) as f32).to_bits(),
        scale: Number::of(site.weight(2).scalar)?,
        base: Number::of(site.weight(3).scalar)?,
    };
    let bytes = u64::from(most) * u64::from(gates.parts) * u64::from(mix + 1) * 4;
    let sums = Binding::Scratch { offset: 0, bytes };
    let [codes, scales] = matrix(1, w.scalar);
    let first = Launch {
        block: [product.threads(), 1, 1],
        grid: [gates.parts, most.div_ceil(product.tokens), 1],
        bindings: vec![Binding::Step, Binding::Value(0), codes, scales, product.table(), sums.clone()],
        text: Arc::new(Mix { inputs, product }),
    };
    let (scale, base) = (Binding::Weight(2, Role::Codes), Binding::Weight(3, Role::Codes));
    let second = Launch {
        block: [target.subgroup, 1, 1],
        grid: [most, 1, 1],
        bindings: vec![Binding::Step, sums, scale, base, Binding::Out],
        text: Arc::new(gates),
    };
    fits.then(|| vec![first, second])
}

impl Text for Mix {
    fn name(&self) -> &'static str {
        "hc_mix"
    }

    fn holds_many_sums(&self) -> bool {
        self.product.holds_many_sums()
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (inputs, p) = (self.inputs, self.product);
        CubeKernel::define(&hc_mix::HcMix::new(set, dev, lang, b0, b1, b2, b3, b4, b5, inputs, p))
    }
}

impl Text for Gates {
    fn name(&self) -> &'static str {
        if self.streams == 0 { "hc_head_gates" } else { "hc_gates" }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let lanes = at.target.subgroup;
        CubeKernel::define(&hc_gates::HcGates::new(set, dev, lang, b0, b1, b2, b3, b4, *self, lanes))
    }
}

/// Per input and part: the sum of squares if it is not normed, then the product with each row of the matrix.
#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn hc_mix(
    step: &[i32],
    h: &[u32],
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    out: &mut [f32],
    #[comptime] inputs: Rows,
    #[comptime] p: Product,
) {
    let end = rows(step, inputs);
    let (tokens, each, n) = comptime!((p.tokens as usize, p.each as usize, p.rows as usize));
    let first = CUBE_POS_Y as usize * tokens;
    if first >= end {
        terminate!();
    }
    let mut held = Tile::new(p);
    let mut window = Window::new(p);
    let mut sums = Array::<f32>::new(comptime!(tokens * each));
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let (row, tile) = (subgroup * each, CUBE_POS_X as usize);
    norm_factors(h, first, end, &mut held, p);
    sync_cube();
    stage(h, h, first, end, 0usize, tile, &mut held, p);
    sync_cube();
    row_sums(codes, scales, table, 0usize, 0usize, row, n, tile, &held, &mut window, &mut sums, p);
    let (parts, size) = comptime!((p.tiles() as usize, p.rows as usize + 1));
    // Without a norm before the product, the second launch norms its sums.
    if comptime!(p.norm == Norm::None) {
        for t in range_stepped(subgroup, tokens, comptime!(p.subgroups as usize)) {
            let mut squares = 0.0f32;
            // Columns behind the last are zero.
            for i in range_stepped(
                UNIT_POS_PLANE as usize,
                comptime!(p.tile as usize),
                comptime!(p.lanes as usize),
            ) {
                let value = held.number(t, i, p);
                squares = fma(value, value, squares);
            }
            let squares = plane_sum(squares);
            if UNIT_POS_PLANE == 0 && first + t < end {
                out[((first + t) * parts + tile) * size] = squares;
            }
        }
    }
    #[unroll]
    for r in 0..each {
        #[unroll]
        for t in 0..tokens {
            let sum = plane_sum(sums[comptime!(r * tokens + t)]);
            if UNIT_POS_PLANE == 0 && row + r < n && first + t < end {
                out[((first + t) * parts + tile) * size + 1 + row + r] = sum;
            }
        }
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn hc_gates(
    step: &[i32],
    sums: &[f32],
    scale: &[u32],
    base: &[u32],
    out: &mut [f32],
    #[comptime] g: Gates,
    #[comptime] lanes: u32,
) {
    let input = CUBE_POS_X as usize;
    if input >= rows(step, comptime!(g.inputs)) {
        terminate!();
    }
    let (mix, n, parts) = comptime!((g.mix as usize, g.streams as usize, g.parts as usize));
    let eps = comptime!(f32::from_bits(g.eps));
    let lane = UNIT_POS as usize;
    let from = input * comptime!(parts * (mix + 1));
    let mut factor = 1.0f32;
    if comptime!(!g.normed) {
        let mut squares = 0.0f32;
        for part in range_stepped(lane, parts, comptime!(lanes as usize)) {
            squares += sums[from + part * comptime!(mix + 1)];
        }
        let mean = plane_sum(squares) / comptime!(g.width as f32);
        factor = 1.0f32 / (mean + comptime!(f32::from_bits(g.norm_eps))).sqrt();
    }
    let to = input * mix;
    if comptime!(n == 0) {
        for i in range_stepped(lane, mix, comptime!(lanes as usize)) {
            let m = mixed(sums, from, i, factor, g);
            out[to + i] = sigmoid(m * number(scale, 0usize, g.scale) + number(base, i, g.base)) + eps;
        }
    } else {
        for i in range_stepped(lane, comptime!(2 * n), comptime!(lanes as usize)) {
            let m = mixed(sums, from, i, factor, g);
            let post = i >= n;
            let s =
                sigmoid(m * number(scale, select(post, 1usize, 0usize), g.scale) + number(base, i, g.base));
            out[to + i] = select(post, 2.0f32 * s, s + eps);
        }
        // Lane n·i + j has entry (i, j); lanes behind the matrix repeat it.
        let at = comptime!(2 * n) + lane % comptime!(n * n);
        let m = mixed(sums, from, at, factor, g);
        let mut c = m * number(scale, 2usize, g.scale) + number(base, at, g.base);
        let mut top = c;
        #[unroll]
        for bit in 0..comptime!(g.streams.ilog2()) {
            top = max(top, plane_shuffle_xor(top, comptime!(1 << bit)));
        }
        c = (c - top).exp();
        c = c / row_sum(c, g.streams) + eps;
        for round in 0..comptime!(g.iters) {
            if round > 0 {
                c = c / (row_sum(c, g.streams) + eps);
            }
            c = c / (column_sum(c, g.streams) + eps);
        }
        if lane < comptime!(n * n) {
            out[to + at] = c;
        }
    }
}

/// Product `i` of an input, its parts added up, normed.
#[cfg(feature = "gpu")]
#[cube]
fn mixed(sums: &[f32], from: usize, i: usize, factor: f32, #[comptime] g: Gates) -> f32 {
    let stride = comptime!(g.mix as usize + 1);
    let mut sum = 0.0f32;
    for part in 0..comptime!(g.parts as usize) {
        sum += sums[from + part * stride + 1 + i];
    }
    sum * factor
}

#[cfg(feature = "gpu")]
#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}

/// The sum over the row of an n × n matrix, an entry per lane.
#[cfg(feature = "gpu")]
#[cube]
fn row_sum(c: f32, #[comptime] n: u32) -> f32 {
    let mut sum = c;
    #[unroll]
    for bit in 0..comptime!(n.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(1 << bit));
    }
    sum
}

/// The sum over the column.
#[cfg(feature = "gpu")]
#[cube]
fn column_sum(c: f32, #[comptime] n: u32) -> f32 {
    let mut sum = c;
    #[unroll]
    for bit in 0..comptime!(n.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(n << bit));
    }
    sum
}

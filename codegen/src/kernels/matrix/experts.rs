//! Products with the matrices of chosen experts: a block of routes of one expert at a time.
use super::inputs::{self, Given};
use super::lists::Lists;
use super::product::{Dense, Outcome, dense};
use super::{Matrix, THREADS_MIN, suits};
use crate::kernels::common::Rows;
use crate::kernels::product::{Norm, experts};
use crate::{Binding, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use ds4_ir::{Scalar, TensorType};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::fragments::{accumulate, corner, spill, spilled, sums, unscaled},
    super::tile::{Held, Span, staged_row, turns},
    crate::emit,
    crate::kernels::gated::swiglu,
    cubecl::prelude::*,
};

/// Routes of a block: of a long step each expert has about a dozen.
const BLOCK: u32 = 32;
/// Alignment of the parts of scratch.
const ALIGN: u64 = 256;

#[derive(Debug)]
struct Spec {
    lists: Lists,
    matrix: Matrix,
    /// Routes that share an input.
    sharing: u32,
    /// Bits of the clamp, of a pair of matrices.
    clamp: u32,
}

/// The operands of a product with experts, by their places.
struct Routed<'a> {
    x: usize,
    input: &'a TensorType,
    format: Scalar,
    weights: &'a [usize],
    weight: &'a TensorType,
    routes: usize,
    slots: u32,
    tokens: Rows,
    clamp: u32,
}

/// The launches up to the sums of every route, which go to `out`, with scratch from byte `offset` on.
fn routed(
    of: &Routed<'_>,
    out: Binding,
    offset: u64,
    maxima: &Maxima,
    target: &Target,
) -> Option<Vec<Launch>> {
    if !suits(of.tokens, maxima, of.input.scalar) {
        return None;
    }
    let [experts_of, rows, width] = of.weight.constants()?[..] else { return None };
    let matrix = Matrix::new(of.format, 1, of.weight.scalar, rows, width, BLOCK, target)?;
    let pair = of.weights.len() == 2;
    let matrix = Matrix { pair, ..matrix };
    let lists = Lists::new(of.tokens, of.slots, experts_of, BLOCK, maxima, target)?;
    let (first, listed) = lists.launch(of.routes, offset, target);
    // Of a pair all routes of a token have its input.
    let (sharing, each) = if pair { (of.slots, 1) } else { (1, of.slots) };
    let inputs = Rows { each: of.tokens.each * each, ..of.tokens };
    let norm = (Norm::None, Binding::Step);
    let given = Given { inputs, operand: of.x, width, format: of.format, norm };
    let (second, ready) = inputs::launch(&given, &matrix, inputs.max(maxima), end(&listed), target)?;
    let mut bindings = vec![listed, ready, Binding::Value(of.routes)];
    for i in 0..2 {
        bindings.extend(experts(of.weights[i.min(of.weights.len() - 1)], of.weight.scalar));
    }
    bindings.push(matrix.weight.constant().map_or(Binding::Step, Binding::Constant));
    bindings.push(out);
    let third = Launch {
        block: [matrix.threads(), 1, 1],
        grid: [matrix.row_blocks(), lists.blocks(), 1],
        bindings,
        text: Arc::new(Spec { lists, matrix, sharing, clamp: of.clamp }),
    };
    Some([Some(first), second, Some(third)].into_iter().flatten().collect())
}

/// Where scratch behind a part of it begins.
fn end(part: &Binding) -> u64 {
    part.scratch_end().next_multiple_of(ALIGN)
}

/// `moe_up` on matrix units; `None` if it is not for them.
pub(crate) fn moe_up(site: &Site<'_>, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    let routes = site.value(3);
    let of = Routed {
        x: 0,
        input: site.value(0),
        format: site.format(4),
        weights: &[1, 2],
        weight: site.weight(1),
        routes: 3,
        slots: routes.dims[1].constant()?,
        tokens: Rows::of(&routes.dims[..1]),
        clamp: (site.real(5) as f32).to_bits(),
    };
    routed(&of, Binding::Out, 0, maxima, target)
}

/// `moe_down` and `moe_post`, whose operand `at` is x: every route's sums go to scratch, and the shared expert's product
/// adds them to its own.
pub(crate) fn moe_down(
    site: &Site<'_>,
    at: usize,
    formats: usize,
    maxima: &Maxima,
    target: &Target,
) -> Option<Vec<Launch>> {
    let (weight, routes, y, v) =
        (site.weight(at + 1), site.value(at + 2), site.value(at + 3), site.weight(at + 4));
    let slots = routes.dims[1].constant()?;
    let tokens = Rows::of(&routes.dims[..1]);
    let of = Routed {
        x: at,
        input: site.value(at),
        format: site.format(formats),
        weights: &[at + 1],
        weight,
        routes: at + 2,
        slots,
        tokens,
        clamp: 0,
    };
    let bytes = u64::from(tokens.max(maxima)) * u64::from(slots) * u64::from(v.dims[0].constant()?) * 4;
    let sums = Binding::Scratch { offset: 0, bytes };
    let free = end(&sums);
    let mut list = routed(&of, sums.clone(), free, maxima, target)?;
    let streams = if at == 0 { 0 } else { site.value(0).dims[1].constant()? };
    let shared = Dense {
        given: Given {
            inputs: tokens,
            operand: at + 3,
            width: v.dims[1].constant()?,
            format: site.format(formats + 1),
            norm: (Norm::None, Binding::Step),
        },
        input: y,
        weights: &[at + 4],
        weight: v,
        parts: 1,
        outcome: Outcome::Mixed { routes: slots, streams },
        with: if at == 0 {
            [Binding::Step, Binding::Step, sums]
        } else {
            [Binding::Value(0), Binding::Value(6), sums]
        },
    };
    // Nobody reads the lists and the inputs of experts any more.
    list.extend(dense(shared, free, maxima, target)?);
    Some(list)
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "expert_product"
    }

    fn threads_min(&self) -> Option<u32> {
        Some(THREADS_MIN)
    }

    fn tolerance(&self) -> f64 {
        self.matrix.tolerance()
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12] = emit::buffers();
        let (set, dev, lang) = at.wide_parts();
        let (lists, m, sharing, clamp) = (self.lists, self.matrix, self.sharing, self.clamp);
        CubeKernel::define(&expert_product::ExpertProduct::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, lists, m, sharing, clamp,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn expert_product(
    listed: &[u32],
    inputs: &[u32],
    routes: &[u32],
    codes: &[u32],
    codes_at: &[u64],
    scales: &[u32],
    scales_at: &[u64],
    other_codes: &[u32],
    other_codes_at: &[u64],
    other_scales: &[u32],
    other_scales_at: &[u64],
    table: &[u32],
    out: &mut [f32],
    #[comptime] lists: Lists,
    #[comptime] m: Matrix,
    #[comptime] sharing: u32,
    #[comptime] clamp: u32,
) {
    let block = CUBE_POS_Y;
    if block >= listed[0] {
        terminate!();
    }
    let of_block = (1u32 + 3u32 * block) as usize;
    let expert = listed[of_block] as usize;
    let first_route = comptime!(lists.first_route() as usize);
    let first = first_route + listed[of_block + 1] as usize;
    let end = first_route + listed[of_block + 2] as usize;
    let row = CUBE_POS_X as usize * comptime!(m.block_rows() as usize);
    let n = comptime!(m.rows as usize);
    let span = Span { codes: codes_at[expert] as usize, scales: scales_at[expert] as usize, row, end: n };
    let other = Span {
        codes: other_codes_at[expert] as usize,
        scales: other_scales_at[expert] as usize,
        row,
        end: n,
    };
    let mut from = Array::<usize>::new(comptime!(turns(m)));
    #[unroll]
    for turn in 0..comptime!(turns(m)) {
        let at = first + staged_row(turn, m);
        from[turn] = 0usize;
        if at < end {
            from[turn] = 1 + listed[at] as usize / comptime!(sharing as usize);
        }
    }
    let mut held = Held::new(m);
    let mut sums = sums(m);
    let exponent = accumulate(
        inputs,
        &from,
        codes,
        scales,
        &span,
        other_codes,
        other_scales,
        &other,
        table,
        &mut held,
        &mut sums,
        m,
    );
    let (f, across) = comptime!((m.fragment as usize, m.results() as usize));
    #[unroll]
    for i in 0..comptime!(m.deep() as usize) {
        spill(&sums, i, &mut held, m);
        let (above, aside) = corner(i, m);
        for e in range_stepped(UNIT_POS_PLANE as usize, comptime!(f * across), comptime!(m.lanes as usize)) {
            let (t, c) = (e / across, e % across);
            let (at, column) = (first + above + t, row + aside + c);
            if at < end && column < n {
                let route = listed[at] as usize;
                let of = route / comptime!(sharing as usize);
                let sum = unscaled(spilled(&held, t, c, m), inputs, of, exponent, m);
                if comptime!(m.pair) {
                    let up = unscaled(spilled(&held, t, c + across, m), inputs, of, exponent, m);
                    let weight = f32::reinterpret(routes[2 * route + 1]);
                    out[route * n + column] = swiglu(sum, up, clamp) * weight;
                } else {
                    out[route * n + column] = sum;
                }
            }
        }
    }
}

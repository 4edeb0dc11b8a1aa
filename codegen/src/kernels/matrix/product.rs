//! The product of all inputs with one matrix, or with two of a shape, and what becomes of the sums.
use super::inputs::{self, Given};
use super::{Matrix, THREADS_MIN, WHOLE_ROWS_MIN, suits};
use crate::kernels::common::Rows;
use crate::kernels::product::matrix;
use crate::{Binding, Launch, Target, Text};
use ds4_ir::TensorType;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::fragments::{accumulate, corner, spill, spilled, sums, unscaled},
    super::tile::{Held, Span, staged_row, turns},
    crate::emit,
    crate::kernels::common::rows,
    crate::kernels::gated::swiglu,
    crate::kernels::product::hc_post,
    cubecl::prelude::*,
};

/// What becomes of the sums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Outcome {
    /// They are the result.
    Rows,
    /// Those of the two matrices are gate and input; the bits of the clamp.
    Gated(u32),
    /// They are added to those of so many routes of the token and then, unless there are none, mixed into so many
    /// streams.
    Mixed { routes: u32, streams: u32 },
}

/// A product that an op asks for.
pub(crate) struct Dense<'a> {
    /// The inputs, and their operand's type.
    pub(crate) given: Given,
    pub(crate) input: &'a TensorType,
    /// Operands that are matrices, one or two of a type.
    pub(crate) weights: &'a [usize],
    pub(crate) weight: &'a TensorType,
    /// Inputs of a token.
    pub(crate) parts: u32,
    /// What becomes of the sums, and the streams, gates and routes' sums that it takes.
    pub(crate) outcome: Outcome,
    pub(crate) with: [Binding; 3],
}

#[derive(Debug)]
struct Spec {
    inputs: Rows,
    matrix: Matrix,
    outcome: Outcome,
}

/// The launches of a product on matrix units, with scratch from byte `offset` on. `None` if they are not for it.
pub(crate) fn dense(of: Dense<'_>, offset: u64, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    let Dense { given, input, weights, weight, parts, outcome, with } = of;
    if !suits(given.inputs, maxima, input.scalar) {
        return None;
    }
    let [rows, width] = weight.constants()?[..] else { return None };
    let most = given.inputs.max(maxima);
    let block = if most < 512 { 64 } else { 128 };
    let matrix_of = Matrix::new(given.format, parts, weight.scalar, rows, width, block, target)?;
    let m = Matrix { pair: weights.len() == 2, ..matrix_of };
    if m.whole && rows < WHOLE_ROWS_MIN {
        return None;
    }
    let (first, ready) = inputs::launch(&given, &m, most, offset, target)?;
    let mut bindings = vec![Binding::Step, ready];
    for i in 0..2 {
        bindings.extend(matrix(weights[i.min(weights.len() - 1)], weight.scalar));
    }
    bindings.push(m.weight.constant().map_or(Binding::Step, Binding::Constant));
    bindings.extend(with);
    bindings.push(Binding::Out);
    let second = Launch {
        block: [m.threads(), 1, 1],
        grid: [m.row_blocks(), most.div_ceil(m.inputs), 1],
        bindings,
        text: Arc::new(Spec { inputs: given.inputs, matrix: m, outcome }),
    };
    Some(first.into_iter().chain([second]).collect())
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "matrix_product"
    }

    fn threads_min(&self) -> Option<u32> {
        Some(THREADS_MIN)
    }

    fn tolerance(&self) -> f64 {
        self.matrix.tolerance()
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (inputs, m, outcome) = (self.inputs, self.matrix, self.outcome);
        CubeKernel::define(&matrix_product::MatrixProduct::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, inputs, m, outcome,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn matrix_product(
    step: &[i32],
    inputs: &[u32],
    codes: &[u32],
    scales: &[u32],
    other_codes: &[u32],
    other_scales: &[u32],
    table: &[u32],
    h: &[f32],
    gates: &[f32],
    routed: &[f32],
    out: &mut [f32],
    #[comptime] n_inputs: Rows,
    #[comptime] m: Matrix,
    #[comptime] outcome: Outcome,
) {
    let end = rows(step, n_inputs);
    let first = CUBE_POS_Y as usize * comptime!(m.inputs as usize);
    if first >= end {
        terminate!();
    }
    let part = CUBE_POS_X as usize / comptime!(m.part_blocks() as usize);
    let block = CUBE_POS_X as usize % comptime!(m.part_blocks() as usize);
    let span = Span {
        codes: 0usize.runtime(),
        scales: 0usize.runtime(),
        row: part * comptime!(m.part_rows() as usize) + block * comptime!(m.block_rows() as usize),
        end: (part + 1) * comptime!(m.part_rows() as usize),
    };
    let mut from = Array::<usize>::new(comptime!(turns(m)));
    #[unroll]
    for turn in 0..comptime!(turns(m)) {
        let input = first + staged_row(turn, m);
        from[turn] = select(input < end, 1 + input * comptime!(m.parts as usize) + part, 0usize);
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
        &span,
        table,
        &mut held,
        &mut sums,
        m,
    );
    let (f, across) = comptime!((m.fragment as usize, m.results() as usize));
    let n = comptime!(m.rows as usize);
    #[unroll]
    for i in 0..comptime!(m.deep() as usize) {
        spill(&sums, i, &mut held, m);
        let (above, aside) = corner(i, m);
        for e in range_stepped(UNIT_POS_PLANE as usize, comptime!(f * across), comptime!(m.lanes as usize)) {
            let (t, c) = (e / across, e % across);
            let (input, row) = (first + above + t, span.row + aside + c);
            if input < end && row < span.end {
                let of = input * comptime!(m.parts as usize) + part;
                let sum = unscaled(spilled(&held, t, c, m), inputs, of, exponent, m);
                if comptime!(matches!(outcome, Outcome::Gated(..))) {
                    let up = unscaled(spilled(&held, t, c + across, m), inputs, of, exponent, m);
                    out[input * n + row] = swiglu(sum, up, comptime!(clamp_of(outcome)));
                } else if comptime!(matches!(outcome, Outcome::Mixed { .. })) {
                    let (routes, streams) = comptime!(mixed_of(outcome));
                    let mut y = sum;
                    for route in 0..comptime!(routes as usize) {
                        y += routed[(input * comptime!(routes as usize) + route) * n + row];
                    }
                    if comptime!(streams == 0) {
                        out[input * n + row] = y;
                    } else {
                        for stream in 0..comptime!(streams as usize) {
                            out[(input * comptime!(streams as usize) + stream) * n + row] =
                                hc_post(h, y, gates, input, stream, row, streams, m.rows);
                        }
                    }
                } else {
                    out[input * n + row] = sum;
                }
            }
        }
    }
}

#[cfg(feature = "gpu")]
fn clamp_of(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Gated(clamp) => clamp,
        _ => unreachable!("the sums are gated"),
    }
}

#[cfg(feature = "gpu")]
fn mixed_of(outcome: Outcome) -> (u32, u32) {
    match outcome {
        Outcome::Mixed { routes, streams } => (routes, streams),
        _ => unreachable!("the sums are mixed"),
    }
}

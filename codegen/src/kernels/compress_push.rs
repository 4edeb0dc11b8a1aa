//! `compress_push tail! k gate @ape pos`: the tail with this step's k and gate + ape at their
//! positions (spec 3.1).
//!
//! One block per token; of tokens that the tail would forget within the step only the last are
//! written.
use super::common::{Number, Rows, THREADS};
use super::push::Slots;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::Role;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::{number, rows},
    super::push::{is_kept, slot},
    crate::{emit, step},
    cubecl::prelude::*,
};

pub(crate) const KERNEL: Kernel = Kernel {
    op: "compress_push",
    launches,
    cases: &[
        Case {
            header: "%tail: state tail/4 f32[160], %k: f32[t, 80], %gate: f32[t, 80], @ape: f32[4, 80], %pos: i32[t]",
            node: "compress_push %tail, %k, %gate, @ape, %pos : state tail/4 f32[160]",
            steps: &[0..1, 1..8, 8..30],
        },
        Case {
            header: "%tail: state tail/8 f32[80], %k: f32[t, 40], %gate: f32[t, 40], @ape: f16[8, 40], %pos: i32[t]",
            node: "compress_push %tail, %k, %gate, @ape, %pos : state tail/8 f32[80]",
            steps: &[0..3, 3..25],
        },
    ],
    tolerance: 1e-7,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    slots: Slots,
    /// Elements of k, and of gate.
    half: u32,
    ratio: u32,
    ape: Number,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _target: &Target) -> Option<Vec<Launch>> {
    let (tail, k) = (site.state(0), site.value(1));
    let half = k.dims[1].constant()?;
    let spec = Spec {
        rows: Rows::of(&k.dims[..1]),
        slots: Slots::of(tail.kind, maxima),
        half,
        ratio: tail.kind.span(),
        ape: Number::of(site.weight(3).scalar)?,
    };
    Some(vec![Launch {
        block: [THREADS, 1, 1],
        grid: [spec.rows.max(maxima), 1, 1],
        bindings: vec![
            Binding::Step,
            Binding::Value(1),
            Binding::Value(2),
            Binding::Weight(3, Role::Codes),
            Binding::Out,
        ],
        text: Arc::new(spec),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "compress_push"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let sizes = (self.half as usize, self.ratio as usize);
        CubeKernel::define(&compress_push::CompressPush::new(
            set, dev, lang, b0, b1, b2, b3, b4, self.rows, self.slots, sizes, self.ape,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn compress_push(
    step: &[i32],
    k: &[f32],
    gate: &[f32],
    ape: &[u32],
    tail: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] slots: Slots,
    #[comptime] sizes: (usize, usize),
    #[comptime] kind: Number,
) {
    let row = CUBE_POS_X as usize;
    let end = rows(step, n_rows);
    if row >= end || !is_kept(row, end, slots) {
        terminate!();
    }
    let (half, ratio) = comptime!(sizes);
    let to = slot(step, row, slots) * comptime!(2 * half);
    let place = (step[step::START] as usize + row) % ratio * half;
    for c in range_stepped(UNIT_POS as usize, half, CUBE_DIM as usize) {
        tail[to + c] = k[row * half + c];
        tail[to + half + c] = gate[row * half + c] + number(ape, place + c, kind);
    }
}

//! `rms_norm x @w eps=`: `x / sqrt(mean(x²) + eps) · w` over the last axis.
//!
//! One block per row, which it reads twice; the second time from cache.
use super::common::{Number, Rows};
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::Role;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::{block_sum, number, rows},
    crate::emit,
    cubecl::prelude::*,
};

pub(crate) const KERNEL: Kernel = Kernel {
    op: "rms_norm",
    launches,
    cases: &[
        Case {
            header: "%x: f32[t, 40], @w: f32[40]",
            node: "rms_norm %x, @w, eps=1e-6 : f32[t, 40]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "%x: f32[m4, 3, 520], @w: bf16[520]",
            node: "rms_norm %x, @w, eps=1e-5 : f32[m4, 3, 520]",
            steps: &[0..3, 3..5, 5..13],
        },
        Case {
            header: "%x: f32[t, 260], @w: f16[260]",
            node: "rms_norm %x, @w, eps=1e-6 : f32[t, 260]",
            steps: &[0..3],
        },
    ],
    tolerance: 1e-6,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    width: u32,
    weight: Number,
    eps: f32,
    subgroups: u32,
}

fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    let (x, w) = (site.value(0), site.weight(1));
    let (width, outer) = x.dims.split_last()?;
    let width = width.constant()?;
    let rows = Rows::of(outer);
    let subgroups = width.div_ceil(target.subgroup).clamp(1, 256 / target.subgroup);
    let weight = Number::of(w.scalar)?;
    let spec = Spec { rows, width, weight, eps: site.real(2) as f32, subgroups };
    Some(vec![Launch {
        block: [subgroups * target.subgroup, 1, 1],
        grid: [rows.max(maxima), 1, 1],
        bindings: vec![Binding::Step, Binding::Value(0), Binding::Weight(1, Role::Codes), Binding::Out],
        text: Arc::new(spec),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let eps = self.eps.to_bits();
        let (rows, width) = (self.rows, self.width);
        let kernel = rms_norm::RmsNorm::new(
            set,
            dev,
            lang,
            b0,
            b1,
            b2,
            b3,
            rows,
            width,
            self.weight,
            eps,
            self.subgroups,
        );
        CubeKernel::define(&kernel)
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn rms_norm(
    step: &[i32],
    x: &[f32],
    w: &[u32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] width: u32,
    #[comptime] weight: Number,
    #[comptime] eps: u32,
    #[comptime] subgroups: u32,
) {
    let row = CUBE_POS_X as usize;
    if row >= rows(step, n_rows) {
        terminate!();
    }
    let mut partial = Shared::<[f32]>::new_slice(comptime!(subgroups as usize));
    let width = comptime!(width as usize);
    let at = row * width;
    let mut squares = 0.0f32;
    for i in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
        squares += x[at + i] * x[at + i];
    }
    let mean = block_sum(squares, &mut partial, subgroups) / comptime!(width as f32);
    let scale = 1.0f32 / (mean + comptime!(f32::from_bits(eps))).sqrt();
    for i in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
        out[at + i] = x[at + i] * scale * number(w, i, weight);
    }
}

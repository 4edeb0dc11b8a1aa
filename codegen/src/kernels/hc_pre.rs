//! `hc_pre h gates`: `Σ_j pre_j · h_j`, the streams of a token joined (spec 2.1), and
//!
//! ```text
//! hc_pre_norm = (rms_norm (hc_pre ?h ?gates) ?w ?eps)
//! ```
//! One block per token. The norm joins the streams twice; the second time they come from cache.
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
    op: "hc_pre",
    launches: |site, maxima, target| launches(site, maxima, target, None),
    cases: &[
        Case {
            header: "%h: f32[t, 4, 40], %gates: f32[t, 24]",
            node: "hc_pre %h, %gates : f32[t, 40]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "%h: f32[t, 4, 300], %gates: f32[t, 4]",
            node: "hc_pre %h, %gates : f32[t, 300]",
            steps: &[0..3],
        },
    ],
    tolerance: 1e-6,
};

pub(crate) const NORM: Kernel = Kernel {
    op: "hc_pre_norm",
    launches: |site, maxima, target| {
        let weight = Number::of(site.weight(2).scalar)?;
        launches(site, maxima, target, Some((weight, (site.real(3) as f32).to_bits())))
    },
    cases: &[
        Case {
            header: "%h: f32[t, 4, 40], %gates: f32[t, 24], @w: f32[40]",
            node: "hc_pre_norm %h, %gates, @w, eps=1e-6 : f32[t, 40]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "%h: f32[t, 2, 520], %gates: f32[t, 8], @w: bf16[520]",
            node: "hc_pre_norm %h, %gates, @w, eps=1e-5 : f32[t, 520]",
            steps: &[0..2, 2..5],
        },
    ],
    tolerance: 2e-6,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    streams: u32,
    width: u32,
    gates: u32,
    /// Element type of the norm's weight and bits of its epsilon.
    norm: Option<(Number, u32)>,
    subgroups: u32,
}

fn launches(
    site: &Site<'_>,
    maxima: &Maxima,
    target: &Target,
    norm: Option<(Number, u32)>,
) -> Option<Vec<Launch>> {
    let (h, gates) = (site.value(0), site.value(1));
    let (streams, width) = (h.dims[1].constant()?, h.dims[2].constant()?);
    let gates = gates.dims[1].constant()?;
    let subgroups = width.div_ceil(target.subgroup).clamp(1, 512 / target.subgroup);
    let rows = Rows::of(&h.dims[..1]);
    let weight = if norm.is_some() { Binding::Weight(2, Role::Codes) } else { Binding::Step };
    Some(vec![Launch {
        block: [subgroups * target.subgroup, 1, 1],
        grid: [rows.max(maxima), 1, 1],
        bindings: vec![Binding::Step, Binding::Value(0), Binding::Value(1), weight, Binding::Out],
        text: Arc::new(Spec { rows, streams, width, gates, norm, subgroups }),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        if self.norm.is_some() { "hc_pre_norm" } else { "hc_pre" }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let sizes = (self.streams as usize, self.width as usize, self.gates as usize);
        CubeKernel::define(&hc_pre::HcPre::new(
            set,
            dev,
            lang,
            b0,
            b1,
            b2,
            b3,
            b4,
            self.rows,
            sizes,
            self.norm,
            self.subgroups,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn hc_pre(
    step: &[i32],
    h: &[f32],
    gates: &[f32],
    w: &[u32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] sizes: (usize, usize, usize),
    #[comptime] norm: Option<(Number, u32)>,
    #[comptime] subgroups: u32,
) {
    let row = CUBE_POS_X as usize;
    if row >= rows(step, n_rows) {
        terminate!();
    }
    let (n, width, stride) = comptime!(sizes);
    let mut pre = Array::<f32>::new(n);
    #[unroll]
    for j in 0..n {
        pre[j] = gates[row * stride + j];
    }
    if comptime!(norm.is_none()) {
        for c in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
            out[row * width + c] = joined(h, &pre, row, c, n, width);
        }
    } else {
        let (weight, eps) = comptime!(norm.expect("there is a norm"));
        let mut partial = Shared::<[f32]>::new_slice(comptime!(subgroups as usize));
        let mut squares = 0.0f32;
        for c in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
            let x = joined(h, &pre, row, c, n, width);
            squares += x * x;
        }
        let mean = block_sum(squares, &mut partial, subgroups) / comptime!(width as f32);
        let scale = 1.0f32 / (mean + comptime!(f32::from_bits(eps))).sqrt();
        for c in range_stepped(UNIT_POS as usize, width, CUBE_DIM as usize) {
            out[row * width + c] = joined(h, &pre, row, c, n, width) * scale * number(w, c, weight);
        }
    }
}

/// One channel of the streams of a token, joined.
#[cfg(feature = "gpu")]
#[cube]
fn joined(
    h: &[f32],
    pre: &Array<f32>,
    row: usize,
    channel: usize,
    #[comptime] n: usize,
    #[comptime] width: usize,
) -> f32 {
    let at = row * comptime!(n * width) + channel;
    let mut sum = 0.0f32;
    #[unroll]
    for j in 0..n {
        sum += pre[j] * h[at + comptime!(j * width)];
    }
    sum
}

//! `out_post h x @w fmt= gates` where
//!
//! ```text
//! out_post = (hc_post ?h (matmul (round_act ?x ?fmt) ?w) ?gates)
//! ```
//! A product as in `matmul`; the lanes of a subgroup then write one stream each. Inputs of a long step go to
//! [matrix units](matrix).
use super::common::Rows;
use super::matrix::{self, Dense, Given, Outcome};
use super::product::{self, Norm, Product};
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::rows,
    super::product::{Tile, Window, hc_post, row_sums, stage},
    crate::emit,
    cubecl::prelude::*,
};

pub(crate) const KERNEL: Kernel = Kernel {
    op: "out_post",
    launches,
    cases: &[
        Case {
            header: "%h: f32[t, 4, 40], %x: f32[t, 96], @w: bf16[40, 96], %gates: f32[t, 24]",
            node: "out_post %h, %x, @w, %gates, fmt=f32 : f32[t, 4, 40]",
            steps: &[0..1, 1..4, 4..13],
        },
        Case {
            header: "%h: f32[t, 2, 24], %x: f32[t, 256], @w: q8_0[24, 256], %gates: f32[t, 8]",
            node: "out_post %h, %x, @w, %gates, fmt=q8_0 : f32[t, 2, 24]",
            steps: &[0..1, 1..4, 4..69],
        },
        Case {
            header: "%h: f32[t, 4, 132], %x: f32[t, 192], @w: fp8[132, 192], %gates: f32[t, 24]",
            node: "out_post %h, %x, @w, %gates, fmt=e4m3x128 : f32[t, 4, 132]",
            steps: &[0..66],
        },
    ],
    tolerance: 2e-6,
};

#[derive(Debug)]
struct Spec {
    inputs: Rows,
    product: Product,
    streams: u32,
}

fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    let (h, x, w) = (site.value(0), site.value(1), site.weight(2));
    let [n, width] = w.constants()?[..] else { return None };
    let streams = h.dims[1].constant().filter(|s| *s <= target.subgroup)?;
    let inputs = Rows::of(&h.dims[..1]);
    let most = inputs.max(maxima);
    let (format, last) = (site.format(4), x.dims.last()?.constant()?);
    let dense = Dense {
        given: Given { inputs, operand: 1, width: last, format, norm: (Norm::None, Binding::Step) },
        input: x,
        weights: &[2],
        weight: w,
        parts: 1,
        outcome: Outcome::Mixed { routes: 0, streams },
        with: [Binding::Value(0), Binding::Value(3), Binding::Step],
    };
    if let Some(list) = matrix::dense(dense, 0, maxima, target) {
        return Some(list);
    }
    let product = Product::new(w.scalar, n, x.scalar, width, most, target)?;
    let product = product.rounded(format, last)?;
    let [codes, scales] = product::matrix(2, w.scalar);
    Some(vec![Launch {
        block: [product.threads(), 1, 1],
        grid: [product.row_blocks(), most.div_ceil(product.tokens), 1],
        bindings: vec![
            Binding::Step,
            Binding::Value(0),
            Binding::Value(1),
            codes,
            scales,
            product.table(),
            Binding::Value(3),
            Binding::Out,
        ],
        text: Arc::new(Spec { inputs, product, streams }),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "out_post"
    }

    fn holds_many_sums(&self) -> bool {
        self.product.holds_many_sums()
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (inputs, p, streams) = (self.inputs, self.product, self.streams);
        CubeKernel::define(&out_post::OutPost::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, inputs, p, streams,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn out_post(
    step: &[i32],
    h: &[f32],
    x: &[u32],
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    gates: &[f32],
    out: &mut [f32],
    #[comptime] inputs: Rows,
    #[comptime] p: Product,
    #[comptime] streams: u32,
) {
    let end = rows(step, inputs);
    let (tokens, each) = comptime!((p.tokens as usize, p.each as usize));
    let n = comptime!(p.rows as usize);
    let first = CUBE_POS_Y as usize * tokens;
    if first >= end {
        terminate!();
    }
    let mut held = Tile::new(p);
    let mut window = Window::new(p);
    let mut sums = Array::<f32>::new(comptime!(tokens * each));
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let row = (CUBE_POS_X as usize * comptime!(p.subgroups as usize) + subgroup) * each;
    for tile in 0..comptime!(p.tiles() as usize) {
        sync_cube();
        stage(x, x, first, end, 0usize, tile, &mut held, p);
        sync_cube();
        row_sums(codes, scales, table, 0usize, 0usize, row, n, tile, &held, &mut window, &mut sums, p);
    }
    #[unroll]
    for r in 0..each {
        #[unroll]
        for t in 0..tokens {
            let y = plane_sum(sums[comptime!(r * tokens + t)]);
            let (token, column, stream) = (first + t, row + r, UNIT_POS_PLANE as usize);
            if UNIT_POS_PLANE < streams && column < n && token < end {
                out[(token * comptime!(streams as usize) + stream) * n + column] =
                    hc_post(h, y, gates, token, stream, column, streams, p.rows);
            }
        }
    }
}

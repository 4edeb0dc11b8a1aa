//! `moe_down x @w routes y @v fmt= y_fmt=`, `moe_post h x @w routes y @v gates fmt= y_fmt=`:
//!
//! ```text
//! moe_down = (add (expert_sum (expert_matmul (round_act ?x ?fmt) ?w ?routes))
//!                 (matmul (round_act ?y ?y_fmt) ?v))
//! moe_post = (hc_post ?h (moe_down ...) ?gates)
//! ```
//! One token per block: a subgroup goes on with the sums of its rows from expert to expert and ends
//! with the shared one; of `moe_post` its lanes then write one stream each. Inputs of a long step go to
//! [matrix units](matrix), routes grouped by expert.
use super::common::Rows;
use super::matrix;
use super::product::{self, Product, experts};
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

pub(crate) const MOE_DOWN: Kernel = Kernel {
    op: "moe_down",
    launches: |site, maxima, target| launches(site, maxima, target, 0),
    cases: &[Case {
        header: "%x: f32[t, 2, 96], @w: bf16[5, 40, 96], %routes: route[t, 2], %y: f32[t, 64], @v: q8_0[40, 64]",
        node: "moe_down %x, @w, %routes, %y, @v, fmt=f32, y_fmt=f32 : f32[t, 40]",
        steps: &[0..1, 1..4],
    }],
    tolerance: 2e-6,
};

pub(crate) const MOE_POST: Kernel = Kernel {
    op: "moe_post",
    launches: |site, maxima, target| launches(site, maxima, target, 1),
    cases: &[
        Case {
            header: "%h: f32[t, 4, 40], %x: f32[t, 2, 256], @w: q2_k[5, 40, 256], %routes: route[t, 2], \
                     %y: f32[t, 64], @v: q8_0[40, 64], %gates: f32[t, 24]",
            node: "moe_post %h, %x, @w, %routes, %y, @v, %gates, fmt=q8_k, y_fmt=q8_0 : f32[t, 4, 40]",
            steps: &[0..1, 1..4, 4..76],
        },
        Case {
            header: "%h: f32[t, 4, 24], %x: f32[t, 3, 128], @w: fp4[5, 24, 128], %routes: route[t, 3], \
                     %y: f32[t, 128], @v: fp8[24, 128], %gates: f32[t, 24]",
            node: "moe_post %h, %x, @w, %routes, %y, @v, %gates, fmt=e4m3x128, y_fmt=e4m3x128 : f32[t, 4, 24]",
            steps: &[0..1, 1..4, 4..76],
        },
        Case {
            header: "%h: f32[t, 4, 264], %x: f32[t, 3, 64], @w: fp4[5, 264, 64], %routes: route[t, 3], \
                     %y: f32[t, 128], @v: fp8[264, 128], %gates: f32[t, 24]",
            node: "moe_post %h, %x, @w, %routes, %y, @v, %gates, fmt=q8_0, y_fmt=f32 : f32[t, 4, 264]",
            steps: &[4..76],
        },
    ],
    tolerance: 2e-6,
};

/// The experts' product, the shared expert's, and the streams that the sum goes into; 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Spec {
    tokens: Rows,
    slots: u32,
    routed: Product,
    shared: Product,
    streams: u32,
}

/// `at`: place of x among the operands.
fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target, at: usize) -> Option<Vec<Launch>> {
    let (x, w, routes) = (site.value(at), site.weight(at + 1), site.value(at + 2));
    let (y, v) = (site.value(at + 3), site.weight(at + 4));
    let ([_, n, k], [_, y_k]) = (&w.constants()?[..], &v.constants()?[..]) else { return None };
    let formats = if at == 0 { 5 } else { 7 };
    if let Some(list) = matrix::moe_down(site, at, formats, maxima, target).filter(|_| x.dims.len() == 3) {
        return Some(list);
    }
    let routed = Product::new(w.scalar, *n, x.scalar, *k, 1, target)?.rounded(site.format(formats), *k)?;
    let shared =
        Product::new(v.scalar, *n, y.scalar, *y_k, 1, target)?.rounded(site.format(formats + 1), *y_k)?;
    let slots = routes.dims[1].constant()?;
    let streams = if at == 0 { 0 } else { site.value(0).dims[1].constant()? };
    let tokens = Rows::of(&routes.dims[..1]);
    let fits = x.dims.len() == 3 && streams <= target.subgroup;
    let mut bindings = vec![Binding::Step, Binding::Value(at), Binding::Value(at + 2)];
    bindings.extend(experts(at + 1, w.scalar));
    bindings.push(routed.table());
    bindings.push(Binding::Value(at + 3));
    bindings.extend(product::matrix(at + 4, v.scalar));
    bindings.push(shared.table());
    bindings.extend(if at == 0 {
        [Binding::Step, Binding::Step]
    } else {
        [Binding::Value(0), Binding::Value(6)]
    });
    bindings.push(Binding::Out);
    let launch = Launch {
        block: [routed.threads(), 1, 1],
        grid: [routed.row_blocks(), tokens.max(maxima), 1],
        bindings,
        text: Arc::new(Spec { tokens, slots, routed, shared, streams }),
    };
    fits.then(|| vec![launch])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        if self.streams == 0 { "moe_down" } else { "moe_post" }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14] = emit::buffers();
        let (set, dev, lang) = at.wide_parts();
        CubeKernel::define(&moe_down::MoeDown::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, *self,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn moe_down(
    step: &[i32],
    x: &[u32],
    routes: &[u32],
    codes: &[u32],
    codes_at: &[u64],
    scales: &[u32],
    scales_at: &[u64],
    table: &[u32],
    y: &[u32],
    shared_codes: &[u32],
    shared_scales: &[u32],
    shared_table: &[u32],
    h: &[f32],
    gates: &[f32],
    out: &mut [f32],
    #[comptime] s: Spec,
) {
    let (p, q) = comptime!((s.routed, s.shared));
    let (each, n, slots) = comptime!((p.each as usize, p.rows as usize, s.slots as usize));
    let end = rows(step, comptime!(s.tokens));
    let token = CUBE_POS_Y as usize;
    if token >= end {
        terminate!();
    }
    let mut held = Tile::of_either(p, q);
    let mut window = Window::of_groups(comptime!(p.window().max(q.window())));
    let mut sums = Array::<f32>::new(each);
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let row = (CUBE_POS_X as usize * comptime!(p.subgroups as usize) + subgroup) * each;
    for slot in 0..slots {
        let route = token * slots + slot;
        let expert = routes[2 * route] as usize;
        let (base, scale) = (codes_at[expert] as usize, scales_at[expert] as usize);
        for tile in 0..comptime!(p.tiles() as usize) {
            sync_cube();
            stage(x, x, route, route + 1, 0usize, tile, &mut held, p);
            sync_cube();
            row_sums(codes, scales, table, base, scale, row, n, tile, &held, &mut window, &mut sums, p);
        }
    }
    for tile in 0..comptime!(q.tiles() as usize) {
        sync_cube();
        stage(y, y, token, end, 0usize, tile, &mut held, q);
        sync_cube();
        row_sums(
            shared_codes,
            shared_scales,
            shared_table,
            0usize,
            0usize,
            row,
            n,
            tile,
            &held,
            &mut window,
            &mut sums,
            q,
        );
    }
    #[unroll]
    for r in 0..each {
        let sum = plane_sum(sums[r]);
        let column = row + r;
        if comptime!(s.streams == 0) {
            if UNIT_POS_PLANE == 0 && column < n {
                out[token * n + column] = sum;
            }
        } else if UNIT_POS_PLANE < comptime!(s.streams) && column < n {
            let stream = UNIT_POS_PLANE as usize;
            out[(token * comptime!(s.streams as usize) + stream) * n + column] =
                hc_post(h, sum, gates, token, stream, column, comptime!(s.streams), comptime!(p.rows));
        }
    }
}

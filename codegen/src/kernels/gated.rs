//! `mlp_up x @gate @up fmt= clamp=`, `moe_up x @gate @up routes fmt= clamp=`:
//!
//! ```text
//! mlp_up = (swiglu (matmul (round_act ?x ?fmt) ?gate) (matmul (round_act ?x ?fmt) ?up) ?clamp)
//! moe_up = (route_scale (swiglu (expert_matmul (round_act ?x ?fmt) ?gate ?routes)
//!                               (expert_matmul (round_act ?x ?fmt) ?up ?routes) ?clamp) ?routes)
//! ```
//! A subgroup sums its rows of both matrices over the same inputs. The experts' matrices are found in
//! a table of offsets, one input and route per block. Inputs of a long step go to [matrix units](matrix), routes
//! grouped by expert.
use super::common::Rows;
use super::matrix::{self, Dense, Given, Outcome};
use super::product::{self, Norm, Product, experts};
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::rows,
    super::product::{Tile, Window, row_sums, stage},
    crate::emit,
    cubecl::prelude::*,
};

pub(crate) const MLP_UP: Kernel = Kernel {
    op: "mlp_up",
    launches: mlp_launches,
    cases: &[
        case(
            "%x: f32[t, 96], @gate: bf16[40, 96], @up: bf16[40, 96]",
            "mlp_up %x, @gate, @up, fmt=f32, clamp=0.5 : f32[t, 40]",
        ),
        long(
            "%x: f32[t, 256], @gate: fp8[24, 256], @up: fp8[24, 256]",
            "mlp_up %x, @gate, @up, fmt=e4m3x128, clamp=10.0 : f32[t, 24]",
        ),
        long(
            "%x: f32[t, 160], @gate: fp8[264, 160], @up: fp8[264, 160]",
            "mlp_up %x, @gate, @up, fmt=f32, clamp=0.0 : f32[t, 264]",
        ),
        long(
            "%x: f32[t, 96], @gate: q8_0[72, 96], @up: q8_0[72, 96]",
            "mlp_up %x, @gate, @up, fmt=q8_0, clamp=0.0 : f32[t, 72]",
        ),
    ],
    tolerance: 5e-6,
};

pub(crate) const MOE_UP: Kernel = Kernel {
    op: "moe_up",
    launches: moe_launches,
    cases: &[
        case(
            "%x: f32[t, 96], @gate: bf16[5, 40, 96], @up: bf16[5, 40, 96], %routes: route[t, 2]",
            "moe_up %x, @gate, @up, %routes, fmt=f32, clamp=10.0 : f32[t, 2, 40]",
        ),
        long(
            "%x: f32[t, 256], @gate: fp4[5, 24, 256], @up: fp4[5, 24, 256], %routes: route[t, 3]",
            "moe_up %x, @gate, @up, %routes, fmt=e4m3x128, clamp=10.0 : f32[t, 3, 24]",
        ),
        long(
            "%x: f32[t, 96], @gate: mxfp4[5, 24, 96], @up: mxfp4[5, 24, 96], %routes: route[t, 3]",
            "moe_up %x, @gate, @up, %routes, fmt=f32, clamp=10.0 : f32[t, 3, 24]",
        ),
        long(
            "%x: f32[t, 256], @gate: iq2_xxs[5, 24, 256], @up: iq2_xxs[5, 24, 256], %routes: route[t, 3]",
            "moe_up %x, @gate, @up, %routes, fmt=q8_k, clamp=10.0 : f32[t, 3, 24]",
        ),
        Case {
            header: "%wild: f32[t, 544], @wild_gate: fp4[5, 40, 544], @wild_up: fp4[5, 40, 544], %routes: route[t, 2]",
            node: "moe_up %wild, @wild_gate, @wild_up, %routes, fmt=q8_0, clamp=0.0 : f32[t, 2, 40]",
            steps: &[0..66],
        },
    ],
    tolerance: 5e-6,
};

/// A case with a long step besides, which runs on matrix units.
const fn long(header: &'static str, node: &'static str) -> Case {
    Case { header, node, steps: &[0..1, 1..4, 4..74] }
}

const fn case(header: &'static str, node: &'static str) -> Case {
    Case { header, node, steps: &[0..1, 1..4] }
}

#[derive(Debug)]
struct Mlp {
    inputs: Rows,
    product: Product,
    clamp: f32,
}

fn mlp_launches(site: &Site<'_>, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    let (x, gate, up) = (site.value(0), site.weight(1), site.weight(2));
    let [n, width] = gate.constants()?[..] else { return None };
    let inputs = Rows::of(&x.dims[..x.dims.len() - 1]);
    let most = inputs.max(maxima);
    let clamp = site.real(4) as f32;
    let dense = Dense {
        given: Given { inputs, operand: 0, width, format: site.format(3), norm: (Norm::None, Binding::Step) },
        input: x,
        weights: &[1, 2],
        weight: gate,
        parts: 1,
        outcome: Outcome::Gated(clamp.to_bits()),
        with: [Binding::Step, Binding::Step, Binding::Step],
    };
    if let Some(list) = matrix::dense(dense, 0, maxima, target).filter(|_| gate == up) {
        return Some(list);
    }
    let product = Product::new(gate.scalar, n, x.scalar, width, most, target)?;
    // Elements lie in shared memory as units of one format.
    let product = product.paired().rounded(site.format(3), width).filter(|_| gate == up)?;
    let mut bindings = vec![Binding::Step, Binding::Value(0)];
    bindings.extend(product::matrix(1, gate.scalar));
    bindings.extend(product::matrix(2, up.scalar));
    bindings.extend([product.table(), Binding::Out]);
    Some(vec![Launch {
        block: [product.threads(), 1, 1],
        grid: [product.row_blocks(), most.div_ceil(product.tokens), 1],
        bindings,
        text: Arc::new(Mlp { inputs, product, clamp }),
    }])
}

#[derive(Debug)]
struct Moe {
    tokens: Rows,
    slots: u32,
    product: Product,
    clamp: f32,
}

fn moe_launches(site: &Site<'_>, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    let (x, gate, up, routes) = (site.value(0), site.weight(1), site.weight(2), site.value(3));
    let [_, n, width] = gate.constants()?[..] else { return None };
    let slots = routes.dims[1].constant()?;
    let tokens = Rows::of(&routes.dims[..1]);
    let same = gate.scalar == up.scalar && gate.dims == up.dims && x.dims.len() == 2;
    if let Some(list) = matrix::moe_up(site, maxima, target).filter(|_| same) {
        return Some(list);
    }
    let product = Product::new(gate.scalar, n, x.scalar, width, 1, target)?;
    let product = product.paired().rounded(site.format(4), width).filter(|_| same)?;
    let mut bindings = vec![Binding::Step, Binding::Value(0), Binding::Value(3)];
    bindings.extend(experts(1, gate.scalar));
    bindings.extend(experts(2, up.scalar));
    bindings.extend([product.table(), Binding::Out]);
    Some(vec![Launch {
        block: [product.threads(), 1, 1],
        grid: [product.row_blocks(), slots, tokens.max(maxima)],
        bindings,
        text: Arc::new(Moe { tokens, slots, product, clamp: site.real(5) as f32 }),
    }])
}

impl Text for Mlp {
    fn name(&self) -> &'static str {
        "mlp_up"
    }

    fn holds_many_sums(&self) -> bool {
        self.product.holds_many_sums()
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (inputs, p, clamp) = (self.inputs, self.product, self.clamp.to_bits());
        CubeKernel::define(&mlp_up::MlpUp::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, inputs, p, clamp,
        ))
    }
}

impl Text for Moe {
    fn name(&self) -> &'static str {
        "moe_up"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12] = emit::buffers();
        let (set, dev, lang) = at.wide_parts();
        let (tokens, slots, p, clamp) = (self.tokens, self.slots, self.product, self.clamp.to_bits());
        CubeKernel::define(&moe_up::MoeUp::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, tokens, slots, p, clamp,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn mlp_up(
    step: &[i32],
    x: &[u32],
    gate: &[u32],
    gate_scales: &[u32],
    up: &[u32],
    up_scales: &[u32],
    table: &[u32],
    out: &mut [f32],
    #[comptime] inputs: Rows,
    #[comptime] p: Product,
    #[comptime] clamp: u32,
) {
    let end = rows(step, inputs);
    let (tokens, each) = comptime!((p.tokens as usize, p.each as usize));
    let n = comptime!(p.rows as usize);
    let first = CUBE_POS_Y as usize * tokens;
    if first >= end {
        terminate!();
    }
    let mut held = Tile::new(p);
    let mut gate_window = Window::new(p);
    let mut up_window = Window::new(p);
    let mut gates = Array::<f32>::new(comptime!(tokens * each));
    let mut ups = Array::<f32>::new(comptime!(tokens * each));
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let row = (CUBE_POS_X as usize * comptime!(p.subgroups as usize) + subgroup) * each;
    for tile in 0..comptime!(p.tiles() as usize) {
        sync_cube();
        stage(x, x, first, end, 0usize, tile, &mut held, p);
        sync_cube();
        row_sums(
            gate,
            gate_scales,
            table,
            0usize,
            0usize,
            row,
            n,
            tile,
            &held,
            &mut gate_window,
            &mut gates,
            p,
        );
        row_sums(up, up_scales, table, 0usize, 0usize, row, n, tile, &held, &mut up_window, &mut ups, p);
    }
    #[unroll]
    for r in 0..each {
        #[unroll]
        for t in 0..tokens {
            let gate = plane_sum(gates[comptime!(r * tokens + t)]);
            let up = plane_sum(ups[comptime!(r * tokens + t)]);
            if UNIT_POS_PLANE == 0 && row + r < n && first + t < end {
                out[(first + t) * n + row + r] = swiglu(gate, up, clamp);
            }
        }
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn moe_up(
    step: &[i32],
    x: &[u32],
    routes: &[u32],
    gate: &[u32],
    gate_at: &[u64],
    gate_scales: &[u32],
    gate_scales_at: &[u64],
    up: &[u32],
    up_at: &[u64],
    up_scales: &[u32],
    up_scales_at: &[u64],
    table: &[u32],
    out: &mut [f32],
    #[comptime] tokens: Rows,
    #[comptime] slots: u32,
    #[comptime] p: Product,
    #[comptime] clamp: u32,
) {
    let end = rows(step, tokens);
    let (each, n) = comptime!((p.each as usize, p.rows as usize));
    let token = CUBE_POS_Z as usize;
    if token >= end {
        terminate!();
    }
    let route = token * comptime!(slots as usize) + CUBE_POS_Y as usize;
    let expert = routes[2 * route] as usize;
    let weight = f32::reinterpret(routes[2 * route + 1]);
    let mut held = Tile::new(p);
    let mut gate_window = Window::new(p);
    let mut up_window = Window::new(p);
    let mut gates = Array::<f32>::new(each);
    let mut ups = Array::<f32>::new(each);
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let row = (CUBE_POS_X as usize * comptime!(p.subgroups as usize) + subgroup) * each;
    let (gate_base, gate_scale) = (gate_at[expert] as usize, gate_scales_at[expert] as usize);
    let (up_base, up_scale) = (up_at[expert] as usize, up_scales_at[expert] as usize);
    for tile in 0..comptime!(p.tiles() as usize) {
        sync_cube();
        stage(x, x, token, end, 0usize, tile, &mut held, p);
        sync_cube();
        row_sums(
            gate,
            gate_scales,
            table,
            gate_base,
            gate_scale,
            row,
            n,
            tile,
            &held,
            &mut gate_window,
            &mut gates,
            p,
        );
        row_sums(up, up_scales, table, up_base, up_scale, row, n, tile, &held, &mut up_window, &mut ups, p);
    }
    #[unroll]
    for r in 0..each {
        let gate = plane_sum(gates[r]);
        let up = plane_sum(ups[r]);
        if UNIT_POS_PLANE == 0 && row + r < n {
            out[route * n + row + r] = swiglu(gate, up, clamp) * weight;
        }
    }
}

/// silu(min(gate, clamp)) · clip(up, ±clamp); a clamp of 0 clips nothing.
#[cfg(feature = "gpu")]
#[cube]
pub(super) fn swiglu(gate: f32, up: f32, #[comptime] clamp_bits: u32) -> f32 {
    let limit = comptime!(f32::from_bits(clamp_bits));
    let mut g = gate;
    let mut u = up;
    if comptime!(limit > 0.0) {
        g = min(gate, limit);
        u = clamp(up, comptime!(-limit), limit);
    }
    g / (1.0f32 + (-g).exp()) * u
}

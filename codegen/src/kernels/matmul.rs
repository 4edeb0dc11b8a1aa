//! `matmul x @w`, `linear x @w fmt=`, `norm_linear x @norm @w eps= fmt=`: x · wᵀ, where
//!
//! ```text
//! linear      = (matmul (round_act ?x ?fmt) ?w)
//! norm_linear = (matmul (round_act (rms_norm ?x ?norm ?eps) ?fmt) ?w)
//! ```
//! A subgroup sums one to four rows of the matrix for up to eight inputs, which its block holds in
//! shared memory. The matrix is read once per eight inputs.
use super::common::{Number, Rows};
use super::product::{Norm, Product};
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use ds4_ir::{Role, Scalar};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::rows,
    super::formats::Place,
    super::product::{lane_sums, norm_factors, over_lanes, stage},
    crate::emit,
    cubecl::prelude::*,
};

pub(crate) const MATMUL: Kernel = Kernel {
    op: "matmul",
    launches: |site, maxima, target| {
        launches(site, maxima, target, Operand { x: 0, norm: None, w: 1, eps: None, fmt: None })
    },
    cases: &[
        Case {
            header: "%x: f32[t, 96], @w: f32[40, 96]",
            node: "matmul %x, @w : f32[t, 40]",
            steps: &[0..1, 1..4],
        },
        Case {
            header: "%x: f32[t, 64], @w: q8_0[24, 64]",
            node: "matmul %x, @w : f32[t, 24]",
            steps: &[0..1, 1..8],
        },
    ],
    tolerance: 2e-6,
};

pub(crate) const LINEAR: Kernel = Kernel {
    op: "linear",
    launches: |site, maxima, target| {
        launches(site, maxima, target, Operand { x: 0, norm: None, w: 1, eps: None, fmt: Some(2) })
    },
    cases: &[Case {
        header: "%x: f32[t, 256], @w: bf16[24, 256]",
        node: "linear %x, @w, fmt=e4m3x128 : f32[t, 24]",
        steps: &[0..1, 1..8],
    }],
    tolerance: 2e-6,
};

pub(crate) const NORM_LINEAR: Kernel = Kernel {
    op: "norm_linear",
    launches: |site, maxima, target| {
        launches(site, maxima, target, Operand { x: 0, norm: Some(1), w: 2, eps: Some(3), fmt: Some(4) })
    },
    cases: &[Case {
        header: "%x: f32[t, 96], @norm: f32[96], @w: q8_0[24, 96]",
        node: "norm_linear %x, @norm, @w, eps=1e-6, fmt=f32 : f32[t, 24]",
        steps: &[0..1, 1..8],
    }],
    tolerance: 2e-6,
};

/// Where an op of the family has its operands.
struct Operand {
    x: usize,
    norm: Option<usize>,
    w: usize,
    eps: Option<usize>,
    fmt: Option<usize>,
}

#[derive(Debug)]
struct Spec {
    inputs: Rows,
    product: Product,
}

fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target, at: Operand) -> Option<Vec<Launch>> {
    let (x, w) = (site.value(at.x), site.weight(at.w));
    let [n, width] = w.constants()?[..] else { return None };
    let (_, outer) = x.dims.split_last()?;
    let inputs = Rows::of(outer);
    let most = inputs.max(maxima);
    let mut product = Product::new(w.scalar, n, x.scalar, width, most, target)?;
    product.round = at.fmt.map_or(Scalar::F32, |i| site.format(i));
    let mut norm_weight = Binding::Step;
    if let (Some(norm), Some(eps)) = (at.norm, at.eps) {
        product.norm =
            Norm::Weighted((site.real(eps) as f32).to_bits(), Number::of(site.weight(norm).scalar)?);
        norm_weight = Binding::Weight(norm, Role::Codes);
    }
    let (codes, scales) = weight_bindings(at.w, w.scalar);
    let table = product.weight.constant().map_or(Binding::Step, Binding::Constant);
    Some(vec![Launch {
        block: [product.threads(), 1, 1],
        grid: [product.row_blocks(), most.div_ceil(product.tokens), 1],
        bindings: vec![Binding::Step, Binding::Value(at.x), norm_weight, codes, scales, table, Binding::Out],
        text: Arc::new(Spec { inputs, product }),
    }])
}

/// Codes and scales of a plain weight; a format without scales of its own binds the codes twice.
fn weight_bindings(i: usize, scalar: Scalar) -> (Binding, Binding) {
    let scales = if scalar.scale_shape(1, 1).is_some() { Role::Scales } else { Role::Codes };
    (Binding::Weight(i, Role::Codes), Binding::Weight(i, scales))
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        match self.product.norm {
            Norm::None => "matmul",
            _ => "norm_matmul",
        }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (inputs, p) = (self.inputs, self.product);
        CubeKernel::define(&matmul::Matmul::new(set, dev, lang, b0, b1, b2, b3, b4, b5, b6, inputs, p))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn matmul(
    step: &[i32],
    x: &[u32],
    norm: &[u32],
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    out: &mut [f32],
    #[comptime] inputs: Rows,
    #[comptime] p: Product,
) {
    let end = rows(step, inputs);
    let (tokens, each) = comptime!((p.tokens as usize, p.each as usize));
    let first = CUBE_POS_Y as usize * tokens;
    if first >= end {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime!(p.shared() as usize));
    let mut factors = Shared::<[f32]>::new_slice(tokens);
    norm_factors(x, first, end, &mut factors, p);
    let mut sums = Array::<f32>::new(comptime!(tokens * each));
    let n = comptime!(p.rows as usize);
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let row = (CUBE_POS_X as usize * comptime!(p.subgroups as usize) + subgroup) * each;
    for tile in 0..comptime!(p.tiles() as usize) {
        sync_cube();
        stage(x, norm, first, end, tile, &factors, &mut shared, p);
        sync_cube();
        #[unroll]
        for r in 0..each {
            if row + r < n {
                let place = Place {
                    codes: (row + r) * comptime!(p.weight.row_bytes() as usize),
                    scales: (row + r) / comptime!(p.weight.rows_per_scale_row() as usize)
                        * comptime!(p.weight.scale_row_bytes() as usize),
                };
                lane_sums(codes, scales, table, &place, tile, &shared, &mut sums, comptime!(r * tokens), p);
            }
        }
    }
    #[unroll]
    for r in 0..each {
        #[unroll]
        for t in 0..tokens {
            let sum = over_lanes(sums[comptime!(r * tokens + t)]);
            if UNIT_POS_PLANE == 0 && row + r < n && first + t < end {
                out[(first + t) * n + row + r] = sum;
            }
        }
    }
}

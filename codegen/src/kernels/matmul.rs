//! `matmul x @w`, `linear x @w fmt=`, `norm_linear x @norm @w eps= fmt=`, `grouped_matmul x @w groups=`,
//! `out_low x @w groups= fmt=`: x · wᵀ, where
//!
//! ```text
//! linear      = (matmul (round_act ?x ?fmt) ?w)
//! norm_linear = (matmul (round_act (rms_norm ?x ?norm ?eps) ?fmt) ?w)
//! out_low     = (grouped_matmul (round_act ?x ?fmt) ?w ?groups)
//! ```
//! A subgroup sums one to four rows of the matrix for up to eight inputs, which its block holds in
//! shared memory. The matrix is read once per eight inputs. Inputs of a long step go to [matrix units](matrix).
use super::common::{Number, Rows};
use super::matrix::{self, Dense, Given, Outcome};
use super::product::{self, Norm, Product};
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use ds4_ir::{Role, Scalar};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::rows,
    super::product::{Tile, Window, norm_factors, row_sums, stage},
    crate::emit,
    cubecl::prelude::*,
};

/// Operands by their place in the op's row.
struct Operands {
    w: usize,
    norm: Option<usize>,
    eps: Option<usize>,
    groups: Option<usize>,
    fmt: Option<usize>,
}

const PLAIN: Operands = Operands { w: 1, norm: None, eps: None, groups: None, fmt: None };

pub(crate) const MATMUL: Kernel = Kernel {
    op: "matmul",
    launches: |site, maxima, target| launches(site, maxima, target, &PLAIN),
    cases: &[
        case("%x: f32[t, 96], @w: f32[40, 96]", "matmul %x, @w : f32[t, 40]"),
        case("%x: f32[t, 64], @w: q8_0[24, 64]", "matmul %x, @w : f32[t, 24]"),
        case("%x: f32[t, 40], @w: q8_0[9, 40]", "matmul %x, @w : f32[t, 9]"),
        case("%x: f32[t, 30], @w: f16[9, 30]", "matmul %x, @w : f32[t, 9]"),
        case("%x: f32[t, 27], @w: bf16[9, 27]", "matmul %x, @w : f32[t, 9]"),
        case("%x: f32[t, 264], @w: bf16[33, 264]", "matmul %x, @w : f32[t, 33]"),
        case("%x: f32[t, 160], @w: fp8[130, 160]", "matmul %x, @w : f32[t, 130]"),
        case("%x: f32[t, 160], @w: fp4[17, 160]", "matmul %x, @w : f32[t, 17]"),
        case("%x: f32[t, 96], @w: mxfp4[17, 96]", "matmul %x, @w : f32[t, 17]"),
        case("%x: f32[t, 512], @w: q4_k[17, 512]", "matmul %x, @w : f32[t, 17]"),
        case("%x: f32[t, 512], @w: q2_k[17, 512]", "matmul %x, @w : f32[t, 17]"),
        case("%x: f32[t, 512], @w: iq2_xxs[17, 512]", "matmul %x, @w : f32[t, 17]"),
        case("%x: q8_k[t, 5120], @w: iq2_xxs[5, 5120]", "matmul %x, @w : f32[t, 5]"),
        case("%x: q8_0[t, 96], @w: q8_0[17, 96]", "matmul %x, @w : f32[t, 17]"),
        case("%x: e4m3x128[t, 192], @w: fp8[17, 192]", "matmul %x, @w : f32[t, 17]"),
        case("%x: bf16[t, 72], @w: bf16[17, 72]", "matmul %x, @w : f32[t, 17]"),
    ],
    tolerance: 2e-6,
};

pub(crate) const LINEAR: Kernel = Kernel {
    op: "linear",
    launches: |site, maxima, target| launches(site, maxima, target, &Operands { fmt: Some(2), ..PLAIN }),
    cases: &[
        long("%x: f32[t, 320], @w: bf16[24, 320]", "linear %x, @w, fmt=e4m3x128 : f32[t, 24]"),
        long("%x: f32[t, 320], @w: q8_0[24, 320]", "linear %x, @w, fmt=q8_0 : f32[t, 24]"),
        long("%x: f32[t, 512], @w: q2_k[24, 512]", "linear %x, @w, fmt=q8_k : f32[t, 24]"),
        case("%x: f32[t, 8448], @w: q8_0[5, 8448]", "linear %x, @w, fmt=q8_0 : f32[t, 5]"),
        long("%x: f32[t, 96], @w: mxfp4[24, 96]", "linear %x, @w, fmt=q8_0 : f32[t, 24]"),
        long("%x: f32[t, 160], @w: fp4[24, 160]", "linear %x, @w, fmt=q8_0 : f32[t, 24]"),
        long("%x: f32[t, 512], @w: q4_k[24, 512]", "linear %x, @w, fmt=q8_k : f32[t, 24]"),
        long("%x: f32[t, 768], @w: iq2_xxs[24, 768]", "linear %x, @w, fmt=q8_k : f32[t, 24]"),
        long("%x: f32[t, 72], @w: f16[24, 72]", "linear %x, @w, fmt=f16 : f32[t, 24]"),
        long("%x: f32[t, 72], @w: bf16[24, 72]", "linear %x, @w, fmt=bf16 : f32[t, 24]"),
        long("%x: f32[t, 72], @w: bf16[296, 72]", "linear %x, @w, fmt=f32 : f32[t, 296]"),
        long("%x: f32[t, 320], @w: fp8[264, 320]", "linear %x, @w, fmt=f32 : f32[t, 264]"),
        long("%x: f32[t, 96], @w: q8_0[256, 96]", "linear %x, @w, fmt=f32 : f32[t, 256]"),
        far("%wild: f32[t, 136], @w: f16[264, 136]", "linear %wild, @w, fmt=f32 : f32[t, 264]"),
        far("%wild: f32[t, 1056], @wild_w: q8_0[72, 1056]", "linear %wild, @wild_w, fmt=q8_0 : f32[t, 72]"),
        far("%wild: f32[t, 544], @wild_w: mxfp4[24, 544]", "linear %wild, @wild_w, fmt=q8_0 : f32[t, 24]"),
        far("%wild: f32[t, 1024], @wild_w: q4_k[24, 1024]", "linear %wild, @wild_w, fmt=q8_k : f32[t, 24]"),
        far("%wild: f32[t, 1024], @wild_w: q2_k[24, 1024]", "linear %wild, @wild_w, fmt=q8_k : f32[t, 24]"),
        far(
            "%wild: f32[t, 1792], @wild_w: iq2_xxs[24, 1792]",
            "linear %wild, @wild_w, fmt=q8_k : f32[t, 24]",
        ),
    ],
    tolerance: 2e-6,
};

pub(crate) const NORM_LINEAR: Kernel = Kernel {
    op: "norm_linear",
    launches: |site, maxima, target| {
        let at = Operands { w: 2, norm: Some(1), eps: Some(3), fmt: Some(4), ..PLAIN };
        launches(site, maxima, target, &at)
    },
    cases: &[
        case(
            "%x: f32[t, 96], @norm: f32[96], @w: q8_0[24, 96]",
            "norm_linear %x, @norm, @w, eps=1e-6, fmt=f32 : f32[t, 24]",
        ),
        long(
            "%x: f32[t, 256], @norm: bf16[256], @w: fp8[24, 256]",
            "norm_linear %x, @norm, @w, eps=1e-6, fmt=e4m3x128 : f32[t, 24]",
        ),
        long(
            "%x: f32[t, 200], @norm: bf16[200], @w: bf16[264, 200]",
            "norm_linear %x, @norm, @w, eps=1e-6, fmt=f32 : f32[t, 264]",
        ),
        long(
            "%x: f32[t, 1024], @norm: f32[1024], @w: q8_0[24, 1024]",
            "norm_linear %x, @norm, @w, eps=1e-6, fmt=q8_0 : f32[t, 24]",
        ),
    ],
    // A norm that differs in its last bit may round to another code.
    tolerance: 2e-2,
};

pub(crate) const GROUPED_MATMUL: Kernel = Kernel {
    op: "grouped_matmul",
    launches: |site, maxima, target| launches(site, maxima, target, &Operands { groups: Some(2), ..PLAIN }),
    cases: &[case("%x: f32[t, 8, 24], @w: bf16[36, 48]", "grouped_matmul %x, @w, groups=4 : f32[t, 36]")],
    tolerance: 2e-6,
};

pub(crate) const OUT_LOW: Kernel = Kernel {
    op: "out_low",
    launches: |site, maxima, target| {
        launches(site, maxima, target, &Operands { groups: Some(2), fmt: Some(3), ..PLAIN })
    },
    cases: &[
        case("%x: f32[t, 4, 64], @w: q8_0[40, 128]", "out_low %x, @w, groups=2, fmt=f32 : f32[t, 40]"),
        long("%x: f32[t, 4, 64], @w: fp8[40, 128]", "out_low %x, @w, groups=2, fmt=e4m3x128 : f32[t, 40]"),
        long("%x: f32[t, 4, 64], @w: q8_0[40, 128]", "out_low %x, @w, groups=2, fmt=q8_0 : f32[t, 40]"),
        long("%x: f32[t, 4, 64], @w: bf16[296, 128]", "out_low %x, @w, groups=2, fmt=f32 : f32[t, 296]"),
    ],
    tolerance: 2e-6,
};

/// A case with a long step besides, which runs on matrix units.
const fn long(header: &'static str, node: &'static str) -> Case {
    Case { header, node, steps: &[0..1, 4..13, 13..83] }
}

/// One long step with numbers far apart.
const fn far(header: &'static str, node: &'static str) -> Case {
    Case { header, node, steps: &[0..66] }
}

const fn case(header: &'static str, node: &'static str) -> Case {
    Case { header, node, steps: &[0..1, 1..4, 4..13] }
}

#[derive(Debug)]
struct Spec {
    inputs: Rows,
    product: Product,
}

fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target, at: &Operands) -> Option<Vec<Launch>> {
    let (x, w) = (site.value(0), site.weight(at.w));
    let [n, width] = w.constants()?[..] else { return None };
    let last = x.dims.last()?.constant()?;
    let outer = if at.groups.is_some() { &x.dims[..1] } else { &x.dims[..x.dims.len() - 1] };
    let inputs = Rows::of(outer);
    let most = inputs.max(maxima);
    let mut product = Product::new(w.scalar, n, x.scalar, width, most, target)?;
    product.parts = at.groups.map_or(1, |i| site.int(i));
    // The rows of an input's part must lie as one row of that type would.
    let whole = last == width || last.is_multiple_of(x.scalar.block() as u32) && x.scalar != Scalar::E4m3x128;
    let mut norm = Binding::Step;
    if let (Some(weight), Some(eps)) = (at.norm, at.eps) {
        let number = Number::of(site.weight(weight).scalar)?;
        product = product.normed(Norm::Weighted((site.real(eps) as f32).to_bits(), number), target);
        norm = Binding::Weight(weight, Role::Codes);
    }
    if let Some(fmt) = at.fmt {
        let format = site.format(fmt);
        let dense = Dense {
            given: Given { inputs, operand: 0, width: last, format, norm: (product.norm, norm.clone()) },
            input: x,
            weights: &[at.w],
            weight: w,
            parts: product.parts,
            outcome: Outcome::Rows,
            with: [Binding::Step, Binding::Step, Binding::Step],
        };
        if let Some(list) = matrix::dense(dense, 0, maxima, target) {
            return whole.then_some(list);
        }
        product = product.rounded(format, last)?;
    }
    let launch = launch(inputs, product, most, 0, norm, (at.w, w.scalar), Binding::Out);
    whole.then(|| vec![launch])
}

/// The launch of a product of operand `x` with the weight at `w` into `out`.
pub(super) fn launch(
    inputs: Rows,
    product: Product,
    most: u32,
    x: usize,
    norm: Binding,
    w: (usize, Scalar),
    out: Binding,
) -> Launch {
    let [codes, scales] = product::matrix(w.0, w.1);
    Launch {
        block: [product.threads(), 1, 1],
        grid: [product.row_blocks(), most.div_ceil(product.tokens), 1],
        bindings: vec![Binding::Step, Binding::Value(x), norm, codes, scales, product.table(), out],
        text: Arc::new(Spec { inputs, product }),
    }
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        match (self.product.norm, self.product.parts) {
            (Norm::None, 1) => "matmul",
            (Norm::None, _) => "grouped_matmul",
            _ => "norm_matmul",
        }
    }

    fn holds_many_sums(&self) -> bool {
        self.product.holds_many_sums()
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
    let mut held = Tile::new(p);
    norm_factors(x, first, end, &mut held, p);
    let mut window = Window::new(p);
    let mut sums = Array::<f32>::new(comptime!(tokens * each));
    let part_rows = comptime!(p.part_rows() as usize);
    let part = CUBE_POS_X as usize / comptime!(p.part_blocks() as usize);
    let block = CUBE_POS_X as usize % comptime!(p.part_blocks() as usize);
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let row = part * part_rows + (block * comptime!(p.subgroups as usize) + subgroup) * each;
    let stop = (part + 1) * part_rows;
    for tile in 0..comptime!(p.tiles() as usize) {
        sync_cube();
        stage(x, norm, first, end, part, tile, &mut held, p);
        sync_cube();
        row_sums(codes, scales, table, 0usize, 0usize, row, stop, tile, &held, &mut window, &mut sums, p);
    }
    #[unroll]
    for r in 0..each {
        #[unroll]
        for t in 0..tokens {
            let sum = plane_sum(sums[comptime!(r * tokens + t)]);
            if UNIT_POS_PLANE == 0 && row + r < stop && first + t < end {
                out[(first + t) * comptime!(p.rows as usize) + row + r] = sum;
            }
        }
    }
}

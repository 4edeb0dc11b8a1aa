//! `closed_pos pos ratio=`: first position of each block of `ratio` tokens that the step closes
//! (spec 2.5).
use super::common::Rows;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::rows,
    crate::{emit, step},
    cubecl::prelude::*,
};

const THREADS: u32 = 64;

pub(crate) const KERNEL: Kernel = Kernel {
    op: "closed_pos",
    launches,
    cases: &[
        Case {
            header: "%pos: i32[t]",
            node: "closed_pos %pos, ratio=4 : i32[m4]",
            steps: &[0..3, 3..4, 4..21],
        },
        Case { header: "%pos: i32[t]", node: "closed_pos %pos, ratio=8 : i32[m8]", steps: &[0..7, 7..25] },
    ],
    tolerance: 0.0,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    ratio: u32,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _: &Target) -> Option<Vec<Launch>> {
    let spec = Spec { rows: Rows::of(&site.ty.tensor()?.dims), ratio: site.int(1) };
    Some(vec![Launch {
        block: [THREADS, 1, 1],
        grid: [spec.rows.max(maxima).div_ceil(THREADS), 1, 1],
        bindings: vec![Binding::Step, Binding::Out],
        text: Arc::new(spec),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "closed_pos"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&closed_pos::ClosedPos::new(set, dev, lang, b0, b1, self.rows, self.ratio))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn closed_pos(step: &[i32], out: &mut [i32], #[comptime] n_rows: Rows, #[comptime] ratio: u32) {
    let i = ABSOLUTE_POS as usize;
    if i < rows(step, n_rows) {
        let ratio = comptime!(ratio as i32);
        out[i] = (step[step::START] / ratio + i as i32) * ratio;
    }
}

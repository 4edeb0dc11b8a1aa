//! `take_rows x want`: the rows of x whose logits are wanted.
//!
//! One thread per element of the result.
use super::common::Rows;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {super::common::rows, crate::emit, cubecl::prelude::*};

const THREADS: u32 = 256;

pub(crate) const KERNEL: Kernel = Kernel {
    op: "take_rows",
    launches,
    cases: &[
        Case {
            header: "%x: f32[t, 40], %want: i32[w]",
            node: "take_rows %x, %want : f32[w, 40]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "%x: f32[t, 4, 130], %want: i32[w]",
            node: "take_rows %x, %want : f32[w, 4, 130]",
            steps: &[0..3, 3..5],
        },
    ],
    tolerance: 0.0,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    size: u32,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _: &Target) -> Option<Vec<Launch>> {
    let out = site.ty.tensor()?;
    let size = out.dims[1..].iter().map(|d| d.constant()).product::<Option<u32>>()?;
    let spec = Spec { rows: Rows::of(&out.dims[..1]), size };
    let grid = [spec.rows.max(maxima), size.div_ceil(THREADS), 1];
    let bindings = vec![Binding::Step, Binding::Value(0), Binding::Value(1), Binding::Out];
    Some(vec![Launch { text: Arc::new(spec), block: [THREADS, 1, 1], grid, bindings }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "take_rows"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&take_rows::TakeRows::new(set, dev, lang, b0, b1, b2, b3, self.rows, self.size))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn take_rows(
    step: &[i32],
    x: &[f32],
    want: &[i32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] size: u32,
) {
    let row = CUBE_POS_X as usize;
    let at = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    let size = comptime!(size as usize);
    if row < rows(step, n_rows) && at < size {
        out[row * size + at] = x[want[row] as usize * size + at];
    }
}

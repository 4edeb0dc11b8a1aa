//! `streams x n=`: every row of x in each of the n residual streams.
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
    op: "streams",
    launches,
    cases: &[
        Case { header: "%x: f32[t, 40]", node: "streams %x, n=4 : f32[t, 4, 40]", steps: &[0..1, 1..8] },
        Case { header: "%x: f32[t, 130]", node: "streams %x, n=2 : f32[t, 2, 130]", steps: &[0..3, 3..5] },
    ],
    tolerance: 0.0,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    streams: u32,
    width: u32,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _: &Target) -> Option<Vec<Launch>> {
    let x = site.value(0);
    let width = x.dims[1].constant()?;
    let spec = Spec { rows: Rows::of(&x.dims[..1]), streams: site.int(1), width };
    let grid = [spec.rows.max(maxima), (spec.streams * width).div_ceil(THREADS), 1];
    let bindings = vec![Binding::Step, Binding::Value(0), Binding::Out];
    Some(vec![Launch { text: Arc::new(spec), block: [THREADS, 1, 1], grid, bindings }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "streams"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&streams::Streams::new(
            set,
            dev,
            lang,
            b0,
            b1,
            b2,
            self.rows,
            self.streams,
            self.width,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn streams(
    step: &[i32],
    x: &[f32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] streams: u32,
    #[comptime] width: u32,
) {
    let row = CUBE_POS_X as usize;
    let at = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    let (width, all) = comptime!((width as usize, (streams * width) as usize));
    if row < rows(step, n_rows) && at < all {
        out[row * all + at] = x[row * width + at % width];
    }
}

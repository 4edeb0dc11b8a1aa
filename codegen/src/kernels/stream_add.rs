//! `stream_add h y`: h with y added to every stream (spec 2.9).
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
    op: "stream_add",
    launches,
    cases: &[
        Case {
            header: "%h: f32[t, 4, 40], %y: f32[t, 40]",
            node: "stream_add %h, %y : f32[t, 4, 40]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "%h: f32[t, 2, 130], %y: f32[t, 130]",
            node: "stream_add %h, %y : f32[t, 2, 130]",
            steps: &[0..3, 3..5],
        },
    ],
    tolerance: 1e-7,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    streams: u32,
    width: u32,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _: &Target) -> Option<Vec<Launch>> {
    let h = site.value(0);
    let (streams, width) = (h.dims[1].constant()?, h.dims[2].constant()?);
    let spec = Spec { rows: Rows::of(&h.dims[..1]), streams, width };
    let grid = [spec.rows.max(maxima), (streams * width).div_ceil(THREADS), 1];
    let bindings = vec![Binding::Step, Binding::Value(0), Binding::Value(1), Binding::Out];
    Some(vec![Launch { text: Arc::new(spec), block: [THREADS, 1, 1], grid, bindings }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "stream_add"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (rows, streams, width) = (self.rows, self.streams, self.width);
        CubeKernel::define(&stream_add::StreamAdd::new(set, dev, lang, b0, b1, b2, b3, rows, streams, width))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn stream_add(
    step: &[i32],
    h: &[f32],
    y: &[f32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] streams: u32,
    #[comptime] width: u32,
) {
    let row = CUBE_POS_X as usize;
    let at = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    let (width, all) = comptime!((width as usize, (streams * width) as usize));
    if row < rows(step, n_rows) && at < all {
        out[row * all + at] = h[row * all + at] + y[row * width + at % width];
    }
}

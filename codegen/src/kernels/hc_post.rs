//! `hc_post h y gates`: `post_j · y + Σ_i combine_ij · h_i` for each stream j (spec 2.1).
//!
//! One thread per channel of a token: it reads every stream once and writes every stream.
use super::common::Rows;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {super::common::rows, crate::emit, cubecl::prelude::*};

const THREADS: u32 = 256;
/// Most streams that a thread holds in registers.
const STREAMS_MAX: u32 = 8;

pub(crate) const KERNEL: Kernel = Kernel {
    op: "hc_post",
    launches,
    cases: &[
        Case {
            header: "%h: f32[t, 4, 40], %y: f32[t, 40], %gates: f32[t, 24]",
            node: "hc_post %h, %y, %gates : f32[t, 4, 40]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "%h: f32[t, 2, 300], %y: f32[t, 300], %gates: f32[t, 8]",
            node: "hc_post %h, %y, %gates : f32[t, 2, 300]",
            steps: &[0..3, 3..5],
        },
    ],
    tolerance: 1e-6,
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
    if streams > STREAMS_MAX {
        return None;
    }
    let spec = Spec { rows: Rows::of(&h.dims[..1]), streams, width };
    let grid = [spec.rows.max(maxima), width.div_ceil(THREADS), 1];
    let bindings = vec![Binding::Step, Binding::Value(0), Binding::Value(1), Binding::Value(2), Binding::Out];
    Some(vec![Launch { text: Arc::new(spec), block: [THREADS, 1, 1], grid, bindings }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "hc_post"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (rows, streams, width) = (self.rows, self.streams, self.width);
        CubeKernel::define(&hc_post::HcPost::new(set, dev, lang, b0, b1, b2, b3, b4, rows, streams, width))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn hc_post(
    step: &[i32],
    h: &[f32],
    y: &[f32],
    gates: &[f32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] streams: u32,
    #[comptime] width: u32,
) {
    let row = CUBE_POS_X as usize;
    let channel = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    let (n, width) = comptime!((streams as usize, width as usize));
    if row < rows(step, n_rows) && channel < width {
        mix_streams(h, y[row * width + channel], gates, row, channel, out, n, width);
    }
}

/// Writes one channel of every stream of token `row` from `y`, its channel of the sublayer's output.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn mix_streams(
    h: &[f32],
    y: f32,
    gates: &[f32],
    row: usize,
    channel: usize,
    out: &mut [f32],
    #[comptime] n: usize,
    #[comptime] width: usize,
) {
    let first = row * comptime!(n * n + 2 * n);
    let at = row * comptime!(n * width) + channel;
    let mut from = Array::<f32>::new(n);
    #[unroll]
    for i in 0..n {
        from[i] = h[at + comptime!(i * width)];
    }
    #[unroll]
    for j in 0..n {
        let mut sum = gates[first + comptime!(n + j)] * y;
        #[unroll]
        for i in 0..n {
            // The first index of the matrix is the source stream (spec 2.1).
            sum += gates[first + comptime!(2 * n + i * n + j)] * from[i];
        }
        out[at + comptime!(j * width)] = sum;
    }
}

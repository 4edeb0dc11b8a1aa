//! All kernels, and the questions that are asked of them.
use crate::kernels;
use crate::{Api, Binding, Kernel, Launch, Target, block};
use ds4_ir::cost::{Kernels, Needs, Rates, Site};
use ds4_ir::plan::Maxima;
use ds4_ir::{Func, Value};

/// Every op that has a kernel, by name.
pub const KERNELS: &[&Kernel] = &[
    &kernels::push::APPEND,
    &kernels::closed_pos::KERNEL,
    &kernels::row::ops::COMPRESS_APPEND,
    &kernels::row::ops::COMPRESS_INDEX_APPEND,
    &kernels::row::ops::COMPRESS_INDEX_ROW,
    &kernels::compress_pool::KERNEL,
    &kernels::compress_push::KERNEL,
    &kernels::row::ops::COMPRESS_ROW,
    &kernels::attend::ops::CSA,
    &kernels::attend::ops::CSA_QUERY,
    &kernels::embed_rows::KERNEL,
    &kernels::matmul::GROUPED_MATMUL,
    &kernels::hc_enter::HC_ENTER,
    &kernels::hc_gates::KERNEL,
    &kernels::hc_enter::HC_HEAD_ENTER,
    &kernels::hc_gates::HEAD,
    &kernels::hc_post::KERNEL,
    &kernels::hc_pre::KERNEL,
    &kernels::hc_pre::NORM,
    &kernels::attend::ops::HCA,
    &kernels::attend::ops::HCA_QUERY,
    &kernels::row::ops::HEAD_NORM,
    &kernels::row::ops::HEAD_ROPE,
    &kernels::row::ops::INDEX_QUERY,
    &kernels::index::KERNEL,
    &kernels::row::ops::KV_ROW,
    &kernels::matmul::LINEAR,
    &kernels::matmul::MATMUL,
    &kernels::gated::MLP_UP,
    &kernels::moe_down::MOE_DOWN,
    &kernels::moe_down::MOE_POST,
    &kernels::moe_route::MOE_ROUTE,
    &kernels::moe_route::MOE_ROUTE_HASH,
    &kernels::gated::MOE_UP,
    &kernels::matmul::NORM_LINEAR,
    &kernels::matmul::OUT_LOW,
    &kernels::out_post::KERNEL,
    &kernels::push::PUSH,
    &kernels::rms_norm::KERNEL,
    &kernels::row::ops::ROPE,
    &kernels::rope_table::KERNEL,
    &kernels::row::ops::ROUND_ACT,
    &kernels::stream_add::KERNEL,
    &kernels::streams::KERNEL,
    &kernels::attend::ops::SWA,
    &kernels::attend::ops::SWA_QUERY,
    &kernels::take_rows::KERNEL,
    &kernels::row::ops::TO_INDEX,
    &kernels::row::ops::TO_ROW,
    &kernels::row::ops::UNROPE,
];

/// The kernels of an op.
pub fn kernel(op: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|k| k.op == op).copied()
}

/// What runs a node in a bucket, in order. Views launch nothing; `None`: the target cannot do it.
pub fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target) -> Option<Vec<Launch>> {
    if site.is_view() {
        return Some(Vec::new());
    }
    (kernel(site.op.name)?.launches)(site, maxima, target)
}

/// Bytes that a node's launches need beside operands and result.
pub fn scratch_bytes(launches: &[Launch]) -> u64 {
    launches.iter().flat_map(|l| &l.bindings).map(Binding::scratch_end).max().unwrap_or(0)
}

impl Kernels for Target {
    fn name(&self) -> &'static str {
        Api::ALL[self.api as usize].0
    }

    fn rates(&self) -> Rates {
        let (launch_ns, gb_s, gflop_s) = match self.api {
            Api::Cuda => (2_000, 1_500, 40_000),
            Api::Hip => (4_000, 250, 20_000),
            Api::Metal => (3_000, 500, 15_000),
        };
        Rates { launch_ns, gb_s, gflop_s }
    }

    fn has(&self, op: &str) -> bool {
        kernel(op).is_some()
    }

    fn needs(&self, site: &Site<'_>, maxima: &Maxima) -> Option<Needs> {
        let list = launches(site, maxima, self)?;
        Some(Needs { launches: list.len() as u64, scratch: scratch_bytes(&list) })
    }

    fn block(&self, func: &Func, members: &[Value], maxima: &Maxima) -> Option<u64> {
        Some(block(func, members, maxima, self).ok()?.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_sorted_and_are_ops() {
        let names: Vec<&str> = KERNELS.iter().map(|k| k.op).collect();
        assert!(names.is_sorted(), "{names:?}");
        for kernel in KERNELS {
            assert!(ds4_ir::op(kernel.op).is_some(), "`{}` is no op", kernel.op);
            assert!(!kernel.cases.is_empty(), "`{}` has no cases", kernel.op);
            for case in kernel.cases {
                let func = ds4_ir::parse_funcs(&case.func());
                let func = &func.unwrap_or_else(|e| panic!("{}: {e}", case.node))[0];
                let node = func.nodes().next().expect("a node").1;
                assert_eq!(node.op.name, kernel.op);
            }
        }
    }
}

//! What each target can launch and what that costs: the prices that `fuse` chooses by.
//!
//! For the GPUs this is the list of kernels intended. Every primitive is one launch everywhere.
use crate::cost::{Cost, Site};
use ds4_ir::plan::Maxima;
use std::fmt;

/// What a module is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// The processor itself.
    Cpu,
    /// NVIDIA.
    Cuda,
    /// AMD.
    Hip,
    /// Apple.
    Metal,
}

/// A fused op's launches on each target, in the order of [`Target::ALL`]; 0 where it has no kernel.
struct Row(&'static str, [u8; 4]);

/// Two launches where the work is split over the device and joined: scores then selection, partial
/// softmaxes then their merge.
#[rustfmt::skip]
const KERNELS: &[Row] = &[
    //                             cpu cuda hip metal
    Row("compress_append",        [0,  1,  1,  1]),
    Row("compress_index_append",  [0,  1,  1,  1]),
    Row("compress_index_row",     [1,  1,  1,  1]),
    Row("compress_row",           [1,  1,  1,  1]),
    Row("csa_attend",             [1,  2,  2,  2]),
    Row("hc_enter",               [1,  1,  1,  1]),
    Row("hc_head_enter",          [1,  1,  1,  1]),
    Row("hc_pre_norm",            [1,  1,  1,  1]),
    Row("hca_attend",             [1,  2,  2,  2]),
    Row("head_rope",              [1,  1,  1,  1]),
    Row("index_query",            [1,  1,  1,  1]),
    Row("index_select",           [1,  2,  2,  2]),
    Row("kv_row",                 [1,  1,  1,  1]),
    Row("linear",                 [0,  1,  1,  1]),
    Row("mlp_up",                 [1,  1,  1,  1]),
    Row("moe_down",               [1,  1,  1,  1]),
    Row("moe_post",               [0,  1,  1,  1]),
    Row("moe_route",              [1,  2,  2,  2]),
    Row("moe_route_hash",         [1,  2,  2,  2]),
    Row("moe_up",                 [1,  1,  1,  1]),
    Row("norm_linear",            [0,  1,  1,  1]),
    Row("out_low",                [0,  1,  1,  1]),
    Row("out_post",               [0,  1,  1,  1]),
    Row("swa_attend",             [1,  2,  2,  2]),
];

/// Round figures of a machine of that kind, for choosing only: a launch in ns, memory in GB/s,
/// arithmetic in GFLOP/s.
struct Rates(u64, u64, u64);

impl Target {
    /// All targets by name.
    pub const ALL: [(&'static str, Target); 4] =
        [("cpu", Target::Cpu), ("cuda", Target::Cuda), ("hip", Target::Hip), ("metal", Target::Metal)];

    /// Reads a name of [`Target::ALL`].
    pub fn parse(name: &str) -> Option<Target> {
        Target::ALL.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
    }

    fn rates(self) -> Rates {
        match self {
            Target::Cpu => Rates(3_000, 50, 500),
            Target::Cuda => Rates(2_000, 1_500, 40_000),
            Target::Hip => Rates(4_000, 250, 20_000),
            Target::Metal => Rates(3_000, 500, 15_000),
        }
    }

    /// Launches of one node, `None` where the target has no kernel for it.
    pub fn launches(self, site: &Site<'_>) -> Option<u64> {
        if site.is_view() {
            return Some(0);
        }
        if site.op.definition().is_none() {
            return Some(1);
        }
        let row = KERNELS.iter().find(|row| row.0 == site.op.name)?;
        Some(u64::from(row.1[self as usize])).filter(|n| *n > 0)
    }

    /// Whether the target has a kernel for the op of that name.
    pub fn has_kernel(self, op: &str) -> bool {
        KERNELS.iter().find(|row| row.0 == op).is_none_or(|row| row.1[self as usize] > 0)
    }

    /// The cost of one node with its launches, `None` where the target has no kernel for it.
    pub fn cost(self, site: &Site<'_>, maxima: &Maxima) -> Option<Cost> {
        Some(Cost { launches: self.launches(site)?, ..site.cost(maxima) })
    }

    /// What choosing this node is charged, in picoseconds; `None` is infinite.
    pub fn price(self, site: &Site<'_>, maxima: &Maxima) -> Option<u64> {
        let Rates(launch_ns, gb_s, gflop_s) = self.rates();
        let cost = self.cost(site, maxima)?;
        let time = cost.launches * launch_ns * 1000
            + cost.bytes() * 1000 / gb_s
            + (cost.flops + cost.int_ops) * 1000 / gflop_s;
        // Of two spellings that cost the same the primitive one is kept.
        Some(time + u64::from(site.op.definition().is_some()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Target::ALL[*self as usize].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fused_op_is_somewhere_and_every_row_is_an_op() {
        let names: Vec<&str> = KERNELS.iter().map(|row| row.0).collect();
        assert!(names.is_sorted(), "{names:?}");
        let fused = ds4_ir::ops::ops().filter(|op| op.definition().is_some());
        let mut fused: Vec<&str> = fused.map(|op| op.name).collect();
        fused.sort_unstable();
        assert_eq!(names, fused);
    }
}

//! What each target can launch and what that costs: the prices that `fuse` chooses by.
use crate::cost::{Cost, Site, args_of};
use ds4_ir::cost::{Kernels, Rates};
use ds4_ir::plan::Maxima;
use ds4_ir::{Func, Value};
use std::fmt;

/// What a module is compiled for.
#[derive(Clone, Copy)]
pub enum Target {
    /// The processor itself.
    Cpu,
    /// A device, with the kernels that there are for it.
    Gpu(&'static dyn Kernels),
}

/// Fused ops that have a kernel on the CPU.
const CPU_KERNELS: &[&str] = &[
    "compress_index_row",
    "compress_row",
    "csa_attend",
    "hc_enter",
    "hc_head_enter",
    "hc_pre_norm",
    "hca_attend",
    "head_rope",
    "index_query",
    "index_select",
    "kv_row",
    "mlp_up",
    "moe_down",
    "moe_route",
    "moe_route_hash",
    "moe_up",
    "swa_attend",
];

const CPU_RATES: Rates = Rates { launch_ns: 3_000, gb_s: 50, gflop_s: 500 };

impl Target {
    /// What such a machine is good for, in round figures.
    pub fn rates(self) -> Rates {
        match self {
            Target::Cpu => CPU_RATES,
            Target::Gpu(kernels) => kernels.rates(),
        }
    }

    /// Launches of one node, `None` where the target has no kernel for it. On the CPU every primitive
    /// and every fused op is one.
    pub fn launches(self, site: &Site<'_>, maxima: &Maxima) -> Option<u64> {
        if site.is_view() {
            return Some(0);
        }
        match self {
            Target::Cpu => self.has_kernel(site.op.name).then_some(1),
            Target::Gpu(kernels) => kernels.needs(site, maxima).map(|needs| needs.launches),
        }
    }

    /// Launches of a block of nodes or of a node alone, `None` where the target has no kernel for a member. The
    /// CPU runs a block as one.
    pub fn block(self, func: &Func, members: &[Value], maxima: &Maxima) -> Option<u64> {
        let Target::Gpu(kernels) = self else {
            let one = |v: &Value| {
                let op = func.node(*v).expect("launches are nodes").op;
                self.launches(&Site { op, args: &args_of(func, *v), ty: func.ty(*v) }, maxima)
            };
            let all: Option<Vec<u64>> = members.iter().map(one).collect();
            return all?.into_iter().max();
        };
        kernels.block(func, members, maxima)
    }

    /// Whether the target has a kernel for the op of that name.
    pub fn has_kernel(self, op: &str) -> bool {
        match self {
            Target::Cpu => {
                let fused = ds4_ir::op(op).is_some_and(|op| op.definition().is_some());
                !fused || CPU_KERNELS.contains(&op)
            }
            Target::Gpu(kernels) => kernels.has(op),
        }
    }

    /// The cost of one node with its launches, `None` where the target has no kernel for it.
    pub fn cost(self, site: &Site<'_>, maxima: &Maxima) -> Option<Cost> {
        Some(Cost { launches: self.launches(site, maxima)?, ..site.cost(maxima) })
    }

    /// What choosing this node is charged, in picoseconds; `None` is infinite.
    pub fn price(self, site: &Site<'_>, maxima: &Maxima) -> Option<u64> {
        let Rates { launch_ns, gb_s, gflop_s } = self.rates();
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
        f.write_str(match self {
            Target::Cpu => "cpu",
            Target::Gpu(kernels) => kernels.name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_the_cpu_are_sorted_and_are_fused_ops() {
        assert!(CPU_KERNELS.is_sorted());
        for name in CPU_KERNELS {
            let op = ds4_ir::op(name).unwrap_or_else(|| panic!("`{name}` is no op"));
            assert!(op.definition().is_some(), "`{name}` is a primitive");
        }
    }
}

//! What each target can launch and what that costs: the prices that `fuse` chooses by.
use crate::cost::{Cost, Site};
use ds4_ir::cost::{Kernels, Rates};
use ds4_ir::plan::Maxima;
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
    fn rates(self) -> Rates {
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

    /// Launches of two members of a block: the CPU runs a block as one, a device its members in turn.
    pub(crate) fn together(self, a: u64, b: u64) -> u64 {
        match self {
            Target::Cpu => a.max(b),
            Target::Gpu(_) => a + b,
        }
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

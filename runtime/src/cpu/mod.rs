//! Kernels of the CPU target. A fused op without one runs its parts, a primitive its `eval`.
//!
//! A kernel's result has the same bits for any number of threads and any split of the prompt: each
//! element has one summation order, that of the interpreter.
mod attend;
mod cells;
mod fused;
mod index;
mod linear;
#[allow(dead_code, reason = "programs call the kernels by and by")]
pub(crate) mod product;
mod rows;

use ds4_ir::Op;
use ds4_ir::ops::SigArg;
use ds4_ir::plan::Maxima;
use ds4_ir::view::Frame;
use fused::Composite;

/// Runs one op on the threads of the pool it is called in.
pub(crate) type Kernel = fn(&mut Frame<'_, f32>);

/// By name of the op.
const KERNELS: &[(&str, Kernel)] = &[
    ("attend_entries", attend::attend_entries),
    ("attend_selected", attend::attend_selected),
    ("attend_window", attend::attend_window),
    ("csa_attend", attend::csa_attend),
    ("expert_matmul", linear::expert_matmul),
    ("grouped_matmul", linear::grouped_matmul),
    ("hca_attend", attend::hca_attend),
    ("head_rope", rows::head_rope),
    ("index_select", index::index_select),
    ("matmul", linear::matmul),
    ("swa_attend", attend::swa_attend),
];

/// How a node runs.
pub(crate) enum Launcher {
    /// One kernel.
    Kernel(Kernel),
    /// The kernels of the parts of a fused op.
    Composite(Composite),
}

impl Launcher {
    /// For a node of `op` with operands of these types.
    pub(crate) fn new(op: &Op, args: &[SigArg<'_>], maxima: &Maxima) -> Launcher {
        if has_kernel(op) {
            return Launcher::Kernel(plain(op));
        }
        Composite::new(op, args, maxima).map_or_else(|| Launcher::Kernel(plain(op)), Launcher::Composite)
    }

    /// Bytes of scratch that a run touches at most.
    pub(crate) fn scratch_bytes(&self) -> u64 {
        match self {
            Launcher::Kernel(_) => 0,
            Launcher::Composite(composite) => composite.scratch_bytes,
        }
    }

    /// Runs the node.
    pub(crate) fn run(&self, frame: &mut Frame<'_, f32>) {
        match self {
            Launcher::Kernel(kernel) => kernel(frame),
            Launcher::Composite(composite) => composite.run(frame),
        }
    }
}

fn has_kernel(op: &Op) -> bool {
    KERNELS.iter().any(|(name, _)| *name == op.name)
}

/// The kernel of an op: its own or `eval`.
fn plain(op: &Op) -> Kernel {
    let own = KERNELS.iter().find(|(name, _)| *name == op.name);
    own.map_or_else(|| <f32 as ds4_ir::Real>::eval_of(op), |(_, kernel)| *kernel)
}

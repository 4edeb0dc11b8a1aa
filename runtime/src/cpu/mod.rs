//! Kernels of the CPU target. A fused op without one runs its parts, a primitive its `eval`.
//!
//! A kernel's result has the same bits for any number of threads and any split of the prompt: each
//! element has one summation order, that of the interpreter.
#![allow(dead_code, reason = "kernels that use all of a frame are being written")]
mod attend;
mod cells;
mod frame;
mod fused;
mod index;
mod linear;
mod op;
pub(crate) mod product;
mod rows;

use ds4_ir::Op;
use ds4_ir::view::Frame;
use fused::Composite;
use op::Whole;

pub(crate) use frame::{Place, SharedFrame};
pub(crate) use op::{OpKernel, Site};

/// Makes the kernel of a node.
type Make = fn(&Site<'_>) -> Box<dyn OpKernel>;

/// Runs one op as a whole.
pub(crate) type Kernel = fn(&mut Frame<'_, f32>);

/// Kernels by name of the op.
const KERNELS: &[(&str, Make)] = &[
    ("attend_entries", |_| Box::new(Whole(attend::attend_entries))),
    ("attend_selected", |_| Box::new(Whole(attend::attend_selected))),
    ("attend_window", |_| Box::new(Whole(attend::attend_window))),
    ("csa_attend", |_| Box::new(Whole(attend::csa_attend))),
    ("expert_matmul", |_| Box::new(Whole(linear::expert_matmul))),
    ("grouped_matmul", |_| Box::new(Whole(linear::grouped_matmul))),
    ("hca_attend", |_| Box::new(Whole(attend::hca_attend))),
    ("head_rope", |_| Box::new(Whole(rows::head_rope))),
    ("index_select", |_| Box::new(Whole(index::index_select))),
    ("matmul", |_| Box::new(Whole(linear::matmul))),
    ("swa_attend", |_| Box::new(Whole(attend::swa_attend))),
];

/// The kernel of a node: its op's own, the kernels of its parts if it is fused, its `eval`.
pub(crate) fn kernel(site: &Site<'_>) -> Box<dyn OpKernel> {
    if let Some((_, make)) = KERNELS.iter().find(|(name, _)| *name == site.op.name) {
        return make(site);
    }
    match Composite::new(site) {
        Some(composite) => Box::new(composite),
        None => Box::new(Whole(eval(site.op))),
    }
}

fn eval(op: &Op) -> Kernel {
    <f32 as ds4_ir::Real>::eval_of(op)
}

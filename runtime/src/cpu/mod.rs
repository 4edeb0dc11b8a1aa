//! Kernels of the CPU target. A fused op without one runs its parts, a primitive its `eval`.
//!
//! A kernel's result has the same bits for any number of threads and any split of the prompt: each
//! element has one summation order, that of the interpreter.
mod attend;
pub mod case;
pub(crate) mod cells;
mod compress;
#[cfg(test)]
mod differential;
mod encode;
mod enter;
mod experts;
mod frame;
mod fused;
mod grouping;
mod index;
mod input;
mod linear;
mod op;
pub(crate) mod product;
mod products;
mod rows;
mod select;
mod silu;
mod simd;
mod worker;

use ds4_ir::Op;
use ds4_ir::view::Frame;
use fused::Composite;
use op::Whole;

pub(crate) use frame::{Place, SharedFrame};
pub(crate) use op::{OpKernel, Site};
pub(crate) use products::Products;

/// Makes the kernel of a node, `None` where it has none for these types.
type Make = fn(&Site<'_>) -> Option<Box<dyn OpKernel>>;

/// Runs one op as a whole.
pub(crate) type Kernel = fn(&mut Frame<'_, f32>);

/// Kernels by name of the op.
const KERNELS: &[(&str, Make)] = &[
    ("attend_entries", attend),
    ("attend_selected", attend),
    ("attend_window", attend),
    ("compress_index_row", compress),
    ("compress_pool", compress),
    ("compress_push", |site| Some(Box::new(compress::Push::new(site)?))),
    ("compress_row", compress),
    ("csa_attend", attend),
    ("expert_matmul", |site| Some(Box::new(experts::ExpertMatmul::new(site)))),
    ("grouped_matmul", |site| Some(Box::new(linear::Matmul::new(site)))),
    ("hc_enter", |site| Some(Box::new(enter::Enter::new(site)))),
    ("hc_head_enter", |site| Some(Box::new(enter::Enter::new(site)))),
    ("hc_post", rows),
    ("hc_pre", rows),
    ("hc_pre_norm", rows),
    ("hca_attend", attend),
    ("head_rope", rows),
    ("index_query", rows),
    ("index_select", |site| Some(Box::new(index::IndexSelect::new(site)?))),
    ("kv_row", rows),
    ("matmul", |site| Some(Box::new(linear::Matmul::new(site)))),
    ("mlp_up", |site| Some(Box::new(linear::MlpUp::new(site)))),
    ("moe_down", |site| Some(Box::new(experts::MoeDown::new(site)))),
    ("moe_route", |site| Some(Box::new(enter::Enter::new(site)))),
    ("moe_route_hash", |site| Some(Box::new(enter::Enter::new(site)))),
    ("moe_up", |site| Some(Box::new(experts::MoeUp::new(site)))),
    ("rms_norm", rows),
    ("round_act", rows),
    ("swa_attend", attend),
    ("to_index", rows),
    ("to_row", rows),
];

/// The kernel of a node: its op's own, the kernels of its parts if it is fused, its `eval`.
pub(crate) fn kernel(site: &Site<'_>) -> Box<dyn OpKernel> {
    let own = KERNELS.iter().find(|(name, _)| *name == site.op.name);
    if let Some(kernel) = own.and_then(|(_, make)| make(site)) {
        return kernel;
    }
    match Composite::new(site) {
        Some(composite) => Box::new(composite),
        None => Box::new(Whole(eval(site.op))),
    }
}

fn compress(site: &Site<'_>) -> Option<Box<dyn OpKernel>> {
    Some(Box::new(compress::Compress::new(site)?))
}

fn rows(site: &Site<'_>) -> Option<Box<dyn OpKernel>> {
    Some(Box::new(rows::Rows::new(site)?))
}

fn attend(site: &Site<'_>) -> Option<Box<dyn OpKernel>> {
    Some(Box::new(attend::Attend::new(site)?))
}

fn eval(op: &Op) -> Kernel {
    <f32 as ds4_ir::Real>::eval_of(op)
}

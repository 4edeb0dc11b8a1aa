//! Kernels of the CPU target. An op without one runs by its `eval`.
//!
//! A kernel's result has the same bits for any number of threads and any split of the prompt: each
//! element has one summation order, that of the interpreter.
mod attend;
mod cells;
mod linear;

use ds4_ir::Op;
use ds4_ir::view::Frame;

/// Runs one op on the threads of the pool it is called in.
pub(crate) type Kernel = fn(&mut Frame<'_, f32>);

/// By name of the op.
const KERNELS: &[(&str, Kernel)] = &[
    ("attend_entries", attend::attend_entries),
    ("attend_selected", attend::attend_selected),
    ("attend_window", attend::attend_window),
    ("expert_matmul", linear::expert_matmul),
    ("grouped_matmul", linear::grouped_matmul),
    ("matmul", linear::matmul),
];

/// The kernel of an op and its name: its own or `eval`.
pub(crate) fn kernel(op: &Op) -> (Kernel, &'static str) {
    match KERNELS.iter().find(|(name, _)| *name == op.name) {
        Some((name, kernel)) => (*kernel, name),
        None => (<f32 as ds4_ir::Real>::eval_of(op), "eval"),
    }
}

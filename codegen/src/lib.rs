//! GPU kernels: what each target can launch, and the text of every launch.
//!
//! [`launches`] answers for one node of a planned function which kernels run it, on what grid, with
//! which buffers, [`block`] for a `launch { }` block of nodes; both are always compiled and need no device
//! and no library. [`emit`](emit::emit), behind the feature `gpu`, gives the text of a launch in CUDA C++,
//! HIP C++ or Metal, and `emit_joint` that of launches side by side. A kernel is one file in `kernels/` and
//! one line in [`KERNELS`].
#![cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "much is read by texts alone"))]
#![allow(clippy::single_range_in_vec_init, reason = "the steps of a case are ranges, often one")]
#![cfg_attr(
    feature = "gpu",
    allow(clippy::too_many_arguments, reason = "a kernel takes a buffer per binding")
)]
mod block;
#[cfg(feature = "gpu")]
pub mod emit;
mod kernels;
mod launch;
mod registry;
pub mod step;
mod target;

pub use block::{Joint, Part, block, member_scratch_bytes};
pub use launch::{Binding, Case, Constant, Kernel, Launch, Text};
pub use registry::{KERNELS, kernel, launches, scratch_bytes};
pub use target::{Api, Target};

//! Passes of the compiler: a verified module in, a verified and planned module out.
//!
//! [`optimize`] is the pipeline. Everything is a function of its arguments: no clock, no device, no
//! file; what a target can do and what it costs comes from [`Target`].
mod canonicalize;
mod cost;
mod emit;
mod extract;
mod fuse;
mod machine;
mod optimize;
mod pack;
mod plan;
mod rebuild;
pub mod report;
mod schedule;
mod scratch;
mod target;
mod term;
mod unfuse;

pub use canonicalize::{canonicalize, normal_form};
pub use cost::{Cost, Site, func_cost, launch_cost, weight_bytes};
pub use emit::{dot, planned};
pub use fuse::{Price, fuse};
pub use machine::{Device, Disk, Host, Machine};
pub use optimize::{Phase, map_funcs, optimize};
pub use pack::pack;
pub use plan::{BUCKETS, PlanError, plan};
pub use report::{Report, report};
pub use schedule::schedule;
pub use target::Target;
pub use unfuse::unfuse;

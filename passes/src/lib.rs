//! Passes of the compiler: a verified module in, a planned module out.
mod plan;

pub use plan::{BUCKETS, PlanError, plan};

//! Passes of the compiler: a verified module in, a planned module out.
//!
//! `plan` gives every value its address in the arena; `check` replays a plan and shares no code with
//! it.
mod check;
mod plan;

pub use check::{CheckError, check};
pub use plan::{BUCKETS, PlanError, plan};

//! The graph language of ds4: types, functions, one op table, text, verifier and interpreter.
//!
//! Everything else in the workspace speaks in these words. The crate does no I/O and knows no
//! device; bytes of weights and states come in as slices.
mod real;
mod scalar;
mod table;
mod types;

pub mod formats;

pub use real::Real;
pub use scalar::{E4M3_GROUP, FP4_GROUP, FP8_BLOCK, IDX4_GROUP, KV8_GROUP, Scalar};
pub use table::{Layout, Part, Role, WeightEntry, WeightTable};
pub use types::{Dim, REWIND_MAX, StateKind, StateType, Sym, TensorType, Type};

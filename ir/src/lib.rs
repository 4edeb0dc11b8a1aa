//! The graph language of ds4: types, functions, one op table, text, verifier and interpreter.
//!
//! Everything else in the workspace speaks in these words. The crate does no I/O and knows no
//! device; bytes of weights and states come in as slices.
mod bind;
mod exp;
mod func;
mod interp;
mod parse;
mod print;
mod real;
mod scalar;
mod table;
mod types;
mod verify;

pub mod cost;
pub mod formats;
pub mod module;
pub mod ops;
pub mod plan;
pub mod view;

pub use bind::Bind;
pub use exp::exp;
pub use func::{Arg, Func, Lit, Node, Value, Weight};
pub use interp::{Buffer, Computed, Interp, WeightSource};
pub use module::{Class, Module};
pub use ops::{Op, op};
pub use parse::{ParseError, parse_funcs, parse_module, parse_tensor_type};
pub use real::Real;
pub use scalar::{E4M3_GROUP, FP4_GROUP, FP8_BLOCK, IDX4_GROUP, KV8_GROUP, Scalar};
pub use table::{Layout, Part, Role, WeightEntry, WeightTable};
pub use types::{Dim, REWIND_MAX, StateKind, StateType, Sym, TensorType, Type};
pub use verify::{VerifyError, infer, verify, verify_module};

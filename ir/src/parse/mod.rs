//! Text to functions and modules, with errors that point at the place.
mod func;
mod lex;
mod module;

pub use func::{parse_funcs, parse_tensor_type};
pub use lex::ParseError;
pub use module::parse_module;

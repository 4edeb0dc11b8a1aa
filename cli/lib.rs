//! The composition root: what `ds4c` and `ds4` do, made of the crates that know how.
pub mod compile;
pub mod demo;
pub mod ids;
pub mod progress;
pub mod safetensors_out;

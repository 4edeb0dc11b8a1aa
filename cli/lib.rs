//! The composition root: what `ds4c` and `ds4` do, made of the crates that know how.
pub mod args;
pub mod commands;
pub mod compile;
pub mod demo;
pub mod generate;
pub mod ids;
pub mod interrupt;
pub mod keep;
#[cfg(feature = "gpu")]
pub mod kernels;
pub mod open;
pub mod output;
pub mod progress;
pub mod selftest;
pub mod target;
pub mod timeline;

//! The two programs as a person meets them: real processes in a folder of their own.
mod artifacts;
mod bench;
mod chat;
#[path = "../common/mod.rs"]
mod common;
mod kernels;
#[cfg(unix)]
mod kill;
mod kv;
mod lab;
mod logits;
mod run;
mod tuning;

//! Bad input: whatever comes in, the answer is a message that names the thing, what was expected and
//! what was found, and nothing panics.
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod forged;
mod models;
mod sealed;
mod sessions;
mod weights;

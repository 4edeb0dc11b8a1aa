//! Executes compiled artifacts: engine, sessions, states, sampling.
//!
//! The crate knows no model: states and weights are names and types. It needs nothing of the
//! compiler's passes to run what they made.
mod body;
mod cpu;
mod engine;
mod error;
mod fill;
mod identity;
mod memory;
mod pool;
mod probe;
mod process;
mod program;
mod raw;
mod sampler;
mod session;
mod snapshot;
mod step;
mod times;
mod weights;

pub mod artifact;
#[cfg(feature = "gpu")]
pub mod device;
pub mod layout;
pub mod store;
pub mod tune;

#[doc(hidden)]
pub use cpu::case;
#[doc(hidden)]
pub use cpu::product::trial as product;

pub use artifact::{Artifact, FileMark, Layouts, Meta, SelfTest, aside, write_whole};
pub use engine::{Engine, checked};
pub use error::{Error, Result};
pub use identity::{mark, sample_all};
pub use probe::probe;
pub use process::{available_bytes, peak_bytes, reset_peak};
pub use raw::{Pass, RawRead};
pub use sampler::{Sampler, Sampling};
pub use session::{Session, Want};
pub use times::WaveTime;
pub use weights::Weights;

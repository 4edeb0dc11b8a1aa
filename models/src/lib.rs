//! DeepSeek V4 as ds4 sees it: configuration, graphs, tensor names, weight files, tokenizer, prompts.
//!
//! The crate reads configurations and file headers and says where each weight of a model lies; it
//! runs nothing and never reads the weights themselves.
//!
//! Files come from anywhere. A length or count found in one is compared with the bytes that are
//! there before anything is allocated for it, and every violation is an [`Error`] that names the
//! thing, what was expected and what was found.
mod checkpoint;
mod config;
mod error;
mod names;
mod stored;

pub mod chat;
pub mod gguf;
pub mod graph;
pub mod safetensors;
pub mod synth;
pub mod tokenizer;

pub use checkpoint::{Checkpoint, Words};
pub use config::{Config, Yarn, limits};
pub use error::{Error, Result};
pub use names::{Container, Content, Mix, Place, Tensor, layer_tensors, mtp_tensors, tensors, top_tensors};
pub use stored::{StoredTensor, StoredType};

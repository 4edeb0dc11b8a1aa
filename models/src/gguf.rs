//! GGUF files, version 3: reading headers, split files and vocabularies, and writing headers.
//!
//! A file is a magic, counts, metadata, tensor descriptions, padding, data. The reader keeps to
//! [`limits`] and believes nothing before it is checked: strings and arrays fit into the rest of
//! the file, every tensor lies in the data section. Several tensors may share bytes.
mod config;
mod header;
mod source;
mod split;
mod types;
mod value;
mod vocab;
mod writer;

pub use config::metadata;
pub use header::{Header, read_header};
pub use split::{Model, open};
pub use value::{Metadata, Value};
pub use vocab::GgufVocab;
pub use writer::{TensorInfo, aligned, header_bytes, tensor_bytes};

/// The first four bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is read and written.
pub const VERSION: u32 = 3;
/// Alignment of tensor data where the metadata says nothing, in bytes.
pub const ALIGNMENT: u64 = 32;

/// The largest values that are taken for a model rather than for damage.
pub mod limits {
    /// Metadata entries.
    pub const KEYS_MAX: u64 = 1 << 14;
    /// Bytes of a key.
    pub const KEY_BYTES_MAX: u64 = 1 << 10;
    /// Memory that all metadata of a file may take, in bytes. The real vocabulary takes 20 MB.
    pub const METADATA_BYTES_MAX: u64 = 40 << 20;
    /// Tensors of a file. Pro has some 2,000.
    pub const TENSORS_MAX: u64 = 1 << 16;
    /// Bytes of a tensor's name.
    pub const NAME_BYTES_MAX: u64 = 256;
    /// Extents of a tensor.
    pub const RANK_MAX: u32 = 4;
    /// `general.alignment`, in bytes.
    pub const ALIGNMENT_MAX: u64 = 1 << 16;
    /// `split.count`.
    pub const SPLITS_MAX: u64 = 1000;
}

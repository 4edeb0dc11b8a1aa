//! The weight table: where the bytes of each weight of a module lie.
//!
//! `models` fills it from file headers, the artifact carries it, the runtime maps it.
use crate::TensorType;

/// What the bytes of a part are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// The elements, in the layout of the entry.
    Codes,
    /// E8M0 scales of `fp8` and `fp4` weights.
    Scales,
}

/// How the elements of an entry are laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Layout {
    /// As the published file has them.
    AsStored,
    /// A named repacking of this project.
    Repacked(String),
}

/// `count` equally long byte ranges of one file, `stride` bytes apart.
///
/// A plain tensor is one range. The experts of a stacked tensor are one part with `count` = E;
/// experts stored one by one are E parts of `count` 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Codes or scales.
    pub role: Role,
    /// Index into the table's files.
    pub file: u32,
    /// First byte of the first range, from the start of the file.
    pub offset: u64,
    /// Length of each range in bytes.
    pub bytes: u64,
    /// Distance between range starts in bytes; equal to `bytes` where ranges touch.
    pub stride: u64,
    /// Number of ranges.
    pub count: u32,
}

/// One weight of the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WeightEntry {
    /// The module's name for it, such as `blk.4.attn_q_a`.
    pub name: String,
    /// Logical type. Rank 3 is a table of matrices, one per expert.
    pub ty: TensorType,
    /// Layout of the codes.
    pub layout: Layout,
    /// The ranges of each role in expert order; a plain tensor has one range per role.
    pub parts: Vec<Part>,
}

/// All weights of a module and the files they lie in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WeightTable {
    /// Paths as given to the compiler.
    pub files: Vec<String>,
    /// Sorted by name.
    pub entries: Vec<WeightEntry>,
}

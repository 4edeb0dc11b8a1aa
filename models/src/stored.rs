//! One tensor as a weight file declares it, after its place in the file was checked.
use std::fmt;

/// Element types of safetensors and GGUF files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoredType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// Upper half of binary32.
    Bf16,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// E4M3 codes of an FP8 weight.
    F8E4m3,
    /// Power-of-two scales.
    F8E8m0,
    /// Signed bytes: two FP4 codes each.
    I8,
    /// Unsigned bytes: two FP4 codes, or a scale.
    U8,
    /// GGUF Q8_0 blocks.
    Q8_0,
    /// GGUF Q4_K blocks.
    Q4K,
    /// GGUF Q2_K blocks.
    Q2K,
    /// GGUF IQ2_XXS blocks.
    Iq2Xxs,
    /// GGUF MXFP4 blocks.
    Mxfp4,
    /// A type of known size that no weight of the model may have; the format's name for it.
    Other(&'static str),
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoredType::F32 => "f32",
            StoredType::F16 => "f16",
            StoredType::Bf16 => "bf16",
            StoredType::I32 => "i32",
            StoredType::I64 => "i64",
            StoredType::F8E4m3 => "f8_e4m3",
            StoredType::F8E8m0 => "f8_e8m0",
            StoredType::I8 => "i8",
            StoredType::U8 => "u8",
            StoredType::Q8_0 => "q8_0",
            StoredType::Q4K => "q4_k",
            StoredType::Q2K => "q2_k",
            StoredType::Iq2Xxs => "iq2_xxs",
            StoredType::Mxfp4 => "mxfp4",
            StoredType::Other(name) => name,
        })
    }
}

/// A tensor of a file. `offset + bytes` lies inside the file, and `bytes` is what shape and type
/// demand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredTensor {
    /// Element type.
    pub ty: StoredType,
    /// Extents, outermost first whatever the format's order; FP4 bytes count as elements.
    pub shape: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

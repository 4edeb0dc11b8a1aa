//! Element types: what one number of a tensor is, and how a row of them lies in memory.
//!
//! This file is the only place that knows names and sizes; [`crate::formats`] is the only place
//! that knows how the bytes of a block become numbers.
use std::fmt;

/// The element type of a tensor, a weight or a state row.
///
/// Plain numbers, packed rows of states and activations, and the block formats of weights are one
/// list, because the interpreter and the kernels read all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Scalar {
    /// IEEE binary32. In the double precision interpreter these elements are binary64.
    F32,
    /// IEEE binary16.
    F16,
    /// Upper half of binary32.
    Bf16,
    /// Token ids, positions, row indices; -1 is "none".
    I32,
    /// The expert table of hash-routed layers as official checkpoints store it.
    I64,
    /// An expert index (i32) and its weight (f32): keeps every op single-result.
    Route,
    /// A key/value row: e4m3 codes in groups of 64, the last `rope` channels in bf16 (spec 6.2).
    Kv8 {
        /// Number of rotary channels at the end of the row.
        rope: u16,
    },
    /// An index row: Hadamard transform, then e2m1 codes in groups of 32 (spec 6.2).
    Idx4,
    /// Activations as e4m3 codes in groups of 128 with a power-of-two scale (spec 6.2).
    E4m3x128,
    /// Activations as i8 in blocks of 256 with an f32 scale and sums of 16 (spec 4.4).
    Q8K,
    /// i8 in blocks of 32 with an f16 scale: weights and activations (spec 4.4).
    Q8_0,
    /// GGUF Q4_K weights (spec 4.4).
    Q4K,
    /// GGUF Q2_K weights (spec 4.4).
    Q2K,
    /// GGUF IQ2_XXS weights (spec 4.4, appendix C).
    Iq2Xxs,
    /// GGUF MXFP4 weights (spec 4.4).
    Mxfp4,
    /// E4M3 codes; a second part holds E8M0 scales, one per 128×128 block (spec 4.1).
    Fp8,
    /// E2M1 codes, low nibble first; a second part holds E8M0 scales, one per 32 columns (spec 4.1).
    Fp4,
}

/// Channels of a `kv8` row that share a scale.
pub const KV8_GROUP: usize = 64;
/// Channels of an `idx4` row that share a scale.
pub const IDX4_GROUP: usize = 32;
/// Channels of an `e4m3x128` row that share a scale.
pub const E4M3_GROUP: usize = 128;
/// Rows and columns of an `fp8` weight that share a scale.
pub const FP8_BLOCK: usize = 128;
/// Columns of an `fp4` weight that share a scale.
pub const FP4_GROUP: usize = 32;

const NAMES: &[(Scalar, &str)] = &[
    (Scalar::F32, "f32"),
    (Scalar::F16, "f16"),
    (Scalar::Bf16, "bf16"),
    (Scalar::I32, "i32"),
    (Scalar::I64, "i64"),
    (Scalar::Route, "route"),
    (Scalar::Idx4, "idx4"),
    (Scalar::E4m3x128, "e4m3x128"),
    (Scalar::Q8K, "q8_k"),
    (Scalar::Q8_0, "q8_0"),
    (Scalar::Q4K, "q4_k"),
    (Scalar::Q2K, "q2_k"),
    (Scalar::Iq2Xxs, "iq2_xxs"),
    (Scalar::Mxfp4, "mxfp4"),
    (Scalar::Fp8, "fp8"),
    (Scalar::Fp4, "fp4"),
];

impl Scalar {
    /// Reads a name as [`fmt::Display`] writes it, `None` if there is no such type.
    pub fn parse(name: &str) -> Option<Scalar> {
        if let Some(rope) = name.strip_prefix("kv8r") {
            let canonical = !rope.is_empty() && (rope == "0" || !rope.starts_with('0'));
            return rope.parse().ok().filter(|_| canonical).map(|rope| Scalar::Kv8 { rope });
        }
        NAMES.iter().find(|(_, n)| *n == name).map(|(s, _)| *s)
    }

    /// Whether elements decode to real numbers.
    pub fn is_real(self) -> bool {
        !matches!(self, Scalar::I32 | Scalar::I64 | Scalar::Route)
    }

    /// Number of elements in one block of the format, 1 for plain numbers.
    ///
    /// Formats whose scales lie at the end of the row (`kv8`, `idx4`, `e4m3x128`) or in a part of
    /// their own (`fp8`, `fp4`) count as one row-long or one-byte block.
    pub fn block(self) -> usize {
        match self {
            Scalar::Q8_0 | Scalar::Mxfp4 => 32,
            Scalar::Q8K | Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs => 256,
            Scalar::Fp4 => 2,
            _ => 1,
        }
    }

    /// Bytes of one row of `width` elements, without the scales that lie in a part of their own.
    ///
    /// The last block of a row may be short; it takes the bytes of a whole one.
    pub fn row_bytes(self, width: usize) -> usize {
        let blocks = width.div_ceil(self.block());
        match self {
            Scalar::F32 | Scalar::I32 => width * 4,
            Scalar::F16 | Scalar::Bf16 => width * 2,
            Scalar::I64 | Scalar::Route => width * 8,
            Scalar::Kv8 { rope } => {
                let codes = width - usize::from(rope);
                (codes + 2 * usize::from(rope) + codes.div_ceil(KV8_GROUP)).next_multiple_of(8)
            }
            Scalar::Idx4 => (width.div_ceil(2) + width.div_ceil(IDX4_GROUP)).next_multiple_of(4),
            Scalar::E4m3x128 => (width + width.div_ceil(E4M3_GROUP)).next_multiple_of(4),
            Scalar::Q8_0 => blocks * 34,
            Scalar::Q8K => blocks * 292,
            Scalar::Q4K => blocks * 144,
            Scalar::Q2K => blocks * 84,
            Scalar::Iq2Xxs => blocks * 66,
            Scalar::Mxfp4 => blocks * 17,
            Scalar::Fp8 => width,
            Scalar::Fp4 => blocks,
        }
    }

    /// Shape of the part that holds the E8M0 scales of a matrix `[rows, width]`, if it has one.
    pub fn scale_shape(self, rows: usize, width: usize) -> Option<[usize; 2]> {
        match self {
            Scalar::Fp8 => Some([rows.div_ceil(FP8_BLOCK), width.div_ceil(FP8_BLOCK)]),
            Scalar::Fp4 => Some([rows, width.div_ceil(FP4_GROUP)]),
            _ => None,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Scalar::Kv8 { rope } = self {
            return write!(f, "kv8r{rope}");
        }
        let (_, name) = NAMES.iter().find(|(s, _)| s == self).expect("every scalar has a name");
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for (scalar, name) in NAMES {
            assert_eq!(Scalar::parse(name), Some(*scalar));
            assert_eq!(scalar.to_string(), *name);
        }
        assert_eq!(Scalar::parse("kv8r64"), Some(Scalar::Kv8 { rope: 64 }));
        for bad in ["kv8", "kv8r", "kv8r064", "kv8r65536", "F32", "q8"] {
            assert_eq!(Scalar::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn rows_have_the_sizes_of_the_spec() {
        assert_eq!(Scalar::Kv8 { rope: 64 }.row_bytes(512), 584);
        assert_eq!(Scalar::Idx4.row_bytes(128), 68);
        assert_eq!(Scalar::Q8_0.row_bytes(4096), 4352);
        assert_eq!(Scalar::Iq2Xxs.row_bytes(4096), 1056);
        assert_eq!(Scalar::Q8_0.row_bytes(40), 68);
        assert_eq!(Scalar::Fp8.scale_shape(129, 512), Some([2, 4]));
        assert_eq!(Scalar::Fp4.scale_shape(7, 64), Some([7, 2]));
    }
}

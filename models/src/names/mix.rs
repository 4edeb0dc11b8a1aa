//! Which element type each tensor of a model has in the published kinds of files.
use super::{Content, Place, Tensor};
use ds4_ir::Scalar;

/// A published choice of element types (spec 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// The publisher's safetensors: FP8, FP4 experts.
    Official,
    /// llama.cpp's conversion without loss where GGUF can: MXFP4 experts, Q8_0 for FP8.
    OfficialLike,
    /// DwarfStar, 2-bit experts.
    Ds4Q2,
    /// DwarfStar, 4-bit experts.
    Ds4Q4,
    /// DwarfStar, 2-bit experts and 4-bit ones in the last six layers.
    Ds4Q2Q4,
}

/// Layers at the end of the stack that [`Mix::Ds4Q2Q4`] keeps in 4 bit.
const Q4_LAYERS: u32 = 6;

impl Mix {
    /// All mixes with the names the command line has for them.
    pub const NAMES: &[(&str, Mix)] = &[
        ("official", Mix::Official),
        ("official-like", Mix::OfficialLike),
        ("ds4-q2", Mix::Ds4Q2),
        ("ds4-q4", Mix::Ds4Q4),
        ("ds4-q2q4", Mix::Ds4Q2Q4),
    ];

    /// Reads a name of [`Mix::NAMES`].
    pub fn parse(name: &str) -> Option<Mix> {
        Mix::NAMES.iter().find(|(n, _)| *n == name).map(|(_, mix)| *mix)
    }

    /// The element type of a tensor.
    pub fn scalar(self, tensor: &Tensor) -> Scalar {
        let row = tensor.row;
        let four_bit = match (self, tensor.place) {
            (Mix::Ds4Q4, _) | (_, Place::Mtp(_)) => true,
            (Mix::Ds4Q2Q4, Place::Layer(i)) => tensor.layers <= i + Q4_LAYERS,
            _ => false,
        };
        match self {
            Mix::Official => row.official_type,
            Mix::OfficialLike => row.llama_type,
            _ if row.content == Content::Experts && four_bit => Scalar::Q4K,
            _ => row.dwarfstar_type,
        }
    }

    /// Tensors and bytes that some tensors of a model take in files: in the official checkpoint
    /// experts and scales count one by one.
    pub fn count(self, tensors: &[Tensor]) -> (u64, u64) {
        let each = |tensor: &Tensor| {
            let scalar = self.scalar(tensor);
            let (width, outer) = tensor.shape.split_last().expect("no tensor has rank 0");
            let rows: u64 = outer.iter().map(|n| u64::from(*n)).product();
            let codes = rows * scalar.row_bytes(*width as usize) as u64;
            let experts = if tensor.content() == Content::Experts { tensor.shape[0] } else { 1 };
            let matrix_rows = rows as usize / experts as usize;
            let scales = scalar.scale_shape(matrix_rows, *width as usize);
            let scale_bytes = scales.map_or(0, |[n, k]| n as u64 * k as u64 * u64::from(experts));
            let files_apart = if self == Mix::Official { u64::from(experts) } else { 1 };
            (files_apart * if scales.is_some() { 2 } else { 1 }, codes + scale_bytes)
        };
        tensors.iter().map(each).fold((0, 0), |(n, b), (count, bytes)| (n + count, b + bytes))
    }
}

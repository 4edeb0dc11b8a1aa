//! What all products with a weight share: a block brings a tile of its inputs into shared memory,
//! rounded as the op says; each subgroup sums its rows of the matrix over it.
//!
//! ```text
//! inputs  x[tokens of the block, tile]  ──stage──> shared, f32 (normed, rounded)
//! matrix  rows of the subgroup          ──decode─> registers, a unit per lane
//!                                       ──sum────> one sum per row and token and lane, then over lanes
//! ```
#[cfg(feature = "gpu")]
mod round;
#[cfg(feature = "gpu")]
mod staging;
#[cfg(feature = "gpu")]
mod sum;

#[cfg(feature = "gpu")]
pub(crate) use {
    staging::{norm_factors, stage},
    sum::{lane_sums, over_lanes},
};

use super::common::Number;
use super::formats::RowFormat;
use crate::Target;
use ds4_ir::Scalar;

/// What happens to an input between memory and the product, beside rounding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Norm {
    /// Nothing.
    None,
    /// RMS norm with the bits of its epsilon, no weight.
    #[expect(dead_code, reason = "hc_enter is to come")]
    Plain(u32),
    /// RMS norm with a weight.
    Weighted(u32, Number),
}

/// A product as its text is specialised on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Product {
    /// Rows of the matrix; their width is that of the input.
    pub(crate) weight: RowFormat,
    /// How many rows the matrix has.
    pub(crate) rows: u32,
    /// The input's rows.
    pub(crate) input: RowFormat,
    /// Norm of the input.
    pub(crate) norm: Norm,
    /// What the input is rounded to here; `F32` does not round.
    pub(crate) round: Scalar,
    /// Inputs that a block multiplies at once.
    pub(crate) tokens: u32,
    /// Columns brought to shared memory at once.
    pub(crate) tile: u32,
    /// Lanes of a subgroup.
    pub(crate) lanes: u32,
    /// Subgroups of a block.
    pub(crate) subgroups: u32,
    /// Rows that a subgroup sums.
    pub(crate) each: u32,
}

/// Shared memory for inputs, in elements: half of what the smallest device has.
const TILE_ELEMENTS: u32 = 4096;
/// Columns of a tile are whole groups of every rounding.
const TILE_STEP: u32 = 256;
/// Blocks that fill a large device.
const BLOCKS_MIN: u32 = 512;

impl Product {
    /// The product of inputs of type `input` with a matrix of `rows` rows, for `tokens` inputs at
    /// most. `None` if nothing reads one of the formats.
    pub(crate) fn new(
        weight: Scalar,
        rows: u32,
        input: Scalar,
        width: u32,
        tokens: u32,
        target: &Target,
    ) -> Option<Product> {
        let (weight, input) = (RowFormat::of(weight, width)?, RowFormat::of(input, width)?);
        let tokens = tokens.next_power_of_two().min(8);
        let tile = (TILE_ELEMENTS / tokens).min(width.next_multiple_of(TILE_STEP));
        let subgroups = 128 / target.subgroup;
        let each = [4, 2].into_iter().find(|each| rows / (each * subgroups) >= BLOCKS_MIN).unwrap_or(1);
        let (norm, round, lanes) = (Norm::None, Scalar::F32, target.subgroup);
        Some(Product { weight, rows, input, norm, round, tokens, tile, lanes, subgroups, each })
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        self.lanes * self.subgroups
    }

    /// Rows of the matrix that a block sums.
    pub(crate) fn block_rows(&self) -> u32 {
        self.subgroups * self.each
    }

    /// Blocks that share the rows.
    pub(crate) fn row_blocks(&self) -> u32 {
        self.rows.div_ceil(self.block_rows())
    }

    /// Tiles of an input.
    pub(crate) fn tiles(&self) -> u32 {
        (self.weight.units() * self.weight.unit()).div_ceil(self.tile)
    }

    /// Units of the matrix in a tile.
    pub(crate) fn tile_units(&self) -> u32 {
        self.tile / self.weight.unit()
    }

    /// Distance in shared memory from one element of a unit to the next: odd, so that neither the
    /// threads that write neighbouring elements nor those that read neighbouring units meet in a bank.
    pub(crate) fn stride(&self) -> u32 {
        self.tile_units() | 1
    }

    /// Elements of shared memory that one input takes.
    pub(crate) fn slot(&self) -> u32 {
        self.weight.unit() * self.stride()
    }

    /// Elements of shared memory of all inputs.
    pub(crate) fn shared(&self) -> u32 {
        self.tokens * self.slot()
    }
}

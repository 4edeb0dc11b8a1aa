//! What all products with a weight share: a block brings a tile of its inputs into shared memory,
//! rounded as the op says; each subgroup sums its rows of the matrix over it.
//!
//! ```text
//! inputs  x[tokens of the block, tile]  ──stage──> shared, f32 (normed, rounded)
//! matrix  rows of the subgroup          ──decode─> registers, a unit per lane
//!                                       ──sum────> one sum per row and token and lane, then over lanes
//! ```
#[cfg(feature = "gpu")]
mod post;
#[cfg(feature = "gpu")]
mod round;
#[cfg(feature = "gpu")]
mod staging;
#[cfg(feature = "gpu")]
mod sum;

#[cfg(feature = "gpu")]
pub(crate) use {
    post::hc_post,
    staging::{norm_factors, stage},
    sum::row_sums,
};

use super::common::Number;
use super::formats::RowFormat;
use crate::{Binding, Target};
use ds4_ir::{E4M3_GROUP, Role, Scalar};

/// What happens to an input between memory and the product, beside rounding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Norm {
    /// Nothing.
    None,
    /// RMS norm with the bits of its epsilon, no weight.
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
    /// Elements that are rounded under one scale.
    pub(crate) group: u32,
    /// Inputs of a token, each with its own share of the rows.
    pub(crate) parts: u32,
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
        let lanes = target.subgroup;
        let (norm, round, group, parts) = (Norm::None, Scalar::F32, 1, 1);
        let product =
            Product { weight, rows, input, norm, round, group, parts, tokens, tile, lanes, subgroups, each };
        Some(product)
    }

    /// The same with inputs rounded to `format`, where a row of the operand has `width` elements.
    /// `None` if groups of the format would not end where those rows do.
    pub(crate) fn rounded(self, format: Scalar, width: u32) -> Option<Product> {
        let group = match format {
            Scalar::F32 => return Some(self),
            Scalar::F16 | Scalar::Bf16 => 32,
            Scalar::E4m3x128 => E4M3_GROUP as u32,
            Scalar::Q8_0 | Scalar::Q8K => format.block() as u32,
            _ => return None,
        };
        let (columns, plain) = (self.input.width, self.input.scalar == Scalar::F32);
        let group = if width == columns || width.is_multiple_of(group) { group } else { width };
        let fits = plain && group.is_multiple_of(32) && self.tile.is_multiple_of(group);
        fits.then_some(Product { round: format, group, ..self })
    }

    /// Whether a lane holds more than one sum.
    pub(crate) fn holds_many_sums(&self) -> bool {
        self.each * self.tokens > 1
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        self.lanes * self.subgroups
    }

    /// Rows of the matrix that a block sums.
    pub(crate) fn block_rows(&self) -> u32 {
        self.subgroups * self.each
    }

    /// Rows of the matrix that belong to one input of a token.
    pub(crate) fn part_rows(&self) -> u32 {
        self.rows / self.parts
    }

    /// Blocks that share the rows of one input.
    pub(crate) fn part_blocks(&self) -> u32 {
        self.part_rows().div_ceil(self.block_rows())
    }

    /// Blocks that share the rows.
    pub(crate) fn row_blocks(&self) -> u32 {
        self.part_blocks() * self.parts
    }

    /// The table of the matrix's format; the step buffer where it needs none.
    pub(crate) fn table(&self) -> Binding {
        self.weight.constant().map_or(Binding::Step, Binding::Constant)
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

/// Where a weight's scales are: with its codes for a format that has none of its own.
fn scale_role(scalar: Scalar) -> Role {
    if scalar.scale_shape(1, 1).is_some() { Role::Scales } else { Role::Codes }
}

/// Codes and scales of a plain weight.
pub(crate) fn matrix(operand: usize, scalar: Scalar) -> [Binding; 2] {
    [Binding::Weight(operand, Role::Codes), Binding::Weight(operand, scale_role(scalar))]
}

/// Base and offsets of the codes and of the scales of a table of experts.
pub(crate) fn experts(operand: usize, scalar: Scalar) -> [Binding; 4] {
    let scales = scale_role(scalar);
    [
        Binding::Base(operand, Role::Codes),
        Binding::Table(operand, Role::Codes),
        Binding::Base(operand, scales),
        Binding::Table(operand, scales),
    ]
}

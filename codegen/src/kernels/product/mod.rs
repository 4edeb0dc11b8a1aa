//! What all products with a weight share: a block brings a tile of its inputs into shared memory,
//! rounded as the op says; each subgroup sums its rows of the matrix over it.
//!
//! ```text
//! inputs  x[tokens of the block, tile]  ──stage──> shared, f32 (normed, rounded)
//! matrix  rows of the subgroup          ──window─> shared, bytes of a chunk of columns, read once
//!                                       ──decode─> registers, a unit per lane
//!                                       ──sum────> one sum per row and token and lane, then over lanes
//! ```
//!
//! Unit u of a row belongs to lane u modulo the lanes, whatever the tile, the chunk and the number of inputs:
//! an output is summed in one order.
#[cfg(feature = "gpu")]
mod codes;
#[cfg(feature = "gpu")]
mod post;
#[cfg(feature = "gpu")]
mod round;
#[cfg(feature = "gpu")]
mod staging;
#[cfg(feature = "gpu")]
mod sum;
#[cfg(feature = "gpu")]
mod window;

#[cfg(feature = "gpu")]
pub(crate) use {
    post::hc_post,
    round::round_bf16,
    staging::{Tile, norm_factors, stage},
    sum::row_sums,
    window::Window,
};

use super::common::{Number, THREADS, groups_of};
use super::formats::{RowFormat, Staged};
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
    /// Rows of a matrix that a subgroup sums.
    pub(crate) each: u32,
    /// Columns of a matrix whose bytes wait in shared memory at once.
    pub(crate) chunk: u32,
}

/// Shared memory for inputs, in elements: half of what the smallest device has.
const TILE_ELEMENTS: u32 = 4096;
/// The same for inputs with a norm, which should lie there whole, on devices that have room for several such
/// blocks: so many bytes.
const NORM_ELEMENTS: u32 = 8192;
const NORM_SHARED_BYTES: u32 = 160 << 10;
/// Fewer inputs than these are not worth another pass over the matrix.
const NORM_TOKENS_MIN: u32 = 4;
/// Shared memory for bytes of the matrices.
const WINDOW_BYTES: u32 = 9 << 10;
/// Columns of a tile are whole groups of every rounding.
const TILE_STEP: u32 = 256;
/// Inputs that a block multiplies at most.
const TOKENS_MAX: u32 = 8;
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
        let lanes = target.subgroup;
        let subgroups = THREADS / lanes;
        let each = [4, 2].into_iter().find(|each| rows / (each * subgroups) >= BLOCKS_MIN).unwrap_or(1);
        // A tile has a unit for every lane.
        let most = (TILE_ELEMENTS / (lanes * weight.unit())).clamp(1, TOKENS_MAX);
        let tokens = tokens.next_power_of_two().min(most);
        let tile = (TILE_ELEMENTS / tokens).min(width.next_multiple_of(TILE_STEP));
        let (norm, round, group, parts) = (Norm::None, Scalar::F32, 1, 1);
        let chunk = chunk(weight, subgroups * each);
        let product = Product {
            weight,
            rows,
            input,
            norm,
            round,
            group,
            parts,
            tokens,
            tile,
            lanes,
            subgroups,
            each,
            chunk,
        };
        Some(product)
    }

    /// The same with a norm before it. If enough inputs fit into shared memory whole, as many are taken together
    /// and are read once: for the norm they would have to be read before.
    pub(crate) fn normed(self, norm: Norm, target: &Target) -> Product {
        let elements =
            if target.shared_bytes_max < NORM_SHARED_BYTES { TILE_ELEMENTS } else { NORM_ELEMENTS };
        let width = self.input.width.next_multiple_of(TILE_STEP);
        let fitting = (elements / width).checked_ilog2().map_or(0, |bit| 1 << bit).min(self.tokens);
        if fitting < self.tokens.min(NORM_TOKENS_MIN) {
            return Product { norm, ..self };
        }
        Product { norm, tokens: fitting, tile: width, ..self }
    }

    /// The same for two matrices of that shape, whose rows share the room of one.
    pub(crate) fn paired(self) -> Product {
        let each = (self.each / 2).max(1);
        Product { each, chunk: chunk(self.weight, 2 * self.subgroups * each), ..self }
    }

    /// The same for blocks of one tile of `columns` each, with `each` rows per subgroup.
    pub(crate) fn cut(self, columns: u32, each: u32) -> Product {
        let tile = columns.min(self.tile);
        let chunk = chunk(self.weight, self.subgroups * each).min(tile);
        Product { tile, each, chunk, ..self }
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
        let rounded = Product { round: format, group, ..self };
        if rounded.is_integer() && self.norm == Norm::None && self.tile == TILE_ELEMENTS / self.tokens {
            // Bytes take a fourth of the room.
            let tile = (4 * self.tile).min(self.weight.width.next_multiple_of(TILE_STEP));
            return fits.then_some(Product { tile, ..rounded });
        }
        fits.then_some(rounded)
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

    /// Distance in shared memory from one element of a unit to the next: such that neither 32 threads that
    /// write neighbouring elements nor 32 that read neighbouring units meet in a bank.
    pub(crate) fn stride(&self) -> u32 {
        self.tile_units().next_multiple_of(BANKS) + BANKS / self.weight.unit() % BANKS
    }

    /// Elements of shared memory that one input takes.
    pub(crate) fn slot(&self) -> u32 {
        self.weight.unit() * self.stride()
    }

    /// Whether sums of bytes are exact integers: an input of bytes, rounded here, times such a matrix.
    pub(crate) fn is_integer(&self) -> bool {
        let kinds = match self.round {
            Scalar::Q8_0 => matches!(self.weight.scalar, Scalar::Q8_0 | Scalar::Mxfp4 | Scalar::Fp4),
            Scalar::Q8K => matches!(self.weight.scalar, Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs),
            _ => false,
        };
        kinds && self.weight.has_bytes() && self.group == self.round.block() as u32
    }

    /// Elements of shared memory of all inputs as numbers.
    pub(crate) fn shared(&self) -> u32 {
        if self.is_integer() && !self.keeps_inputs() { 0 } else { self.tokens * self.slot() }
    }

    /// Distance in shared memory from one word of a unit of bytes to the next.
    pub(crate) fn code_stride(&self) -> u32 {
        self.tile_units().next_multiple_of(BANKS) + BANKS / 4
    }

    /// Words of shared memory that one input takes as bytes.
    pub(crate) fn code_slot(&self) -> u32 {
        4 * self.code_stride()
    }

    /// Words of shared memory of all inputs as bytes.
    pub(crate) fn shared_codes(&self) -> u32 {
        if self.is_integer() { self.tokens * self.code_slot() } else { 0 }
    }

    /// Their scales.
    pub(crate) fn shared_scales(&self) -> u32 {
        if self.is_integer() { self.tokens * self.tile / self.group } else { 0 }
    }

    /// Whether inputs wait in shared memory while their norm is summed.
    pub(crate) fn keeps_inputs(&self) -> bool {
        self.norm != Norm::None && self.tiles() == 1 && self.input.scalar == Scalar::F32
    }

    /// Columns that are summed between two changes of what lies in shared memory.
    pub(crate) fn step(&self) -> u32 {
        self.tile.min(self.chunk)
    }

    /// Scales of a row of a chunk, if they lie apart from the codes.
    pub(crate) fn chunk_scales(&self) -> u32 {
        match self.weight.scale_row_bytes() {
            0 => 0,
            _ => self.chunk / (self.weight.unit() * self.weight.units_per_scale()),
        }
    }

    /// Groups of 16 bytes of a window that a row's bytes take, wherever in a sector they begin.
    pub(crate) fn pitch(&self) -> u32 {
        match self.weight.staged() {
            Staged::Nothing => 0,
            _ => groups_of(self.weight.staged_bytes(self.chunk.min(self.weight.width))),
        }
    }

    /// Groups of 16 bytes of the window of one matrix; never none.
    pub(crate) fn window(&self) -> u32 {
        (self.subgroups * self.each * self.pitch()).max(1)
    }
}

/// Banks of shared memory.
const BANKS: u32 = 32;

/// Columns of a matrix that are staged at once where a block has so many rows: all of them, or a power of two.
fn chunk(weight: RowFormat, rows: u32) -> u32 {
    let fits = |columns: &u32| rows * weight.staged_bytes(*columns) <= WINDOW_BYTES;
    let whole = weight.width.next_multiple_of(TILE_STEP);
    if fits(&weight.width) {
        return whole;
    }
    (TILE_STEP.ilog2()..whole.ilog2()).rev().map(|bit| 1 << bit).find(fits).unwrap_or(TILE_STEP)
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

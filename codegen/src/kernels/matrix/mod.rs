//! Products on matrix units, for long steps.
//!
//! A first launch norms and rounds each input once and writes it into scratch as the elements that the
//! units multiply; most inputs that are neither normed nor rounded need none and stay where they are. The product then
//! works on tiles:
//!
//! ```text
//! inputs  [inputs of the block, columns]  ──stage───> shared, 16 bytes per thread and piece
//! matrix  [64 rows, chunk of columns]     ──window──> shared, bytes, read once
//!         [64 rows, columns]              ──decode──> shared, a unit per thread
//!         fragments of both               ──units───> sums in registers, f32
//! ```
//!
//! [`Element`] says what elements are and what keeps them in range. The units add in f32.
//!
//! An op with `fmt=f32` keeps the bits of its inputs: each element is there as the sum of
//! [pieces](Matrix::pieces).
mod experts;
#[cfg(feature = "gpu")]
mod fragments;
mod inputs;
mod lists;
mod product;
#[cfg(feature = "gpu")]
mod range;
#[cfg(feature = "gpu")]
mod tile;

pub(crate) use experts::{moe_down, moe_up};
pub(crate) use inputs::Given;
pub(crate) use product::{Dense, Outcome, dense};

use super::common::{Rows, groups_of};
use super::formats::{RowFormat, Staged};
use crate::{Api, Target};
use ds4_ir::plan::Maxima;
use ds4_ir::{Scalar, Sym};

/// How far a result may be from the meaning of its op, as a share of the largest magnitude of its row, where elements
/// are f16: each is off by one part in 2048 at most, and a gate's clamp passes on what a sum of large terms is off by.
const ROUNDED: f64 = 5e-3;
/// The same where products are exact: sums of thousands of them, one after the other.
const EXACT: f64 = 1e-5;

/// Steps of fewer tokens are not worth it.
const TOKENS_MIN: u32 = 64;
/// Rows of matrices that a block multiplies.
const ROWS: u32 = 64;
/// Bytes of a row of a tile, and the groups of 16 bytes from one to the next: as many more that neighbouring rows
/// lie in other banks.
const TILE_BYTES: u32 = 128;
const TILE_GROUPS: u32 = TILE_BYTES / 16;
const PITCH: u32 = TILE_GROUPS + 1;
/// Threads that are enough for a multiprocessor of NVIDIA's: fragments and a unit take 128 registers.
const THREADS_MIN: u32 = 512;
/// Columns of the sums that a subgroup holds.
const ACROSS: u32 = 32;
/// Fewer rows are too few blocks to be worth it where the product for short steps would read the same bits.
const WHOLE_ROWS_MIN: u32 = 256;
/// Shared memory for bytes of the matrices, on devices that have little and on those that have more.
const WINDOW_BYTES: [u32; 2] = [12 << 10, 20 << 10];
const LARGE_SHARED_BYTES: u32 = 96 << 10;

/// What the units multiply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Element {
    /// All products are those of f32: on Apple's devices, unless inputs are too large for that.
    F32,
    /// Inputs of `e4m3` or bfloat16, or pieces of f32, and weights of `fp8`, `fp4`, `mxfp4` or bfloat16: exact, and
    /// in range, because bfloat16 has the exponents of f32.
    Bf16,
    /// All others. Each input comes under a power of two that brings its largest element to 2^14; the matrix under
    /// one power of two per block of rows, which each chunk of columns lowers where its scales could bring an
    /// element to 2^15 ([`range`]). Elements far below the largest lose bits, as sums would lose them.
    F16,
}

impl Element {
    /// The one for inputs of a format, so many of a token, and a matrix; `None` if that is for no units.
    fn of(format: Scalar, parts: u32, weight: Scalar, target: &Target) -> Option<Element> {
        use Scalar::*;
        let apple = target.api == Api::Metal;
        // What attention gives, several inputs of each token, is the largest value of a layer: once more in scratch
        // as f32 it would need more of the arena than all else.
        let room = parts == 1 || format == F32;
        let small = matches!(format, E4m3x128 | Bf16 | F32);
        match weight {
            F32 => None,
            _ if apple && room => Some(Element::F32),
            // Apple's fragments of bfloat16 have sums of bfloat16.
            Fp8 | Fp4 | Mxfp4 | Bf16 if small && !apple => Some(Element::Bf16),
            // The exponents of weights that have no scales are not known before they are read.
            Bf16 => None,
            // Others would have to come in pieces too.
            _ if format == F32 && weight != F16 => None,
            _ => Some(Element::F16),
        }
    }
}

/// A product as its text is specialised on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Matrix {
    /// Rows of the matrix.
    weight: RowFormat,
    /// How many rows it has.
    rows: u32,
    /// Inputs of a token, each with its own share of the rows.
    parts: u32,
    /// Whether there are two matrices of that shape; a block then takes as many rows of each.
    pair: bool,
    /// Inputs of a block.
    inputs: u32,
    /// Lanes of a subgroup.
    lanes: u32,
    /// Rows and columns of a fragment.
    fragment: u32,
    /// What it multiplies.
    element: Element,
    /// Whether inputs are f32 that nobody rounds.
    whole: bool,
    /// Columns of a matrix whose bytes wait in shared memory at once.
    chunk: u32,
}

/// Whether a step in this bucket has inputs for matrix units: enough, and as numbers.
fn suits(inputs: Rows, maxima: &Maxima, input: Scalar) -> bool {
    inputs.sym == Some(Sym::Tokens) && maxima.tokens >= TOKENS_MIN && input == Scalar::F32
}

impl Matrix {
    /// The product with `rows` rows of a matrix, for blocks of `inputs` inputs, where a token has `parts` inputs.
    /// `None` if the format is not one for matrix units on the target.
    fn new(
        format: Scalar,
        parts: u32,
        weight: Scalar,
        rows: u32,
        width: u32,
        inputs: u32,
        target: &Target,
    ) -> Option<Matrix> {
        let element = Element::of(format, parts, weight, target)?;
        let weight = RowFormat::of(weight, width).filter(|w| w.unit() >= 8)?;
        let (apple, whole) = (target.api == Api::Metal, format == Scalar::F32);
        if whole && !width.is_multiple_of(8) {
            // Inputs are staged where they lie, eight columns at once.
            return None;
        }
        // Apple's shared memory and pieces leave no room for more.
        let inputs = if apple || whole { inputs.min(ROWS) } else { inputs };
        let (pair, lanes, fragment) = (false, target.subgroup, if apple { 8 } else { 16 });
        let matrix = Matrix { weight, rows, parts, pair, inputs, lanes, fragment, element, whole, chunk: 0 };
        let window = WINDOW_BYTES[usize::from(target.shared_bytes_max >= LARGE_SHARED_BYTES)];
        Some(Matrix { chunk: matrix.chunk_in(window)?, ..matrix })
    }

    /// Columns of a matrix that are staged at once in a window of so many bytes: a power of two, whole tiles and
    /// blocks.
    fn chunk_in(&self, window: u32) -> Option<u32> {
        let least = self.columns().max(self.weight.scalar.block() as u32).ilog2();
        let fits = |columns: &u32| ROWS * 16 * groups_of(self.weight.staged_bytes(*columns)) <= window;
        (least..=self.weight.width.next_power_of_two().ilog2().max(least))
            .rev()
            .map(|bit| 1 << bit)
            .find(fits)
    }

    /// How far a result may be from its op's meaning.
    fn tolerance(&self) -> f64 {
        if self.element == Element::F16 && !self.whole { ROUNDED } else { EXACT }
    }

    /// Threads of a block.
    fn threads(&self) -> u32 {
        if self.inputs < ROWS { 128 } else { 256 }
    }

    /// Subgroups of a block: two side by side, the others above each other.
    fn subgroups(&self) -> u32 {
        self.threads() / self.lanes
    }

    /// Elements of a word of four bytes.
    fn per_word(&self) -> u32 {
        if self.element == Element::F32 { 1 } else { 2 }
    }

    /// Columns of a tile.
    fn columns(&self) -> u32 {
        TILE_BYTES / 4 * self.per_word()
    }

    /// Whether inputs come under a power of two.
    fn scales_inputs(&self) -> bool {
        self.element == Element::F16
    }

    /// Whether the matrix does; plain f16 need not.
    fn scales_matrix(&self) -> bool {
        self.element == Element::F16 && self.weight.staged() != Staged::Nothing
    }

    /// Tiles of an input.
    fn tiles(&self) -> u32 {
        self.weight.width.div_ceil(self.columns())
    }

    /// Elements whose sum an element of an input is: of the 24 bits of an f32 a bfloat16 has 8, and two f16 have
    /// all but the last.
    fn pieces(&self) -> u32 {
        match self.element {
            Element::Bf16 if self.whole => 3,
            Element::F16 if self.whole => 2,
            _ => 1,
        }
    }

    /// Whether inputs are staged from rows of f32.
    fn in_place(&self) -> bool {
        self.whole && !self.scales_inputs()
    }

    /// Bytes of an input where it is staged from: its columns, or the whole tiles of every piece and what sums are
    /// to be multiplied with, if anything.
    fn input_bytes(&self) -> u32 {
        if self.in_place() {
            return 4 * self.weight.width;
        }
        self.pieces() * self.tiles() * TILE_BYTES + if self.scales_inputs() { 16 } else { 0 }
    }

    /// Rows of the tile of inputs: first all of one piece, then all of the next.
    fn input_rows(&self) -> u32 {
        self.pieces() * self.inputs
    }

    /// Rows of one matrix that a block multiplies.
    fn block_rows(&self) -> u32 {
        if self.pair { ROWS / 2 } else { ROWS }
    }

    /// Rows of the matrix that belong to one input of a token.
    fn part_rows(&self) -> u32 {
        self.rows / self.parts
    }

    /// Blocks that share the rows of one input.
    fn part_blocks(&self) -> u32 {
        self.part_rows().div_ceil(self.block_rows())
    }

    /// Blocks that share the rows.
    fn row_blocks(&self) -> u32 {
        self.part_blocks() * self.parts
    }

    /// Fragments of sums that a subgroup holds, one above the other.
    fn deep(&self) -> u32 {
        self.inputs / self.fragment / (self.subgroups() / 2)
    }

    /// Fragments of sums that it holds side by side.
    fn across(&self) -> u32 {
        ACROSS / self.fragment
    }

    /// Columns of results among them.
    fn results(&self) -> u32 {
        if self.pair { ACROSS / 2 } else { ACROSS }
    }

    /// Groups of 16 bytes of shared memory for the tiles of inputs and matrices, and later for sums.
    fn room(&self) -> u32 {
        PITCH * (self.input_rows() + ROWS).max(self.subgroups() * self.fragment)
    }

    /// Groups of 16 bytes of the window that a row's bytes take.
    fn window_pitch(&self) -> u32 {
        match self.weight.staged() {
            Staged::Nothing => 0,
            _ => groups_of(self.weight.staged_bytes(self.chunk.min(self.weight.width))),
        }
    }

    /// Groups of 16 bytes of the window; never none.
    fn window(&self) -> u32 {
        (ROWS * self.window_pitch()).max(1)
    }
}

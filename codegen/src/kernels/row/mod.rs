//! Rows that are made, turned and rounded one by one: every op that is a path through
//!
//! ```text
//! values   a row of x, or an entry pooled from tail, k and gate
//! norm     to an RMS of one, times a weight if there is one
//! rope     the last channels by the table's angles, forwards or back
//! turn     the Hadamard transform of index rows
//! to       f32, or codes and scales
//! into     a value, or a state
//! ```
//!
//! One block per row, which lies in shared memory on its way.
#[cfg(feature = "gpu")]
mod encode;
#[cfg(feature = "gpu")]
mod text;

pub(crate) mod ops;

use super::common::{Number, Rows, THREADS};
use super::compress_pool::Pool;
use super::push::Slots;
use crate::{Binding, Launch, Target, Text};
use ds4_ir::plan::Maxima;
use ds4_ir::{Dim, Role, Scalar};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {crate::emit, cubecl::prelude::*};

/// Most elements of a row: what shared memory holds.
const WIDTH_MAX: u32 = 4096;

/// A path as its text is specialised on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Row {
    /// How many there are.
    rows: Rows,
    /// Elements of one.
    width: u32,
    /// How values are pooled; from x if not.
    pool: Option<Pool>,
    /// Bits of the norm's epsilon, and the type of its weight.
    norm: Option<(u32, Option<Number>)>,
    /// Rotation.
    rope: Option<Rope>,
    /// Whether the row is transformed.
    hadamard: bool,
    /// Element type of the result.
    to: Scalar,
    /// Where rows lie in a state that is the result.
    slots: Option<Slots>,
    /// Subgroups of a block.
    subgroups: u32,
    /// Lanes of a subgroup.
    lanes: u32,
}

/// How a row is rotated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Rope {
    /// Rotary channels at the end of the row.
    dims: u32,
    /// Rows that one row of the table serves.
    each: u32,
    /// Whether the rotation is the inverse.
    back: bool,
}

/// A path with the operands along it.
#[derive(Clone)]
struct Path {
    row: Row,
    /// First operand of the values: x, or tail, k, gate and ape.
    values: usize,
    weight: Option<usize>,
    table: Option<usize>,
}

impl Path {
    /// Rows of x as they are; `dims` are the extents of x.
    fn of(dims: &[Dim], x: usize, to: Scalar, target: &Target) -> Option<Path> {
        let (width, outer) = dims.split_last()?;
        Path::new(Rows::of(outer), width.constant()?, x, to, target)
    }

    fn new(rows: Rows, width: u32, values: usize, to: Scalar, target: &Target) -> Option<Path> {
        if width > WIDTH_MAX {
            return None;
        }
        let lanes = target.subgroup;
        let subgroups = THREADS / lanes;
        let row = Row {
            rows,
            width,
            pool: None,
            norm: None,
            rope: None,
            hadamard: false,
            to,
            slots: None,
            subgroups,
            lanes,
        };
        is_encodable(to, width).then_some(Path { row, values, weight: None, table: None })
    }

    /// One launch along the path.
    fn launch(self, maxima: &Maxima) -> Option<Vec<Launch>> {
        let Path { row, values, weight, table } = self;
        if row.hadamard && !row.width.is_power_of_two() {
            return None;
        }
        let from = match row.pool {
            Some(_) => Pool::bindings(values),
            None => [Binding::Value(values), Binding::Step, Binding::Step, Binding::Step],
        };
        let mut bindings = vec![Binding::Step];
        bindings.extend(from);
        bindings.push(weight.map_or(Binding::Step, |i| Binding::Weight(i, Role::Codes)));
        bindings.push(table.map_or(Binding::Step, Binding::Value));
        bindings.push(Binding::Out);
        Some(vec![Launch {
            block: [row.subgroups * row.lanes, 1, 1],
            grid: [row.rows.max(maxima), 1, 1],
            bindings,
            text: Arc::new(row),
        }])
    }
}

/// Whether rows of that width can be written here: codes fill whole pairs of bytes.
fn is_encodable(to: Scalar, width: u32) -> bool {
    match to {
        Scalar::F32 | Scalar::F16 | Scalar::Bf16 | Scalar::Q8_0 | Scalar::Q8K => true,
        Scalar::E4m3x128 => width.is_multiple_of(2),
        Scalar::Idx4 => width.is_multiple_of(4),
        Scalar::Kv8 { rope } => (width - u32::from(rope)).is_multiple_of(2),
        _ => false,
    }
}

impl Text for Row {
    fn name(&self) -> &'static str {
        match (self.pool, self.to) {
            (Some(_), _) => "entry",
            (_, Scalar::F32) => "row",
            _ => "packed_row",
        }
    }

    fn holds_many_sums(&self) -> bool {
        self.pool.is_some()
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = emit::buffers();
        let (set, dev, lang) = at.parts();
        if self.to == Scalar::F32 {
            let new = text::plain_row::PlainRow::new;
            CubeKernel::define(&new(set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, *self))
        } else {
            let new = text::packed_row::PackedRow::new;
            CubeKernel::define(&new(set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, *self))
        }
    }
}

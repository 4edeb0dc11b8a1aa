//! How a matrix's bytes may lie: as stored, or repacked for a kernel.
use ds4_ir::Scalar;
use ds4_ir::view::Matrix;
use std::ops::Range;

/// How the bytes of a matrix lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Packing {
    /// As the format says.
    Stored,
}

/// All packings.
const ALL: [Packing; 1] = [Packing::Stored];

impl Packing {
    /// The name that files use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Packing::Stored => "stored",
        }
    }

    /// Reads a name as [`Packing::name`] gives it.
    pub(crate) fn parse(name: &str) -> Option<Packing> {
        ALL.into_iter().find(|p| p.name() == name)
    }

    /// Bytes of a packed matrix, `None` where the packing takes no such matrix.
    pub(crate) fn packed_bytes(self, scalar: Scalar, rows: usize, width: usize) -> Option<usize> {
        match self {
            Packing::Stored => Some(rows * scalar.row_bytes(width)),
        }
    }

    /// Rows that are packed together.
    pub(crate) const fn granule(self) -> usize {
        match self {
            Packing::Stored => 1,
        }
    }

    /// Packs rows of a stored matrix. Both ends of `rows` are multiples of the granule; `out` is the
    /// part of the packed matrix that they fill.
    pub(crate) fn pack(self, m: &Matrix<'_>, rows: Range<usize>, out: &mut [u8]) {
        match self {
            Packing::Stored => {
                let size = m.scalar.row_bytes(m.width);
                out.copy_from_slice(&m.codes[rows.start * size..rows.end * size]);
            }
        }
    }
}

//! How a matrix's bytes may lie: as stored, or repacked for kernels.
//!
//! Packed rows follow each other as stored ones do, granule by granule. Every packing keeps all bits of
//! the source: [`Packing::unpack`] gives them back.
use super::repack;
use ds4_ir::Scalar;
use ds4_ir::view::Matrix;
use std::ops::Range;

/// How the bytes of a matrix lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Packing {
    /// As the format says.
    Stored,
    /// `iq2_xxs`: index bytes, then all eight signs of each index. 70 bytes per block instead of 66, 6 % more.
    IndexSigns,
    /// `iq2_xxs`: three planes of signs whose weighted sum is the weight, 32 rows side by side. 102 bytes per
    /// block instead of 66, 55 % more.
    SignPlanes,
    /// `q2_k`: codes transposed, so that a vector's lanes are the sub-blocks. Of source size.
    Transposed,
}

/// All packings.
pub(crate) const ALL: [Packing; 4] =
    [Packing::Stored, Packing::IndexSigns, Packing::SignPlanes, Packing::Transposed];

impl Packing {
    /// The name that files use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Packing::Stored => "stored",
            Packing::IndexSigns => "index_signs",
            Packing::SignPlanes => "sign_planes",
            Packing::Transposed => "transposed",
        }
    }

    /// Reads a name as [`Packing::name`] gives it.
    pub(crate) fn parse(name: &str) -> Option<Packing> {
        ALL.into_iter().find(|p| p.name() == name)
    }

    /// Bytes of a packed matrix, `None` where the packing takes no such matrix.
    pub(crate) fn packed_bytes(self, scalar: Scalar, rows: usize, width: usize) -> Option<usize> {
        let blocks = width / 256 * rows;
        let whole = width.is_multiple_of(256) && rows.is_multiple_of(self.granule());
        match self {
            Packing::Stored => Some(rows * scalar.row_bytes(width)),
            Packing::IndexSigns => {
                (scalar == Scalar::Iq2Xxs && whole).then_some(blocks * repack::INDEX_SIGNS)
            }
            Packing::SignPlanes => {
                (scalar == Scalar::Iq2Xxs && whole).then_some(blocks * repack::SIGN_PLANES)
            }
            Packing::Transposed => (scalar == Scalar::Q2K && whole).then_some(blocks * repack::TRANSPOSED),
        }
    }

    /// Rows that are packed together.
    pub(crate) const fn granule(self) -> usize {
        match self {
            Packing::SignPlanes => repack::PLANE_ROWS,
            _ => 1,
        }
    }

    /// Packs rows of a stored matrix. Both ends of `rows` are multiples of the granule; `out` is the
    /// part of the packed matrix that they fill.
    ///
    /// # Panics
    /// If the packing takes no such matrix.
    pub(crate) fn pack(self, m: &Matrix<'_>, rows: Range<usize>, out: &mut [u8]) {
        let bytes = self.packed_bytes(m.scalar, rows.len(), m.width);
        assert_eq!(bytes, Some(out.len()), "{} rows of {} as {}", rows.len(), m.scalar, self.name());
        let size = m.scalar.row_bytes(m.width);
        let stored = &m.codes[rows.start * size..rows.end * size];
        match self {
            Packing::Stored => out.copy_from_slice(stored),
            Packing::IndexSigns => repack::each(stored, out, repack::index_signs),
            Packing::SignPlanes => repack::sign_planes(stored, m.width / 256, out),
            Packing::Transposed => repack::each(stored, out, repack::transposed),
        }
    }

    /// Undoes [`Packing::pack`]: the stored rows of `packed`.
    #[cfg(test)]
    pub(crate) fn unpack(self, packed: &[u8], width: usize, out: &mut [u8]) {
        match self {
            Packing::Stored => out.copy_from_slice(packed),
            Packing::IndexSigns => repack::each(packed, out, repack::from_index_signs),
            Packing::SignPlanes => repack::from_sign_planes(packed, width / 256, out),
            Packing::Transposed => repack::each(packed, out, repack::from_transposed),
        }
    }
}

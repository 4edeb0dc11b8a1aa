//! The bytes of rows as numbers, a unit at a time.
//!
//! A unit is what one thread decodes at once, into registers. Neighbouring units of a row lie in
//! neighbouring bytes, so a subgroup reads one run of memory. Rows begin at multiples of
//! [`RowFormat::load`]; the last unit of a block format may reach behind the columns.
#[cfg(feature = "gpu")]
mod int8;
#[cfg(feature = "gpu")]
mod integer;
#[cfg(feature = "gpu")]
mod iq2xxs;
#[cfg(feature = "gpu")]
mod kquant;
#[cfg(feature = "gpu")]
mod scaled;
#[cfg(feature = "gpu")]
mod unit;

#[cfg(feature = "gpu")]
pub(crate) use {
    integer::{decode_bytes, dot_bytes, sum_bytes},
    unit::{Place, decode},
};

use crate::Constant;
use ds4_ir::{E4M3_GROUP, FP4_GROUP, FP8_BLOCK, Scalar};

/// How rows of a width are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct RowFormat {
    /// Element type.
    pub(crate) scalar: Scalar,
    /// Elements of a row.
    pub(crate) width: u32,
}

impl RowFormat {
    /// Rows of that type, `None` if nothing here reads it.
    pub(crate) fn of(scalar: Scalar, width: u32) -> Option<RowFormat> {
        use Scalar::*;
        let known = matches!(
            scalar,
            F32 | F16 | Bf16 | Q8_0 | Q8K | Q4K | Q2K | Iq2Xxs | Mxfp4 | Fp8 | Fp4 | E4m3x128
        );
        known.then_some(RowFormat { scalar, width })
    }

    /// Bytes of a row's codes.
    pub(crate) fn row_bytes(self) -> u32 {
        self.scalar.row_bytes(self.width as usize) as u32
    }

    /// Bytes of a row of scales, 0 if they are among the codes.
    pub(crate) fn scale_row_bytes(self) -> u32 {
        self.scalar.scale_shape(1, self.width as usize).map_or(0, |[_, n]| n as u32)
    }

    /// Rows of codes that share a row of scales.
    pub(crate) fn rows_per_scale_row(self) -> u32 {
        if self.scalar == Scalar::Fp8 { FP8_BLOCK as u32 } else { 1 }
    }

    /// Bytes that one aligned load may take: 16, 8, 4, 2 or 1.
    pub(crate) fn load(self) -> u32 {
        let free = 1 << self.row_bytes().trailing_zeros().min(4);
        match self.scalar {
            // The codes of a row are followed by its scales: a unit must end where the codes do.
            Scalar::E4m3x128 => free.min(1 << self.width.trailing_zeros().min(4)),
            // As many codes as half of those that share a scale.
            Scalar::Fp4 => free.min(8),
            _ => free,
        }
    }

    /// What a subgroup brings to shared memory before it decodes.
    pub(crate) fn staged(self) -> Staged {
        match self.scalar {
            Scalar::Q8_0 | Scalar::Q8K | Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs | Scalar::Mxfp4 => {
                Staged::Codes
            }
            Scalar::Fp8 | Scalar::Fp4 => Staged::Scales,
            _ => Staged::Nothing,
        }
    }

    /// Whether elements are signed bytes under a scale, perhaps less a minimum; such a unit is 16 of them.
    pub(crate) fn has_bytes(self) -> bool {
        match self.scalar {
            Scalar::Q8_0 | Scalar::Mxfp4 | Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs => true,
            Scalar::Fp4 => self.unit() == 16,
            _ => false,
        }
    }

    /// Whether bytes stand for values with a minimum below them.
    pub(crate) fn has_minimum(self) -> bool {
        matches!(self.scalar, Scalar::Q4K | Scalar::Q2K)
    }

    /// Bytes of the codes of so many columns, whole blocks.
    pub(crate) fn code_bytes(self, columns: u32) -> u32 {
        self.scalar.row_bytes(columns as usize) as u32
    }

    /// Bytes of so many columns of a row that are staged.
    pub(crate) fn staged_bytes(self, columns: u32) -> u32 {
        match self.staged() {
            Staged::Codes => self.code_bytes(columns),
            Staged::Scales => columns.div_ceil(self.units_per_scale() * self.unit()),
            Staged::Nothing => 0,
        }
    }

    /// Elements of a unit.
    pub(crate) fn unit(self) -> u32 {
        match self.scalar {
            Scalar::F32 => self.load() / 4,
            Scalar::F16 | Scalar::Bf16 => self.load() / 2,
            Scalar::Fp8 | Scalar::E4m3x128 => self.load(),
            Scalar::Fp4 => 2 * self.load(),
            _ => 16,
        }
    }

    /// Units of a row.
    pub(crate) fn units(self) -> u32 {
        self.width.div_ceil(self.unit())
    }

    /// Units that share a scale of an element type whose scales lie apart from its codes.
    pub(crate) fn units_per_scale(self) -> u32 {
        let group = match self.scalar {
            Scalar::Fp8 => FP8_BLOCK,
            Scalar::Fp4 => FP4_GROUP,
            Scalar::E4m3x128 => E4M3_GROUP,
            _ => return 1,
        };
        group as u32 / self.unit()
    }

    /// The table that decoding needs.
    pub(crate) fn constant(self) -> Option<&'static Constant> {
        (self.scalar == Scalar::Iq2Xxs).then_some(&IQ2XXS_GRID)
    }
}

/// Which bytes of a row go through shared memory: those that lanes would read in pieces, or several of them
/// each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Staged {
    /// Every lane loads whole words of its own.
    Nothing,
    /// Codes, with the scales among them: blocks begin anywhere and have a head that their units share.
    Codes,
    /// Scales that lie apart from the codes.
    Scales,
}

/// The magnitudes that an index byte of `iq2_xxs` selects, eight bytes each.
pub(crate) static IQ2XXS_GRID: Constant =
    Constant { name: "iq2xxs_grid", bytes: || ds4_ir::formats::IQ2XXS_GRID.as_flattened().to_vec() };

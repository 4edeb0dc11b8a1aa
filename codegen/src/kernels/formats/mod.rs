//! The bytes of rows as numbers, a unit at a time.
//!
//! A unit is what one thread decodes at once, into registers. Neighbouring units of a row lie in
//! neighbouring bytes, so a subgroup reads one run of memory. Rows begin at multiples of
//! [`RowFormat::load`]; the last unit of a block format may reach behind the columns.
#[cfg(feature = "gpu")]
mod int8;
#[cfg(feature = "gpu")]
mod iq2xxs;
#[cfg(feature = "gpu")]
mod kquant;
#[cfg(feature = "gpu")]
mod scaled;
#[cfg(feature = "gpu")]
mod unit;

#[cfg(feature = "gpu")]
pub(crate) use unit::{Place, decode};

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
            _ => free,
        }
    }

    /// Elements of a unit.
    pub(crate) fn unit(self) -> u32 {
        match self.scalar {
            Scalar::F32 => self.load() / 4,
            Scalar::F16 | Scalar::Bf16 => self.load() / 2,
            Scalar::Fp8 | Scalar::E4m3x128 => self.load(),
            Scalar::Fp4 => 2 * self.load(),
            _ => 32,
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

/// The magnitudes that an index byte of `iq2_xxs` selects, eight bytes each.
pub(crate) static IQ2XXS_GRID: Constant =
    Constant { name: "iq2xxs_grid", bytes: || ds4_ir::formats::IQ2XXS_GRID.as_flattened().to_vec() };

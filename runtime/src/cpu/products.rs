//! Which product kernels a launch uses, and in which packing they read its weights.
use super::product::{Packing, ProductKernel};
use crate::tune::Choices;
use ds4_ir::{Scalar, TensorType};
use std::cell::Cell;

/// The product kernels of one launch, while it is made.
pub(crate) struct Products<'a> {
    choices: &'a Choices,
    /// Packing of each operand that is a weight.
    packings: &'a [Packing],
    /// Operands that a kernel reads packed, a bit each.
    packed: Cell<u64>,
}

impl<'a> Products<'a> {
    /// For a launch whose operands have these packings.
    pub(crate) fn new(choices: &'a Choices, packings: &'a [Packing]) -> Products<'a> {
        Products { choices, packings, packed: Cell::new(0) }
    }

    /// For a part of the launch whose operands are these of the launch, `None` for others.
    pub(crate) fn of_part(&self, operands: &[Option<usize>]) -> Vec<Packing> {
        operands.iter().map(|o| o.map_or(Packing::Stored, |at| self.packing(at))).collect()
    }

    /// Kernels for a part, see [`Products::of_part`].
    pub(crate) fn part<'b>(&'b self, packings: &'b [Packing]) -> Products<'b> {
        Products::new(self.choices, packings)
    }

    fn packing(&self, operand: usize) -> Packing {
        self.packings.get(operand).copied().unwrap_or(Packing::Stored)
    }

    /// The kernel for the weight of an operand with inputs of type `input`, about `columns` of them; its
    /// blocks of rows start at multiples of `unit` too. The operand is packed from now on if the kernel
    /// reads it so.
    pub(crate) fn kernel(
        &self,
        operand: usize,
        ty: &TensorType,
        input: Scalar,
        columns: usize,
        unit: usize,
    ) -> &'static ProductKernel {
        let width = ty.dims.last().and_then(|d| d.constant()).expect("weights have constant extents");
        let find = |packing| self.choices.kernel(ty.scalar, packing, input, width as usize, columns);
        let packing = self.packing(operand);
        if packing != Packing::Stored
            && let Some(kernel) = find(packing).filter(|k| unit.is_multiple_of(k.granule))
        {
            self.mark(operand);
            return kernel;
        }
        let kernel = find(Packing::Stored).filter(|k| unit.is_multiple_of(k.granule));
        kernel.unwrap_or_else(|| panic!("no kernel of this machine for {} times {input}", ty.scalar))
    }

    /// Says that an operand is read packed.
    pub(crate) fn mark(&self, operand: usize) {
        self.packed.set(self.packed.get() | 1 << operand);
    }

    /// Whether an operand is read packed.
    pub(crate) fn is_packed(&self, operand: usize) -> bool {
        self.packed.get() >> operand & 1 == 1
    }
}

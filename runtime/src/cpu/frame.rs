//! What the tasks of one launch share: operands to read, and memory of which each writes its part.
use super::cells::Cells;
use crate::memory::{self, Plain, Region};
use ds4_ir::view::{Frame, Operand, Out, State, StateMut, Tensor, WeightView, state_slot};
use ds4_ir::{Bind, Lit, Scalar, StateType};
use std::ops::Range;

/// Where the result of a launch goes.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// A value of these extents.
    Tensor { scalar: Scalar, dims: &'a [usize], memory: Region<'a> },
    /// A state, updated in place.
    State { ty: StateType, capacity: usize, memory: Region<'a> },
}

/// Operands, result and scratch of one launch.
///
/// The result and the scratch are memory that nothing else uses during the launch. Tasks of one phase
/// take disjoint parts of it; what a phase has written, later phases may read.
#[derive(Clone, Copy)]
pub(crate) struct SharedFrame<'a> {
    /// In the order of the op's row.
    pub(crate) operands: &'a [Operand<'a, f32>],
    /// The result.
    pub(crate) place: Place<'a>,
    /// What the plan gives the kernel beside operands and result; holds anything.
    pub(crate) scratch: Region<'a>,
    /// The step that runs.
    pub(crate) bind: &'a Bind,
    /// Threads that share the tasks.
    pub(crate) threads: usize,
}

impl<'a> SharedFrame<'a> {
    /// Operand `i`, a value.
    pub(crate) fn tensor(&self, i: usize) -> Tensor<'a, f32> {
        match self.operands[i] {
            Operand::Tensor(t) => t,
            ref other => panic!("operand {i} is no value: {other:?}"),
        }
    }

    /// Operand `i`, a state that is read.
    pub(crate) fn state(&self, i: usize) -> State<'a, f32> {
        match self.operands[i] {
            Operand::State(s) => s,
            ref other => panic!("operand {i} is no state: {other:?}"),
        }
    }

    /// Operand `i`, a weight.
    pub(crate) fn weight(&self, i: usize) -> WeightView<'a> {
        match self.operands[i] {
            Operand::Weight(w) => w,
            ref other => panic!("operand {i} is no weight: {other:?}"),
        }
    }

    /// Operand `i`, a literal number, as a real.
    pub(crate) fn lit(&self, i: usize) -> f32 {
        match self.operands[i] {
            Operand::Lit(Lit::Real(x)) => *x as f32,
            Operand::Lit(Lit::Int(n)) => *n as f32,
            ref other => panic!("operand {i} is no number: {other:?}"),
        }
    }

    /// Extents of a result that is a value.
    pub(crate) fn out_dims(&self) -> &'a [usize] {
        match self.place {
            Place::Tensor { dims, .. } => dims,
            Place::State { ty, .. } => panic!("the result is {ty}, no value"),
        }
    }

    /// Rows and width of a result that is a value.
    pub(crate) fn out_shape(&self) -> (usize, usize) {
        memory::rows_of(self.out_dims())
    }

    /// Rows of the result as elements `T`: the numbers of a plain row, the bytes of a packed one.
    ///
    /// # Safety
    /// While the slice lives, no other task reads or writes these rows.
    pub(crate) unsafe fn out_rows<T: Plain>(&self, rows: Range<usize>) -> &'a mut [T] {
        let Place::Tensor { scalar, dims, memory } = self.place else { panic!("the result is no value") };
        let (count, width) = memory::rows_of(dims);
        assert!(rows.start <= rows.end && rows.end <= count, "rows {rows:?} of {count}");
        let size = scalar.row_bytes(width) / size_of::<T>();
        // SAFETY: as the caller says.
        unsafe { memory.slice_mut(rows.start * size * size_of::<T>(), rows.len() * size) }
    }

    /// Elements `from..to` of row `row` of a result of numbers.
    ///
    /// # Safety
    /// While the slice lives, no other task reads or writes these elements.
    pub(crate) unsafe fn out_part<T: Plain>(&self, row: usize, part: Range<usize>) -> &'a mut [T] {
        let Place::Tensor { scalar, dims, memory } = self.place else { panic!("the result is no value") };
        let (count, width) = memory::rows_of(dims);
        assert!(scalar.row_bytes(width) == width * size_of::<T>(), "{scalar} rows are no plain elements");
        assert!(row < count && part.end <= width, "elements {part:?} of row {row} of {dims:?}");
        // SAFETY: as the caller says.
        unsafe { memory.slice_mut((row * width + part.start) * size_of::<T>(), part.len()) }
    }

    /// The cells of an `f32` result as a matrix with rows of the result's width.
    ///
    /// # Safety
    /// While they live, tasks write the result through them only, or other cells.
    pub(crate) unsafe fn out_cells(&self) -> Cells<'a> {
        let (rows, width) = self.out_shape();
        let Place::Tensor { scalar: Scalar::F32, memory, .. } = self.place else { panic!("no f32 result") };
        // SAFETY: as the caller says.
        unsafe { Cells::shared(memory, 0, rows, width) }
    }

    /// The row of absolute number `row` of the state that the op updates.
    ///
    /// # Safety
    /// While the slice lives, no other task reads or writes this row.
    pub(crate) unsafe fn out_state_row<T: Plain>(&self, row: usize) -> &'a mut [T] {
        let Place::State { ty, capacity, memory } = self.place else { panic!("the result is no state") };
        let slot = state_slot(ty.kind, capacity, row);
        let size = ty.scalar.row_bytes(ty.width as usize);
        // SAFETY: as the caller says.
        unsafe { memory.slice_mut(slot * size, size / size_of::<T>()) }
    }

    /// Type and rows of the state that the op updates.
    pub(crate) fn out_state_type(&self) -> (StateType, usize) {
        match self.place {
            Place::State { ty, capacity, .. } => (ty, capacity),
            Place::Tensor { .. } => panic!("the result is no state"),
        }
    }

    /// Operands and result for a kernel that is one task.
    ///
    /// # Safety
    /// No other task of the launch runs while the frame lives.
    pub(crate) unsafe fn whole(&self) -> Frame<'a, f32> {
        let out = match self.place {
            Place::Tensor { scalar, dims, memory } => {
                let (rows, width) = memory::rows_of(dims);
                // SAFETY: as the caller says.
                let bytes = unsafe { memory.slice_mut(0, rows * scalar.row_bytes(width)) };
                Out::Tensor { scalar, dims, data: memory::data_mut(scalar, bytes, rows, width) }
            }
            Place::State { ty, capacity, memory } => {
                // SAFETY: as the caller says.
                let bytes = unsafe { memory.slice_mut(0, memory.len()) };
                let data = memory::data_mut(ty.scalar, bytes, capacity, ty.width as usize);
                Out::State(StateMut { ty, capacity, data })
            }
        };
        // SAFETY: as the caller says.
        let scratch = unsafe { self.scratch.slice_mut(0, self.scratch.len()) };
        Frame { operands: self.operands, out, bind: self.bind, scratch }
    }
}

//! What an op sees when it runs: slices of values, states and weights, and the place for its result.
//!
//! The interpreter and the CPU engine hand the same views to the same `eval`; only where the slices
//! live differs (vectors there, the arena and the mapped files here).
use crate::formats;
use crate::{Bind, Lit, Real, Scalar, StateKind, StateType, TensorType};
use std::borrow::Cow;

/// An expert index and its weight.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[repr(C)]
pub struct Route<F> {
    /// Index into the table of experts.
    pub expert: i32,
    /// Factor of the expert's output.
    pub weight: F,
}

/// Elements of a value or a state, read only. `f32` elements are `F`; other reals stay packed.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a, F> {
    /// `f32`
    Real(&'a [F]),
    /// `i32`
    Int(&'a [i32]),
    /// `route`
    Route(&'a [Route<F>]),
    /// Every other element type, row by row.
    Packed(&'a [u8]),
}

/// Elements of a value or a state that an op writes.
#[derive(Debug)]
pub enum DataMut<'a, F> {
    /// `f32`
    Real(&'a mut [F]),
    /// `i32`
    Int(&'a mut [i32]),
    /// `route`
    Route(&'a mut [Route<F>]),
    /// Every other element type, row by row.
    Packed(&'a mut [u8]),
}

/// A value with its extents in this step.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a, F> {
    /// Type with symbols.
    pub ty: &'a TensorType,
    /// Element type.
    pub scalar: Scalar,
    /// Extents in this step, outermost first.
    pub dims: &'a [usize],
    /// Elements.
    pub data: Data<'a, F>,
}

impl<'a, F: Real> Tensor<'a, F> {
    /// Extent of the last axis.
    pub fn width(&self) -> usize {
        *self.dims.last().expect("a tensor has an axis")
    }

    /// Number of rows: the product of all other extents.
    pub fn rows(&self) -> usize {
        self.dims[..self.dims.len() - 1].iter().product()
    }

    /// The elements of an `f32` tensor.
    pub fn real(&self) -> &'a [F] {
        match self.data {
            Data::Real(x) => x,
            _ => panic!("expected f32 elements, got {}", self.scalar),
        }
    }

    /// The elements of an `i32` tensor.
    pub fn int(&self) -> &'a [i32] {
        match self.data {
            Data::Int(x) => x,
            _ => panic!("expected i32 elements, got {}", self.scalar),
        }
    }

    /// The elements of a `route` tensor.
    pub fn route(&self) -> &'a [Route<F>] {
        match self.data {
            Data::Route(x) => x,
            _ => panic!("expected route elements, got {}", self.scalar),
        }
    }

    /// Decodes row `row` into `out` (`width` elements).
    pub fn read_row(&self, row: usize, out: &mut [F]) {
        read_row(self.scalar, self.data, row, out);
    }

    /// All elements as numbers, decoded if they are packed.
    pub fn to_real(&self) -> Cow<'a, [F]> {
        if let Data::Real(x) = self.data {
            return Cow::Borrowed(x);
        }
        let mut all = vec![F::ZERO; self.rows() * self.width()];
        for (r, row) in all.chunks_exact_mut(self.width()).enumerate() {
            self.read_row(r, row);
        }
        Cow::Owned(all)
    }
}

fn read_row<F: Real>(scalar: Scalar, data: Data<'_, F>, row: usize, out: &mut [F]) {
    match data {
        Data::Real(x) => out.copy_from_slice(&x[row * out.len()..][..out.len()]),
        Data::Packed(bytes) => {
            let size = scalar.row_bytes(out.len());
            formats::decode_row(scalar, &bytes[row * size..][..size], out);
        }
        _ => panic!("expected real elements, got {scalar}"),
    }
}

/// A state with its rows.
#[derive(Clone, Copy, Debug)]
pub struct State<'a, F> {
    /// Kind, element type and width.
    pub ty: StateType,
    /// Rows that are allocated.
    pub capacity: usize,
    /// All allocated rows.
    pub data: Data<'a, F>,
}

/// Where the row of absolute number `row` lies among `capacity` rows.
pub fn state_slot(kind: StateKind, capacity: usize, row: usize) -> usize {
    match kind {
        StateKind::Ring(_) | StateKind::Tail(_) => row % capacity,
        StateKind::Entries(_) => {
            assert!(row < capacity, "entry {row} of a state with {capacity} rows");
            row
        }
    }
}

impl<F: Real> State<'_, F> {
    /// Decodes the row of absolute number `row` (spec 3.1) into `out` (`width` elements).
    pub fn read_row(&self, row: usize, out: &mut [F]) {
        read_row(self.ty.scalar, self.data, state_slot(self.ty.kind, self.capacity, row), out);
    }
}

/// A state that an op writes in place.
#[derive(Debug)]
pub struct StateMut<'a, F> {
    /// Kind, element type and width.
    pub ty: StateType,
    /// Rows that are allocated.
    pub capacity: usize,
    /// All allocated rows.
    pub data: DataMut<'a, F>,
}

impl<F: Real> StateMut<'_, F> {
    /// Copies row `from` of `rows`, of the same element type and width, to absolute row `row`.
    pub fn copy_row(&mut self, row: usize, rows: &Tensor<'_, F>, from: usize) {
        assert!(rows.scalar == self.ty.scalar, "state {} takes no {} rows", self.ty, rows.scalar);
        let slot = state_slot(self.ty.kind, self.capacity, row);
        let width = self.ty.width as usize;
        match (&mut self.data, rows.data) {
            (DataMut::Real(to), Data::Real(x)) => {
                to[slot * width..][..width].copy_from_slice(&x[from * width..][..width]);
            }
            (DataMut::Packed(to), Data::Packed(x)) => {
                let size = self.ty.scalar.row_bytes(width);
                to[slot * size..][..size].copy_from_slice(&x[from * size..][..size]);
            }
            _ => panic!("state {} holds other elements than its type says", self.ty),
        }
    }

    /// The elements of absolute row `row` of an `f32` state.
    pub fn real_row(&mut self, row: usize) -> &mut [F] {
        let slot = state_slot(self.ty.kind, self.capacity, row);
        let width = self.ty.width as usize;
        match &mut self.data {
            DataMut::Real(x) => &mut x[slot * width..][..width],
            _ => panic!("expected f32 rows, got {}", self.ty),
        }
    }
}

/// One matrix of a weight: codes and, for formats that keep them apart, scales.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Element type.
    pub scalar: Scalar,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// The codes of all rows.
    pub codes: &'a [u8],
    /// The E8M0 scales, empty for self-contained formats.
    pub scales: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The bytes of a row's codes.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let size = self.scalar.row_bytes(self.width);
        &self.codes[row * size..][..size]
    }

    /// The bytes of the scales that row `row` uses.
    pub fn scale_row(&self, row: usize) -> &'a [u8] {
        let [_, size] = self.scalar.scale_shape(self.rows, self.width).expect("a format with scales");
        let row = if self.scalar == Scalar::Fp8 { row / crate::FP8_BLOCK } else { row };
        &self.scales[row * size..][..size]
    }

    /// Decodes a row into `out` (`width` elements).
    pub fn read_row<F: Real>(&self, row: usize, out: &mut [F]) {
        match self.scalar {
            Scalar::Fp8 => formats::decode_fp8_row(self.row(row), self.scale_row(row), out),
            Scalar::Fp4 => formats::decode_fp4_row(self.row(row), self.scale_row(row), out),
            scalar => formats::decode_row(scalar, self.row(row), out),
        }
    }

    /// A row of whole numbers (`i32` or `i64`).
    pub fn int_row(&self, row: usize) -> impl Iterator<Item = i64> + 'a {
        let bytes = self.row(row);
        let wide = self.scalar == Scalar::I64;
        assert!(wide || self.scalar == Scalar::I32, "expected whole numbers, got {}", self.scalar);
        bytes.chunks_exact(if wide { 8 } else { 4 }).map(move |b| {
            if wide {
                i64::from_le_bytes(b.try_into().expect("8 bytes"))
            } else {
                i64::from(i32::from_le_bytes(b.try_into().expect("4 bytes")))
            }
        })
    }
}

/// A weight: one matrix, or a table with one per expert.
#[derive(Clone, Copy, Debug)]
pub struct WeightView<'a> {
    /// Element type.
    pub scalar: Scalar,
    /// Extents; rank 3 is a table of experts.
    pub dims: &'a [usize],
    /// Codes and scales of each matrix.
    pub items: &'a [(&'a [u8], &'a [u8])],
}

impl<'a> WeightView<'a> {
    /// The matrix of expert `index`; 0 for a plain weight. A vector is a matrix of one row.
    pub fn matrix(&self, index: usize) -> Matrix<'a> {
        let (rows, width) = match *self.dims {
            [width] => (1, width),
            [rows, width] | [_, rows, width] => (rows, width),
            _ => panic!("a weight has rank 1 to 3, got {:?}", self.dims),
        };
        let (codes, scales) = self.items[index];
        Matrix { scalar: self.scalar, rows, width, codes, scales }
    }

    /// All elements of a plain weight, row by row.
    pub fn to_real<F: Real>(&self) -> Vec<F> {
        let matrix = self.matrix(0);
        let mut all = vec![F::ZERO; matrix.rows * matrix.width];
        for (r, row) in all.chunks_exact_mut(matrix.width).enumerate() {
            matrix.read_row(r, row);
        }
        all
    }
}

/// One operand of a running op.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a, F> {
    /// A value or a parameter.
    Tensor(Tensor<'a, F>),
    /// A state that is read.
    State(State<'a, F>),
    /// The state that the op consumes: it is the result's storage.
    Consumed,
    /// A weight.
    Weight(WeightView<'a>),
    /// A literal.
    Lit(&'a Lit),
}

/// Where the result goes.
#[derive(Debug)]
pub enum Out<'a, F> {
    /// A new value of the given extents.
    Tensor {
        /// Element type.
        scalar: Scalar,
        /// Extents in this step.
        dims: &'a [usize],
        /// Elements to fill.
        data: DataMut<'a, F>,
    },
    /// The consumed state, updated in place.
    State(StateMut<'a, F>),
}

/// Operands and result of one running op.
#[derive(Debug)]
pub struct Frame<'a, F> {
    /// In the order of the op's row.
    pub operands: &'a [Operand<'a, F>],
    /// The result.
    pub out: Out<'a, F>,
    /// The step that runs.
    pub bind: &'a Bind,
    /// Memory that the plan gives the kernel for this launch; holds anything. Empty where nothing
    /// is planned, as in the interpreter.
    pub scratch: &'a mut [u8],
}

impl<'a, F: Real> Frame<'a, F> {
    /// Operand `i`, a value.
    pub fn tensor(&self, i: usize) -> Tensor<'a, F> {
        match self.operands[i] {
            Operand::Tensor(t) => t,
            ref other => panic!("operand {i} is no value: {other:?}"),
        }
    }

    /// Operand `i`, a state that is read.
    pub fn state(&self, i: usize) -> State<'a, F> {
        match self.operands[i] {
            Operand::State(s) => s,
            ref other => panic!("operand {i} is no state: {other:?}"),
        }
    }

    /// Operand `i`, a weight.
    pub fn weight(&self, i: usize) -> WeightView<'a> {
        match self.operands[i] {
            Operand::Weight(w) => w,
            ref other => panic!("operand {i} is no weight: {other:?}"),
        }
    }

    /// Operand `i`, a value or a weight, as numbers.
    pub fn numbers(&self, i: usize) -> Cow<'a, [F]> {
        match self.operands[i] {
            Operand::Weight(w) => Cow::Owned(w.to_real()),
            _ => self.tensor(i).to_real(),
        }
    }

    /// Operand `i`, a literal number, as a real.
    pub fn lit(&self, i: usize) -> F {
        match self.operands[i] {
            Operand::Lit(Lit::Real(x)) => F::from_f64(*x),
            Operand::Lit(Lit::Int(n)) => F::from_f64(*n as f64),
            ref other => panic!("operand {i} is no number: {other:?}"),
        }
    }

    /// Operand `i`, a whole literal.
    pub fn int(&self, i: usize) -> usize {
        match self.operands[i] {
            Operand::Lit(Lit::Int(n)) => usize::try_from(*n).expect("a literal of this op is not negative"),
            ref other => panic!("operand {i} is no whole number: {other:?}"),
        }
    }

    /// Extents of the result.
    pub fn out_dims(&self) -> &'a [usize] {
        match &self.out {
            Out::Tensor { dims, .. } => dims,
            Out::State(s) => panic!("the result is {}, no value", s.ty),
        }
    }

    /// The elements of an `f32` result.
    pub fn out_real(&mut self) -> &mut [F] {
        match &mut self.out {
            Out::Tensor { data: DataMut::Real(x), .. } => x,
            other => panic!("expected an f32 result, got {other:?}"),
        }
    }

    /// The elements of an `i32` result.
    pub fn out_int(&mut self) -> &mut [i32] {
        match &mut self.out {
            Out::Tensor { data: DataMut::Int(x), .. } => x,
            other => panic!("expected an i32 result, got {other:?}"),
        }
    }

    /// The elements of a `route` result.
    pub fn out_route(&mut self) -> &mut [Route<F>] {
        match &mut self.out {
            Out::Tensor { data: DataMut::Route(x), .. } => x,
            other => panic!("expected a route result, got {other:?}"),
        }
    }

    /// Writes row `row` of a real result from numbers, encoding if its type is packed.
    pub fn write_row(&mut self, row: usize, x: &[F]) {
        match &mut self.out {
            Out::Tensor { data: DataMut::Real(out), .. } => {
                out[row * x.len()..][..x.len()].copy_from_slice(x);
            }
            Out::Tensor { scalar, data: DataMut::Packed(out), .. } => {
                let size = scalar.row_bytes(x.len());
                formats::encode_row(*scalar, x, &mut out[row * size..][..size]);
            }
            other => panic!("expected a real result, got {other:?}"),
        }
    }

    /// The state that the op updates.
    pub fn out_state(&mut self) -> &mut StateMut<'a, F> {
        match &mut self.out {
            Out::State(s) => s,
            other => panic!("expected a state as result, got {other:?}"),
        }
    }
}

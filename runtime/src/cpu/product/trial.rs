//! Kernels with random weights and inputs, to be timed: for `benches/product.rs`.
use super::{Cells, Column, Isa, Job, ProductKernel, isas, kernels};
use crate::memory::Memory;
use ds4_ir::Scalar;
use ds4_ir::formats::encode_row;
use ds4_ir::view::Matrix;

/// What is multiplied.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Type of the weight.
    pub weight: Scalar,
    /// Type of the inputs.
    pub input: Scalar,
    /// Rows of the weight.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Input rows.
    pub columns: usize,
}

/// One kernel on one shape.
pub struct Trial {
    kernel: &'static ProductKernel,
    shape: Shape,
    /// Matrices one after the other, more than any cache holds.
    pool: Memory,
    matrix_bytes: usize,
    matrices: usize,
    scales: Vec<u8>,
    inputs: Memory,
    columns: Vec<Column>,
    out: Vec<f32>,
    scratch: Vec<u8>,
    next: usize,
    last_bytes: usize,
}

/// A sequence of bits without pattern.
fn noise(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A stored matrix of any codes under scales of moderate size.
fn stored(shape: Shape) -> Vec<u8> {
    let mut state = 1;
    let size = shape.rows * shape.weight.row_bytes(shape.width);
    let mut codes: Vec<u8> =
        (0..size.div_ceil(8)).flat_map(|_| noise(&mut state).to_le_bytes()).take(size).collect();
    // Upper bytes of the scales of a block, or of each number.
    let (block, at): (usize, &[usize]) = match shape.weight {
        Scalar::F32 => (4, &[3]),
        Scalar::F16 | Scalar::Bf16 => (2, &[1]),
        Scalar::Q8_0 => (34, &[1]),
        Scalar::Q4K => (144, &[1, 3]),
        Scalar::Q2K => (84, &[81, 83]),
        Scalar::Iq2Xxs => (66, &[1]),
        Scalar::Mxfp4 => (17, &[0]),
        _ => (1, &[]),
    };
    for block in codes.chunks_exact_mut(block) {
        at.iter().for_each(|at| block[*at] = if shape.weight == Scalar::Mxfp4 { 120 } else { 0x1c });
    }
    codes
}

impl Trial {
    /// Every kernel of this machine for the shape, on at least `bytes` of weights. Scalar ones, which no
    /// machine with another chooses, are left out.
    pub fn all(shape: Shape, bytes: usize) -> impl Iterator<Item = Trial> {
        let stored = stored(shape);
        let fits = move |k: &&'static ProductKernel| {
            (k.weight, k.input) == (shape.weight, shape.input)
                && k.isa != Isa::Scalar
                && isas().contains(&k.isa)
        };
        kernels().filter(fits).filter_map(move |k| Trial::new(k, shape, &stored, bytes))
    }

    fn new(kernel: &'static ProductKernel, shape: Shape, stored: &[u8], bytes: usize) -> Option<Trial> {
        let Shape { weight, input, rows, width, columns } = shape;
        let matrix_bytes = kernel.packing.packed_bytes(weight, rows, width)?;
        let scales = vec![120; weight.scale_shape(rows, width).map_or(0, |[a, b]| a * b)];
        let matrices = bytes.div_ceil(matrix_bytes);
        let mut pool = Memory::new((matrices * matrix_bytes) as u64)?;
        let m = Matrix { scalar: weight, rows, width, codes: stored, scales: &scales };
        let (first, others) = pool.bytes_mut()[..matrices * matrix_bytes].split_at_mut(matrix_bytes);
        kernel.packing.pack(&m, 0..rows, first);
        others.chunks_exact_mut(matrix_bytes).for_each(|other| other.copy_from_slice(first));
        let stride = (kernel.prepared_bytes)(width);
        let mut inputs = Memory::new((columns * stride) as u64)?;
        let mut state = 2;
        for out in inputs.bytes_mut().chunks_exact_mut(stride).take(columns) {
            let x: Vec<f32> =
                (0..width).map(|_| noise(&mut state) as i64 as f32 / (1u64 << 63) as f32).collect();
            let mut row = vec![0; input.row_bytes(width)];
            encode_row(input, &x, &mut row);
            (kernel.prepare)(&row, width, out);
        }
        Some(Trial {
            kernel,
            shape,
            pool,
            matrix_bytes,
            matrices,
            scales,
            inputs,
            columns: (0..columns as u32).map(|i| Column { input: i, result: i }).collect(),
            out: vec![0.0; columns * rows],
            scratch: vec![0; (kernel.scratch_bytes)(width, columns)],
            next: 0,
            last_bytes: 0,
        })
    }

    /// Kernel, instruction set and packing.
    pub fn name(&self) -> String {
        let ProductKernel { name, isa, packing, .. } = self.kernel;
        format!("{name} {isa:?} {}", packing.name()).to_lowercase()
    }

    /// Rows of a job near `rows`.
    pub fn job_rows(&self, rows: usize) -> usize {
        rows.next_multiple_of(self.kernel.granule).min(self.shape.rows)
    }

    /// Bytes of `rows` rows of the weight.
    pub fn bytes(&self, rows: usize) -> usize {
        self.matrix_bytes / self.shape.rows * rows
    }

    /// Runs the job of `rows` rows that lies behind the last one in memory.
    pub fn run(&mut self, rows: usize) {
        let jobs = self.shape.rows / rows;
        let (matrix, job) = (self.next / jobs % self.matrices, self.next % jobs);
        self.next += 1;
        self.last_bytes = self.bytes(rows);
        let codes = &self.pool.bytes()[matrix * self.matrix_bytes..][..self.matrix_bytes];
        let Shape { weight: scalar, rows: all, width, .. } = self.shape;
        let cells = Cells::new(&mut self.out, all);
        let job = Job {
            m: Matrix { scalar, rows: all, width, codes, scales: &self.scales },
            rows: job * rows..(job + 1) * rows,
            inputs: self.inputs.bytes(),
            stride: (self.kernel.prepared_bytes)(width),
            columns: &self.columns,
            out: &cells,
        };
        (self.kernel.run)(&job, &mut self.scratch);
    }

    /// Memory of that many bytes, half of the weights away from the next job's.
    pub fn elsewhere(&self, bytes: usize) -> &[u8] {
        let all = self.pool.bytes();
        let at = self.next * self.last_bytes + all.len() / 2;
        &all[at % (all.len() - bytes)..][..bytes]
    }
}

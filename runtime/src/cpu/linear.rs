//! Products with whole weights: `matmul`, `grouped_matmul`, `mlp_up`.
//!
//! First the input rows are prepared, then blocks of weight rows go to the threads, each with all
//! columns. What follows a product element by element is done by the task that has the block.
use super::cells::Cells;
use super::frame::SharedFrame;
use super::input::{Columns, Factor, Input, Layout, block_max, block_rows, extents, format, rows_max};
use super::input::{value, weight};
use super::op::{OpKernel, Site};
use super::product::{Column, Job};
use super::silu::swiglu;
use crate::memory::{Region, cast_mut};
use std::ops::Range;

/// Writes the columns of a product: input row i goes to result row i.
pub(super) fn identity(columns: &mut [Column]) {
    for (i, column) in (0..).zip(columns) {
        *column = Column { input: i, result: i };
    }
}

/// `matmul` and `grouped_matmul`: group g of the input times the g-th slice of the weight's rows.
pub(super) struct Matmul {
    input: Input,
    factor: Factor,
    columns: Columns,
    groups: usize,
    scratch: Layout,
    worker_bytes: usize,
}

impl Matmul {
    pub(super) fn new(site: &Site<'_>) -> Matmul {
        let groups = if site.op.name == "grouped_matmul" { site.int(2) } else { 1 };
        let (ty, width) = (value(site.args, 0), extents(weight(site.args, 1))[1]);
        let rows = rows_max(ty, width, site.maxima);
        let mut scratch = Layout::default();
        let mut input = Input::new(0, ty, ty.scalar, width, rows);
        let unit = extents(weight(site.args, 1))[0] / groups;
        let factor = input.factor_of(site, 1, rows / groups, unit, &mut scratch);
        let columns = Columns::new(rows, &mut scratch);
        let worker_bytes = (factor.kernel.scratch_bytes)(width, rows / groups).max(input.worker_bytes());
        Matmul { input, factor, columns, groups, scratch, worker_bytes }
    }

    /// Weight rows of a group, rows of a block, blocks of a group.
    fn blocks(&self, f: &SharedFrame<'_>) -> (usize, usize, usize) {
        let m = f.weight(self.factor.operand).matrix(0);
        let rows = m.rows / self.groups;
        let bytes = m.codes.len() / m.rows.max(1);
        let block = block_rows(rows, bytes, self.factor.kernel.granule, f.threads.div_ceil(self.groups));
        (rows, block, rows.div_ceil(block))
    }
}

impl OpKernel for Matmul {
    fn scratch_bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    fn worker_bytes(&self) -> usize {
        self.worker_bytes
    }

    fn phases(&self) -> usize {
        2
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        if phase == 0 { self.input.tasks(f) + 1 } else { self.blocks(f).2 * self.groups }
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let (rows, groups) = (f.out_shape().0, self.groups);
        if phase == 0 {
            if let Some(task) = task.checked_sub(1) {
                return self.input.prepare(task, f, worker);
            }
            // SAFETY: the list is written by this task alone.
            let columns = unsafe { self.columns.fill(0..rows * groups, f) };
            for (i, column) in columns.iter_mut().enumerate() {
                let (g, row) = ((i / rows) as u32, (i % rows) as u32);
                *column = Column { input: row * groups as u32 + g, result: row };
            }
            return;
        }
        let (of_group, block, blocks) = self.blocks(f);
        let (g, from) = (task / blocks, task % blocks * block);
        let to = (from + block).min(of_group);
        let (inputs, stride) = self.input.prepared(&self.factor, f);
        // SAFETY: each task writes its own rows of the weight for all columns.
        let out = unsafe { f.out_cells() };
        let job = Job {
            m: f.weight(self.factor.operand).matrix(0),
            rows: g * of_group + from..g * of_group + to,
            inputs,
            stride,
            columns: self.columns.get(g * rows..(g + 1) * rows, f),
            out: &out,
        };
        (self.factor.kernel.run)(&job, worker);
    }
}

/// Gate and up of a block of weight rows for some columns, and their activation.
pub(super) struct GateUp {
    gate: Factor,
    up: Factor,
    clamp: f32,
}

impl GateUp {
    /// For operands `gate` and `up` and an input.
    pub(super) fn new(
        site: &Site<'_>,
        (gate, up): (usize, usize),
        input: &mut Input,
        scratch: &mut Layout,
        columns: usize,
        clamp: f32,
    ) -> GateUp {
        let gate = input.factor(site, gate, columns, scratch);
        GateUp { gate, up: input.factor(site, up, columns, scratch), clamp }
    }

    fn granule(&self) -> usize {
        self.gate.kernel.granule.max(self.up.kernel.granule)
    }

    /// Weight rows of one task; `bytes` of both weights are read for each.
    pub(super) fn block(&self, rows: usize, bytes: usize, threads: usize) -> usize {
        block_rows(rows, bytes, self.granule(), threads)
    }

    /// Bytes of a thread's buffer for blocks of weights that take so many bytes for each row.
    pub(super) fn worker_bytes(&self, width: usize, bytes: usize, columns: usize) -> usize {
        let scratch = |f: &Factor| (f.kernel.scratch_bytes)(width, columns);
        let cells = 2 * columns * block_max(bytes, self.granule()) * 4;
        cells + scratch(&self.gate).max(scratch(&self.up))
    }

    /// Computes weight rows `rows` of expert `expert`; `done(result, activations)` is told each column's.
    pub(super) fn run(
        &self,
        f: &SharedFrame<'_>,
        input: &Input,
        (expert, rows): (usize, Range<usize>),
        columns: &[Column],
        worker: &mut [u8],
        mut done: impl FnMut(usize, &mut [f32]),
    ) {
        let (n, size) = (columns.len(), rows.len());
        let (cells, scratch) = worker.split_at_mut(2 * n * size * 4);
        let memory = Region::of(cells);
        let multiply = |factor: &Factor, at: usize, scratch: &mut [u8]| {
            // SAFETY: the buffer is this thread's own; each of the two products has its half.
            let out = unsafe { Cells::block(memory, at, n, rows.clone()) };
            let (inputs, stride) = input.prepared(factor, f);
            let m = f.weight(factor.operand).matrix(expert);
            (factor.kernel.run)(&Job { m, rows: rows.clone(), inputs, stride, columns, out: &out }, scratch);
        };
        multiply(&self.gate, 0, scratch);
        multiply(&self.up, n * size * 4, scratch);
        let (gate, up) = cast_mut::<f32>(cells, 2 * n * size).split_at_mut(n * size);
        swiglu(gate, up, self.clamp);
        gate.chunks_exact_mut(size).enumerate().for_each(|(i, row)| done(i, row));
    }
}

/// Bytes of gate and up for each row of the result.
pub(super) fn pair_bytes(site: &Site<'_>, gate: usize, up: usize) -> usize {
    let bytes = |i: usize| {
        let ty = weight(site.args, i);
        ty.scalar.row_bytes(*extents(ty).last().expect("an axis"))
    };
    bytes(gate) + bytes(up)
}

/// `mlp_up`.
pub(super) struct MlpUp {
    input: Input,
    pair: GateUp,
    bytes: usize,
    columns: Columns,
    scratch: Layout,
    worker_bytes: usize,
}

impl MlpUp {
    pub(super) fn new(site: &Site<'_>) -> MlpUp {
        let (ty, width) = (value(site.args, 0), extents(weight(site.args, 1))[1]);
        let rows = rows_max(ty, width, site.maxima);
        let mut scratch = Layout::default();
        let mut input = Input::new(0, ty, format(site.args, 3), width, rows);
        let pair = GateUp::new(site, (1, 2), &mut input, &mut scratch, rows, site.real(4));
        let columns = Columns::new(rows, &mut scratch);
        let bytes = pair_bytes(site, 1, 2);
        let worker_bytes = pair.worker_bytes(width, bytes, rows).max(input.worker_bytes());
        MlpUp { input, pair, bytes, columns, scratch, worker_bytes }
    }
}

impl OpKernel for MlpUp {
    fn scratch_bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    fn worker_bytes(&self) -> usize {
        self.worker_bytes
    }

    fn phases(&self) -> usize {
        2
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        let rows = f.out_shape().1;
        if phase == 0 {
            return self.input.tasks(f) + 1;
        }
        rows.div_ceil(self.pair.block(rows, self.bytes, f.threads))
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let (tokens, rows) = f.out_shape();
        if phase == 0 {
            return match task.checked_sub(1) {
                Some(task) => self.input.prepare(task, f, worker),
                // SAFETY: the list is written by this task alone.
                None => identity(unsafe { self.columns.fill(0..tokens, f) }),
            };
        }
        let block = self.pair.block(rows, self.bytes, f.threads);
        let own = task * block..((task + 1) * block).min(rows);
        let columns = self.columns.get(0..tokens, f);
        self.pair.run(f, &self.input, (0, own.clone()), columns, worker, |row, x| {
            // SAFETY: each task writes its own elements of every row.
            unsafe { f.out_part::<f32>(row, own.clone()) }.copy_from_slice(x);
        });
    }
}

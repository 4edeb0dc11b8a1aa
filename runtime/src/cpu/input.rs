//! Inputs of products: rows of an operand, rounded and laid out as the product kernels read them.
//!
//! Each row is prepared once for all weights of the launch whose kernels share a form. What products
//! need of scratch is laid out here too: prepared rows, then the lists of columns.
use super::encode::encode;
use super::frame::SharedFrame;
use super::op::Site;
use super::product::{Column, Prepare, ProductKernel, is_plain, isas};
use ds4_ir::ops::SigArg;
use ds4_ir::plan::Maxima;
use ds4_ir::view::{Data, Tensor};
use ds4_ir::{Scalar, TensorType};
use std::ops::Range;

/// Alignment of what lies in scratch.
const ALIGN: usize = 64;
/// Most elements that a task of preparing takes.
const TASK_ELEMENTS: usize = 1 << 14;
/// Most rows that a task of preparing takes.
const TASK_ROWS: usize = 16;

/// Hands out scratch.
#[derive(Default)]
pub(super) struct Layout {
    end: usize,
}

impl Layout {
    /// The place of `bytes` bytes.
    pub(super) fn take(&mut self, bytes: usize) -> usize {
        let at = self.end;
        self.end = (at + bytes).next_multiple_of(ALIGN);
        at
    }

    /// All bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.end as u64
    }
}

/// The type of operand `i`, a value.
pub(super) fn value<'a>(args: &[SigArg<'a>], i: usize) -> &'a TensorType {
    match args[i] {
        SigArg::Value(ty) => ty.tensor().expect("a value"),
        _ => panic!("operand {i} is no value"),
    }
}

/// The type of operand `i`, a weight.
pub(super) fn weight<'a>(args: &[SigArg<'a>], i: usize) -> &'a TensorType {
    match args[i] {
        SigArg::Weight(ty) => ty,
        _ => panic!("operand {i} is no weight"),
    }
}

/// The extents of a weight.
pub(super) fn extents(ty: &TensorType) -> Vec<usize> {
    ty.constants().expect("weights have constant extents").iter().map(|d| *d as usize).collect()
}

/// The format that operand `i` names. `kv8` takes no part in products.
pub(super) fn format(args: &[SigArg<'_>], i: usize) -> Scalar {
    let SigArg::Lit(lit) = args[i] else { panic!("operand {i} is no literal") };
    Scalar::parse(&lit.to_string()).expect("a verified node names a format")
}

/// Rows of `width` elements that a value has at most.
pub(super) fn rows_max(ty: &TensorType, width: usize, maxima: &Maxima) -> usize {
    let extent = |d: &ds4_ir::Dim| match *d {
        ds4_ir::Dim::Const(n) => n as usize,
        ds4_ir::Dim::Sym(s) => maxima.sym(s) as usize,
    };
    ty.dims.iter().map(extent).product::<usize>() / width
}

/// A form in which kernels read rows.
struct Form {
    prepare: Prepare,
    stride: usize,
    at: usize,
}

/// The rows of one operand.
pub(super) struct Input {
    operand: usize,
    from: Scalar,
    fmt: Scalar,
    width: usize,
    rows_max: usize,
    forms: Vec<Form>,
    /// Whether the operand is computed row by row by who owns the input, see [`Input::round`].
    made: bool,
}

/// A weight's kernel and the form in which it reads the input.
pub(super) struct Factor {
    pub(super) operand: usize,
    pub(super) kernel: &'static ProductKernel,
    form: usize,
}

impl Input {
    /// Operand `operand` of type `ty`, at most `rows_max` rows of `width` elements, rounded to `fmt`.
    pub(super) fn new(operand: usize, ty: &TensorType, fmt: Scalar, width: usize, rows_max: usize) -> Input {
        Input { operand, from: ty.scalar, fmt, width, rows_max, forms: Vec::new(), made: false }
    }

    /// As [`Input::new`], but what is prepared are numbers that the launch makes of the operand.
    pub(super) fn made(operand: usize, ty: &TensorType, fmt: Scalar, width: usize, rows_max: usize) -> Input {
        Input { made: true, ..Input::new(operand, ty, fmt, width, rows_max) }
    }

    /// Whether kernels read the operand as it lies.
    fn is_direct(&self) -> bool {
        !self.made && self.from == Scalar::F32 && self.fmt == Scalar::F32 && is_plain(self.width)
    }

    /// The kernel for the weight of operand `i`, which about `columns` rows are multiplied with; its
    /// form of the rows gets a place.
    pub(super) fn factor(
        &mut self,
        site: &Site<'_>,
        i: usize,
        columns: usize,
        scratch: &mut Layout,
    ) -> Factor {
        let rows = extents(weight(site.args, i));
        self.factor_of(site, i, columns, rows[rows.len() - 2], scratch)
    }

    /// As [`Input::factor`], for slices of `unit` weight rows.
    pub(super) fn factor_of(
        &mut self,
        site: &Site<'_>,
        i: usize,
        columns: usize,
        unit: usize,
        scratch: &mut Layout,
    ) -> Factor {
        let kernel = site.products.kernel(i, weight(site.args, i), self.fmt, columns, unit);
        let stride = (kernel.prepared_bytes)(self.width);
        let same = |f: &Form| f.stride == stride && std::ptr::fn_addr_eq(f.prepare, kernel.prepare);
        let form = self.forms.iter().position(same).unwrap_or_else(|| {
            let rows = if self.is_direct() { 0 } else { self.rows_max };
            let at = scratch.take(stride * rows);
            self.forms.push(Form { prepare: kernel.prepare, stride, at });
            self.forms.len() - 1
        });
        Factor { operand: i, kernel, form }
    }

    /// Bytes of a thread's buffer that preparing takes.
    pub(super) fn worker_bytes(&self) -> usize {
        if self.from == self.fmt { 0 } else { self.fmt.row_bytes(self.width) }
    }

    fn rows(&self, f: &SharedFrame<'_>) -> usize {
        let t = f.tensor(self.operand);
        t.rows() * t.width() / self.width
    }

    fn task_rows(&self, rows: usize, threads: usize) -> usize {
        let most = (TASK_ELEMENTS / self.width).clamp(1, TASK_ROWS);
        rows.div_ceil(threads).clamp(1, most)
    }

    /// Tasks of preparing.
    pub(super) fn tasks(&self, f: &SharedFrame<'_>) -> usize {
        if self.is_direct() {
            return 0;
        }
        let rows = self.rows(f);
        rows.div_ceil(self.task_rows(rows, f.threads))
    }

    /// Prepares the rows of one task.
    pub(super) fn prepare(&self, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let (x, rows) = (f.tensor(self.operand), self.rows(f));
        let size = self.task_rows(rows, f.threads);
        for row in task * size..((task + 1) * size).min(rows) {
            if self.from == self.fmt {
                self.store(row, row_bytes(&x, self.width, row), f);
            } else {
                self.round(row, &x.real()[row * self.width..][..self.width], f, worker);
            }
        }
    }

    /// Rounds and prepares a row of numbers.
    pub(super) fn round(&self, row: usize, x: &[f32], f: &SharedFrame<'_>, worker: &mut [u8]) {
        if self.fmt == Scalar::F32 {
            return self.store(row, bytes_of(x), f);
        }
        let rounded = &mut worker[..self.fmt.row_bytes(self.width)];
        encode(isas()[0], self.fmt, x, rounded);
        self.store(row, rounded, f);
    }

    fn store(&self, row: usize, bytes: &[u8], f: &SharedFrame<'_>) {
        assert!(row < self.rows_max, "row {row} of {}", self.rows_max);
        for form in &self.forms {
            // SAFETY: each row belongs to one task of preparing, and is read in later phases.
            let out = unsafe { f.scratch.slice_mut(form.at + row * form.stride, form.stride) };
            (form.prepare)(bytes, self.width, out);
        }
    }

    /// The prepared rows for a factor, and the bytes from one to the next.
    pub(super) fn prepared<'a>(&self, factor: &Factor, f: &SharedFrame<'a>) -> (&'a [u8], usize) {
        let form = &self.forms[factor.form];
        if self.is_direct() {
            return (bytes_of(f.tensor(self.operand).real()), form.stride);
        }
        // SAFETY: written in an earlier phase, and not again.
        (unsafe { f.scratch.slice(form.at, form.stride * self.rows(f)) }, form.stride)
    }
}

/// The bytes of a row of numbers.
fn bytes_of(x: &[f32]) -> &[u8] {
    // SAFETY: numbers without padding, read as bytes.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

/// The bytes of row `row` of `width` elements.
fn row_bytes<'a>(x: &Tensor<'a, f32>, width: usize, row: usize) -> &'a [u8] {
    match x.data {
        Data::Real(x) => bytes_of(&x[row * width..][..width]),
        Data::Packed(bytes) => {
            let size = x.scalar.row_bytes(width);
            &bytes[row * size..][..size]
        }
        _ => panic!("{} rows take no part in products", x.scalar),
    }
}

/// Lists of columns in scratch.
pub(super) struct Columns {
    at: usize,
    most: usize,
}

impl Columns {
    /// A place for `most` columns.
    pub(super) fn new(most: usize, scratch: &mut Layout) -> Columns {
        Columns { at: scratch.take(most * size_of::<Column>()), most }
    }

    /// Columns to write.
    ///
    /// # Safety
    /// No one else uses them while the slice lives.
    pub(super) unsafe fn fill<'a>(&self, range: Range<usize>, f: &SharedFrame<'a>) -> &'a mut [Column] {
        assert!(range.end <= self.most, "columns {range:?} of {}", self.most);
        // SAFETY: as the caller says.
        unsafe { f.scratch.slice_mut(self.at + range.start * size_of::<Column>(), range.len()) }
    }

    /// Columns that an earlier phase has written.
    pub(super) fn get<'a>(&self, range: Range<usize>, f: &SharedFrame<'a>) -> &'a [Column] {
        assert!(range.end <= self.most, "columns {range:?} of {}", self.most);
        // SAFETY: written in an earlier phase, and not again.
        unsafe { f.scratch.slice(self.at + range.start * size_of::<Column>(), range.len()) }
    }
}

/// Bytes of weights that one task of products reads.
const TASK_BYTES: usize = 512 << 10;
/// Tasks of a product for each thread, where it is large enough.
const TASKS_PER_THREAD: usize = 4;
/// Weight rows that a block is a multiple of, where it is as large.
const BLOCK_UNIT: usize = 16;

/// Weight rows that one task takes, of `rows` rows; `bytes` are read for each.
pub(super) fn block_rows(rows: usize, bytes: usize, granule: usize, threads: usize) -> usize {
    let by_threads = if threads == 1 { rows } else { rows.div_ceil(threads * TASKS_PER_THREAD) };
    let block = (TASK_BYTES / bytes.max(1)).min(by_threads).max(1);
    whole_blocks(block).next_multiple_of(granule)
}

/// So many rows or a little fewer, of which kernels leave no part of what they take at once unused.
pub(super) fn whole_blocks(rows: usize) -> usize {
    if rows >= BLOCK_UNIT { rows - rows % BLOCK_UNIT } else { rows }
}

/// The most that [`block_rows`] answers.
pub(super) fn block_max(bytes: usize, granule: usize) -> usize {
    (TASK_BYTES / bytes.max(1)).max(1).next_multiple_of(granule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::product::kernels;

    #[test]
    fn numbers_are_read_as_they_lie() {
        let x: Vec<f32> = (0..48).map(|i| i as f32 - 7.5).collect();
        for kernel in kernels().filter(|k| k.input == Scalar::F32) {
            assert_eq!((kernel.prepared_bytes)(x.len()), size_of_val(&x[..]), "{}", kernel.name);
            let mut out = vec![0u8; size_of_val(&x[..]) + ALIGN];
            let at = out.as_ptr().align_offset(ALIGN);
            let out = &mut out[at..][..size_of_val(&x[..])];
            (kernel.prepare)(bytes_of(&x), x.len(), out);
            assert_eq!(out, bytes_of(&x), "{}", kernel.name);
        }
    }
}

//! Products of weight rows and input rows: the kernels, and the one definition of their bits.
//!
//! A result's bits depend on its weight row and its input row alone: not on the number of columns,
//! the split into jobs, the packing or the instruction set. Two definitions cover every pair of types:
//!
//! - **Decoded** (all pairs but those below): both rows are decoded to `f32` and summed in the order of
//!   [`ds4_ir::ops::dot`]: eight lanes, a product then a sum, joined pairwise.
//! - **Integer** (`q8_0`, `mxfp4`, `fp4` times `q8_0`; `q4_k`, `q2_k`, `iq2_xxs` times `q8_k`): per block
//!   of the input, 32 or 256 elements, the sum of codes is exact in `i32`, sub-scales of the weight
//!   included. Blocks follow in ascending order, each with
//!   `acc = fma(isum as f32, dw · dx, acc)`, then, for formats with minimums,
//!   `acc = fma(msum as f32, -(dmin · dx), acc)`. What `isum`, `msum`, `dw` and `dmin` are stands in
//!   [`twin`], whose functions are the definition in code.
//!
//! Codes of `q8_0` and `q8_k` inputs lie in ±127, as [`ds4_ir::formats::encode_row`] makes them; weight
//! codes are arbitrary bytes. A NaN equals any other.
//! A prepared row of `f32` is the row itself where its width [`is_plain`].
#[cfg(target_arch = "x86_64")]
mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bytes;
mod decoded;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packing;
mod prepared;
mod repack;
#[cfg(test)]
mod tests;
pub mod trial;
mod twin;

pub(crate) use packing::Packing;

use super::cells::Cells;
use ds4_ir::Scalar;
use ds4_ir::view::Matrix;
use std::ops::Range;
use std::sync::OnceLock;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Isa {
    /// Plain Rust.
    Scalar,
    /// x86 with AVX2, FMA and F16C.
    Avx2,
    /// x86 with AVX-512 F, BW, DQ, VL, VNNI, VBMI and GFNI.
    Avx512,
    /// ARM with dot product.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "never found there"))]
    Neon,
}

/// The instruction sets of this machine, best first; the last is [`Isa::Scalar`].
pub(crate) fn isas() -> &'static [Isa] {
    static FOUND: OnceLock<Vec<Isa>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut isas = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            if avx2 && avx512 && has!("avx512vnni") && has!("avx512vbmi") && has!("gfni") {
                isas.push(Isa::Avx512);
            }
            if avx2 {
                isas.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            isas.push(Isa::Neon);
        }
        isas.push(Isa::Scalar);
        isas
    })
}

/// One input row and the result row that its products go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Column {
    /// Index of the prepared row.
    pub(crate) input: u32,
    /// Row of the result.
    pub(crate) result: u32,
}

/// Weight rows times input rows.
pub(crate) struct Job<'a> {
    /// The weight; its bytes lie as the kernel's packing says.
    pub(crate) m: Matrix<'a>,
    /// Weight rows; the start is a multiple of the kernel's granule, the end too or the last row.
    pub(crate) rows: Range<usize>,
    /// Prepared input rows.
    pub(crate) inputs: &'a [u8],
    /// Bytes from one prepared row to the next: a multiple of 64, at least `prepared_bytes(width)`.
    pub(crate) stride: usize,
    /// What is multiplied, at least one.
    pub(crate) columns: &'a [Column],
    /// The result, `[result row][weight row]`. A run writes the cells of its columns and rows, no other.
    pub(crate) out: &'a Cells<'a>,
}

impl<'a> Job<'a> {
    /// The prepared row of a column.
    fn input(&self, column: Column) -> &'a [u8] {
        &self.inputs[column.input as usize * self.stride..][..self.stride]
    }

    /// `N` weight rows from `from` on; beyond the job's last row it is that one again.
    #[inline]
    fn weight_rows<const N: usize>(&self, from: usize) -> [&'a [u8]; N] {
        // Looked up once, not row by row: narrow rows are read as fast.
        self.rows_of_bytes(self.m.scalar.row_bytes(self.m.width), from)
    }

    /// As [`Job::weight_rows`], of rows that take `size` bytes as their packing has them.
    #[inline]
    fn rows_of_bytes<const N: usize>(&self, size: usize, from: usize) -> [&'a [u8]; N] {
        let mut rows = [&self.m.codes[..0]; N];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = &self.m.codes[self.row_at(from + i) * size..][..size];
        }
        rows
    }

    /// The row itself; beyond the job's last row that one.
    #[inline]
    fn row_at(&self, row: usize) -> usize {
        row.min(self.rows.end - 1)
    }

    /// Writes the products of a column with the rows from `row` on.
    fn write(&self, column: Column, row: usize, products: &[f32]) {
        assert!(self.rows.start <= row && row + products.len() <= self.rows.end, "rows of another job");
        // SAFETY: the cells of a job's rows and columns belong to the thread that runs it.
        unsafe { self.out.write(column.result as usize, row, products) }
    }
}

/// Whether kernels read an `f32` row of that width as it lies, without preparing it.
pub(crate) fn is_plain(width: usize) -> bool {
    width.is_multiple_of(16)
}

/// Makes of one input row, of so many elements, what a kernel reads.
pub(crate) type Prepare = fn(row: &[u8], width: usize, out: &mut [u8]);

/// Runs a job with scratch.
pub(crate) type Run = fn(&Job<'_>, &mut [u8]);

/// A kernel for one pair of types. Prepared rows start at multiples of 64 bytes, scratch anywhere.
#[derive(Clone, Copy)]
pub(crate) struct ProductKernel {
    /// What tells it from others of the same types, packing and instruction set.
    pub(crate) name: &'static str,
    /// Type of the weight.
    pub(crate) weight: Scalar,
    /// How the weight's bytes lie.
    pub(crate) packing: Packing,
    /// Type of the input rows before they are prepared.
    pub(crate) input: Scalar,
    /// What it needs of the machine.
    pub(crate) isa: Isa,
    /// Weight rows that it takes at once.
    pub(crate) granule: usize,
    /// Bytes of a prepared row, a multiple of 64.
    pub(crate) prepared_bytes: fn(width: usize) -> usize,
    /// Makes of one input row what `run` reads; `out` starts at a multiple of 64 bytes. Kernels with equal functions share prepared rows.
    pub(crate) prepare: Prepare,
    /// Bytes of scratch of one thread for at most so many columns.
    pub(crate) scratch_bytes: fn(width: usize, columns: usize) -> usize,
    /// Runs a job on the calling thread.
    pub(crate) run: Run,
}

/// Every kernel of this build, those of a better instruction set first and, within one, the default
/// for its types first.
pub(crate) fn kernels() -> impl Iterator<Item = &'static ProductKernel> {
    TABLES.iter().copied().flatten().copied().flatten()
}

static TABLES: &[&[&[ProductKernel]]] = &[
    #[cfg(target_arch = "x86_64")]
    avx512::KERNELS,
    #[cfg(target_arch = "x86_64")]
    avx2::KERNELS,
    #[cfg(target_arch = "aarch64")]
    neon::KERNELS,
    &[twin::KERNELS, decoded::KERNELS],
];

/// The default kernel of this machine for types and packing, `None` where there is none.
pub(crate) fn find(weight: Scalar, packing: Packing, input: Scalar) -> Option<&'static ProductKernel> {
    kernels().find(|k| (k.weight, k.packing, k.input) == (weight, packing, input) && isas().contains(&k.isa))
}

/// [`find`] where a kernel is known to exist: every weight of a model as stored, times every format of a
/// product's input.
///
/// # Panics
/// If there is none.
#[cfg(test)]
pub(crate) fn choose(weight: Scalar, packing: Packing, input: Scalar) -> &'static ProductKernel {
    find(weight, packing, input).unwrap_or_else(|| {
        panic!("no kernel of this machine for {weight} ({}) times {input}", packing.name())
    })
}

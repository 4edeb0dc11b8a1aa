//! The differential test of a kernel: bit for bit what the scalar twin answers, on rows of the model
//! and on bytes of any kind.
use crate::cpu::cells::Cells;
use crate::cpu::product::{Column, Job, Packing, ProductKernel};
use crate::memory::Memory;
use ds4_ir::formats::encode_row;
use ds4_ir::view::Matrix;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Weight rows that are tried.
pub(super) const ROWS: usize = 64;
/// Numbers of input rows that are tried.
const COLUMNS: [usize; 4] = [1, 2, 7, 33];
/// What a cell holds that no kernel wrote: a NaN that arithmetic does not make.
const UNTOUCHED: f32 = f32::from_bits(0x7fab_cdef);

/// The first `rows` rows of a matrix, or all.
pub(super) fn first_rows<'a>(m: &Matrix<'a>, rows: usize) -> Matrix<'a> {
    let rows = rows.min(m.rows);
    let scales = m.scalar.scale_shape(rows, m.width).map_or(0, |[r, c]| r * c);
    let codes = rows * m.scalar.row_bytes(m.width);
    Matrix { rows, codes: &m.codes[..codes], scales: &m.scales[..scales], ..*m }
}

/// Whether a kernel answers what its twin answers.
///
/// # Errors
/// The first difference.
pub(super) fn passes(k: &ProductKernel, twin: &ProductKernel, stored: &[Matrix<'_>]) -> Result<(), String> {
    let mut random = Pcg64Mcg::seed_from_u64(3);
    for m in stored {
        compare(k, twin, m, &mut random)?;
        // The same extents with any bytes: extreme codes and scales, infinities, NaN.
        let mut any = |n: usize| -> Vec<u8> { (0..n).map(|_| random.next_u32() as u8).collect() };
        let (codes, scales) = (any(m.codes.len()), any(m.scales.len()));
        compare(k, twin, &Matrix { codes: &codes, scales: &scales, ..*m }, &mut random)?;
    }
    Ok(())
}

fn compare(
    k: &ProductKernel,
    twin: &ProductKernel,
    m: &Matrix<'_>,
    random: &mut Pcg64Mcg,
) -> Result<(), String> {
    let packed = packed(k.packing, m).ok_or_else(|| format!("its packing takes no {} rows", m.rows))?;
    for n in COLUMNS {
        let rows: Vec<Vec<u8>> = (0..n).map(|_| input(k, m.width, random)).collect();
        let expected = run(twin, m, &rows, m.rows);
        let as_read = Matrix { codes: packed.bytes(), scales: &[], ..*m };
        let as_read = if k.packing == Packing::Stored { m } else { &as_read };
        for split in [m.rows, k.granule.max(16).next_multiple_of(k.granule)] {
            let got = run(k, as_read, &rows, split);
            let differs = |(got, expected): (&f32, &f32)| bits(*got) != bits(*expected);
            if let Some(at) = got.iter().zip(&expected).position(differs) {
                let (row, column) = (at % m.rows, at / m.rows);
                let (expected, got) = (expected[at], got[at]);
                return Err(format!("row {row}, column {column} of {n}: expected {expected:e}, got {got:e}"));
            }
        }
    }
    Ok(())
}

/// A matrix as a packing has it.
pub(super) fn packed(packing: Packing, m: &Matrix<'_>) -> Option<Memory> {
    let bytes = packing.packed_bytes(m.scalar, m.rows, m.width)?;
    let mut memory = Memory::new(bytes as u64)?;
    packing.pack(m, 0..m.rows, &mut memory.bytes_mut()[..bytes]);
    Some(memory)
}

/// An input row as steps make them: numbers of mean 0 and variance 1, rounded to the type.
pub(super) fn input(k: &ProductKernel, width: usize, random: &mut Pcg64Mcg) -> Vec<u8> {
    let spread = 3f32.sqrt();
    let mut number = || ((random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0) * spread;
    let x: Vec<f32> = (0..width).map(|_| number()).collect();
    let mut row = vec![0; k.input.row_bytes(width)];
    encode_row(k.input, &x, &mut row);
    row
}

/// The rows as a kernel reads them: prepared, and the bytes from one to the next.
pub(super) fn prepared(k: &ProductKernel, width: usize, rows: &[Vec<u8>]) -> (Memory, usize) {
    let stride = (k.prepared_bytes)(width);
    let mut memory = Memory::new((stride * rows.len()) as u64).expect("memory for a few rows");
    for (row, out) in rows.iter().zip(memory.bytes_mut().chunks_exact_mut(stride)) {
        (k.prepare)(row, width, out);
    }
    (memory, stride)
}

/// `result[column][row]` of a matrix in jobs of `split` rows.
fn run(k: &ProductKernel, m: &Matrix<'_>, rows: &[Vec<u8>], split: usize) -> Vec<f32> {
    let (inputs, stride) = prepared(k, m.width, rows);
    let at = |i: usize| u32::try_from(i).expect("few columns");
    let columns: Vec<Column> = (0..rows.len()).map(|i| Column { input: at(i), result: at(i) }).collect();
    let mut out = vec![UNTOUCHED; rows.len() * m.rows];
    let mut scratch =
        Memory::new((k.scratch_bytes)(m.width, columns.len()) as u64).expect("memory for scratch");
    let cells = Cells::new(&mut out, m.rows);
    for from in (0..m.rows).step_by(split) {
        let rows = from..(from + split).min(m.rows);
        let job = Job { m: *m, rows, inputs: inputs.bytes(), stride, columns: &columns, out: &cells };
        (k.run)(&job, scratch.bytes_mut());
    }
    out
}

/// Bits of a number, one pattern for all NaN but that of cells that nobody wrote.
fn bits(x: f32) -> u32 {
    let nan = x.is_nan() && x.to_bits() != UNTOUCHED.to_bits();
    if nan { f32::NAN.to_bits() } else { x.to_bits() }
}

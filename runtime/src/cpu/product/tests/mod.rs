//! Every kernel against the scalar twin bit for bit, and the twin against `f64`.
mod cases;
mod twin;
mod variants;

use super::*;
use cases::{Bytes, Flavour, Inputs, Noise, Weight};

/// Runs a kernel on all rows in jobs of `split` rows; `result[column][row]`, NaN where nothing is written.
fn run(k: &ProductKernel, w: &Weight, x: &Inputs, columns: &[Column], split: usize) -> Vec<f32> {
    let width = w.width;
    let stride = (k.prepared_bytes)(width) + 64;
    let mut inputs = Bytes::new(stride * x.rows.len(), 0);
    for (row, out) in x.rows.iter().zip(inputs.chunks_exact_mut(stride)) {
        (k.prepare)(row, width, out);
    }
    let results = columns.iter().map(|c| c.result as usize + 1).max().unwrap_or(0);
    let mut out = vec![UNTOUCHED; results * w.rows];
    let cells = Cells::new(&mut out, w.rows);
    let packed = w.packed(k.packing);
    // Scratch starts anywhere and holds anything.
    let size = (k.scratch_bytes)(width, columns.len());
    let mut scratch = Bytes::new(size, 1);
    scratch.fill(0xa5);
    let split = split.next_multiple_of(k.granule);
    for from in (0..w.rows).step_by(split) {
        let rows = from..(from + split).min(w.rows);
        let m = w.matrix(&packed);
        let job = Job { m, rows, inputs: &inputs, stride, columns, out: &cells };
        (k.run)(&job, &mut scratch);
    }
    out
}

/// What a cell holds that no kernel wrote: a NaN that arithmetic does not make.
const UNTOUCHED: f32 = f32::from_bits(0x7fab_cdef);

/// Bits of a number, one pattern for all NaN but that of cells that nobody wrote.
fn bits(x: f32) -> u32 {
    let nan = x.is_nan() && x.to_bits() != UNTOUCHED.to_bits();
    if nan { f32::NAN.to_bits() } else { x.to_bits() }
}

/// Columns that read and write in some scattered order, never the first result row.
fn scattered(n: usize) -> Vec<Column> {
    let at = |i: usize| u32::try_from(i).expect("small");
    (0..n).map(|i| Column { input: at((i * 7 + 3) % n), result: at(n - i) }).collect()
}

#[test]
fn every_pair_of_types_has_a_kernel() {
    for weight in cases::WEIGHTS {
        for input in cases::INPUTS {
            let k = choose(weight, Packing::Stored, input);
            assert!(isas().contains(&k.isa));
            let twin = cases::twin(weight, input);
            assert_eq!((twin.weight, twin.input, twin.isa), (weight, input, Isa::Scalar));
        }
    }
}

#[test]
fn packings_keep_every_bit() {
    let mut noise = Noise(3);
    for (packing, scalar) in [
        (Packing::IndexSigns, Scalar::Iq2Xxs),
        (Packing::SignPlanes, Scalar::Iq2Xxs),
        (Packing::Transposed, Scalar::Q2K),
    ] {
        let w = Weight::new(scalar, 64, 768, Flavour::Any, &mut noise);
        let mut back = vec![0; w.stored().codes.len()];
        packing.unpack(&w.packed(packing), 768, &mut back);
        assert!(back == w.stored().codes, "{}", packing.name());
        assert_eq!(packing.packed_bytes(scalar, 64, 300), None);
        assert_eq!(packing.packed_bytes(Scalar::F32, 64, 768), None);
    }
}

#[test]
fn packings_have_names() {
    for k in kernels() {
        assert_eq!(Packing::parse(k.packing.name()), Some(k.packing), "{}", k.name);
        assert_eq!(k.granule % k.packing.granule(), 0, "{}", k.name);
    }
    assert_eq!(Packing::parse("Stored"), None);
}

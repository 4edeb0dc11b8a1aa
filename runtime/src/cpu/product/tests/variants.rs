//! Every kernel that this machine runs against the scalar twin, bit for bit.
use super::*;

/// Widths that a kernel meets: whole blocks, odd numbers of them, short last ones.
fn widths(k: &ProductKernel) -> &'static [usize] {
    match (k.weight, k.input) {
        (Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs, Scalar::Q8K) => &[256, 512, 768, 1280, 2048, 4096, 300],
        (Scalar::Q8_0 | Scalar::Mxfp4 | Scalar::Fp4, Scalar::Q8_0) => {
            &[32, 64, 96, 224, 256, 544, 1024, 2080, 40, 512, 1536, 8704]
        }
        (Scalar::F32 | Scalar::F16 | Scalar::Bf16 | Scalar::Fp8, Scalar::F32) => {
            &[8, 16, 24, 64, 136, 256, 520, 1032, 2056, 7, 13, 300]
        }
        // The products of decoded rows are those of f32.
        _ => &[520, 13],
    }
}

#[test]
fn variants_equal_the_twin() {
    let mut noise = Noise(2);
    let mut compared = 0;
    for k in kernels().filter(|k| k.isa != Isa::Scalar && isas().contains(&k.isa)) {
        for (i, width) in widths(k).iter().enumerate() {
            for (j, flavour) in cases::FLAVOURS.into_iter().enumerate() {
                let rows = [37, 16, 1, 64][(i + j) % 4];
                compared += usize::from(compare(k, rows, *width, flavour, &mut noise));
            }
        }
    }
    println!("{compared} cases on {:?}", isas());
    assert!(compared > 0 || isas() == [Isa::Scalar], "nothing was compared");
}

#[test]
fn scratch_for_many_columns_is_enough_for_few() {
    for k in kernels() {
        for width in widths(k) {
            let bytes = |columns| (k.scratch_bytes)(*width, columns);
            let grows = (2..64).all(|columns| bytes(columns - 1) <= bytes(columns));
            assert!(grows, "{} ({:?}) {} of width {width}", k.name, k.isa, k.weight);
        }
    }
}

/// Whether the packing takes such a matrix.
fn compare(k: &ProductKernel, rows: usize, width: usize, flavour: Flavour, noise: &mut Noise) -> bool {
    let rows = rows.next_multiple_of(k.packing.granule());
    if k.packing.packed_bytes(k.weight, rows, width).is_none() {
        return false;
    }
    let w = Weight::new(k.weight, rows, width, flavour, noise);
    for n in [1, 2, 3, 4, 5, 8, 12, 13, 19, 33] {
        let x = Inputs::new(k.input, n, width, flavour, noise);
        let columns = scattered(n);
        let expected = run(cases::twin(k.weight, k.input), &w, &x, &columns, rows);
        for split in [rows, 16] {
            let got = run(k, &w, &x, &columns, split);
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let (row, column) = (at % rows, at / rows);
                assert!(
                    bits(*got) == bits(*expected),
                    "{} ({:?}, {}) {} times {}, [{rows}, {width}], {n} columns, {flavour:?}, split {split}: \
                     row {row}, result {column}: expected {expected:e}, got {got:e}",
                    k.name,
                    k.isa,
                    k.packing.name(),
                    k.weight,
                    k.input
                );
            }
        }
    }
    true
}

//! The scalar kernels against the decoded numbers multiplied in `f64`.
use super::*;
use ds4_ir::formats::decode_row;

/// Relative to the sum of magnitudes: 2^-24 for each of at most `width` roundings would be the bound;
/// the integer products round twice per block.
const TOLERANCE: f64 = 2e-6;

#[test]
fn scalar_kernels_multiply() {
    let mut noise = Noise(1);
    for weight in cases::WEIGHTS {
        for input in cases::INPUTS {
            for width in [1, 8, 40, 256, 300, 770] {
                for flavour in [Flavour::Tame, Flavour::Largest] {
                    let w = Weight::new(weight, 5, width, flavour, &mut noise);
                    let x = Inputs::new(input, 4, width, flavour, &mut noise);
                    let what = format!("{weight} times {input}, width {width}, {flavour:?}");
                    check(cases::twin(weight, input), &w, &x, &what);
                }
            }
        }
    }
}

fn check(k: &ProductKernel, w: &Weight, x: &Inputs, what: &str) {
    let columns = scattered(x.rows.len());
    let results = run(k, w, x, &columns, w.rows);
    assert!(results[..w.rows].iter().all(|x| x.to_bits() == UNTOUCHED.to_bits()), "{what}: row 0 is written");
    for column in &columns {
        let mut input = vec![0.0f64; w.width];
        decode_row(x.scalar, &x.rows[column.input as usize], &mut input);
        for row in 0..w.rows {
            let mut weights = vec![0.0f64; w.width];
            w.stored().read_row(row, &mut weights);
            let products = || weights.iter().zip(&input).map(|(w, x)| w * x);
            let (sum, magnitude) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
            let got = f64::from(results[column.result as usize * w.rows + row]);
            // Minimums cancel against products: the bound is that of both.
            let bound = TOLERANCE * (magnitude + spread(&w.stored(), row, &input));
            assert!((got - sum).abs() <= bound, "{what}: row {row}: expected {sum:e}, got {got:e}");
        }
    }
}

/// The sum of magnitudes of the minimums that a row subtracts.
fn spread(m: &Matrix<'_>, row: usize, x: &[f64]) -> f64 {
    let size = m.scalar.row_bytes(256);
    let largest = |dmin: [u8; 2], min: f32| {
        f64::from(ds4_ir::formats::f16_to_f32(u16::from_le_bytes(dmin)).abs() * min)
    };
    let min = |block: &[u8]| match m.scalar {
        Scalar::Q4K => largest([block[2], block[3]], 63.0),
        Scalar::Q2K => largest([block[82], block[83]], 15.0),
        _ => 0.0,
    };
    let blocks = m.row(row).chunks(size).zip(x.chunks(256));
    blocks.map(|(block, x)| 2.0 * min(block) * x.iter().map(|x| x.abs()).sum::<f64>()).sum()
}

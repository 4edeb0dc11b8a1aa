//! Whole rows at their edges: short blocks, padding, values that are no numbers, the transform.
use ds4_ir::formats::{decode_fp4_row, decode_fp8_row, decode_row, encode_row, hadamard};
use ds4_ir::{Real, Scalar};

const BLOCKS: [Scalar; 6] =
    [Scalar::Q8_0, Scalar::Q8K, Scalar::Q4K, Scalar::Q2K, Scalar::Iq2Xxs, Scalar::Mxfp4];
const ENCODED: [Scalar; 8] = [
    Scalar::F32,
    Scalar::F16,
    Scalar::Bf16,
    Scalar::Kv8 { rope: 6 },
    Scalar::Idx4,
    Scalar::E4m3x128,
    Scalar::Q8K,
    Scalar::Q8_0,
];

fn decoded<F: Real>(scalar: Scalar, row: &[u8], width: usize) -> Vec<F> {
    let mut out = vec![F::ZERO; width];
    decode_row(scalar, row, &mut out);
    out
}

fn encoded<F: Real>(scalar: Scalar, x: &[F]) -> Vec<u8> {
    let mut row = vec![0xa5; scalar.row_bytes(x.len())];
    encode_row(scalar, x, &mut row);
    row
}

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7).sin() * (1.0 + i as f32)).collect()
}

#[test]
fn a_short_row_is_the_front_of_a_long_one() {
    for scalar in BLOCKS {
        let block = scalar.block();
        let row: Vec<u8> = (0..scalar.row_bytes(2 * block)).map(|i| (i * 37 % 59) as u8).collect();
        let whole = decoded::<f32>(scalar, &row, 2 * block);
        assert!(whole.iter().any(|x| *x != 0.0), "{scalar}");
        for width in [block + 1, block + 7, 2 * block - 1] {
            assert_eq!(decoded::<f32>(scalar, &row, width), whole[..width], "{scalar}[{width}]");
        }
        let one = &row[..scalar.row_bytes(1)];
        assert_eq!(decoded::<f32>(scalar, one, 1), whole[..1], "{scalar}");
    }
}

#[test]
fn a_short_block_is_padded_with_zeros() {
    for (scalar, width, whole) in [(Scalar::Q8_0, 40, 64), (Scalar::Q8K, 300, 512)] {
        let mut x = wave(width);
        let short = encoded(scalar, &x);
        x.resize(whole, 0.0);
        assert_eq!(short, encoded(scalar, &x), "{scalar}");
    }
}

#[test]
fn scaled_rows_are_laid_out_as_drawn() {
    // Powers of two are codes of their own, so the bytes can be read off.
    let mut x = vec![1.0_f32; 71];
    x[64] = 448.0;
    x[65..].fill(-2.0);
    let row = encoded(Scalar::Kv8 { rope: 6 }, &x);
    // 1/448 needs the scale 2^-8; 256 is code 0x78.
    assert_eq!(row.len(), 80);
    assert_eq!(row[..64], [0x78; 64]);
    assert_eq!(row[64], 0x7e);
    assert_eq!(row[65..77], [0x00, 0xc0].repeat(6));
    assert_eq!(row[77..], [119, 127, 0]);

    let row = encoded(Scalar::Idx4, &[0.5_f32, 6.0, -1.0, 3.0, -6.0]);
    assert_eq!(row, [0x71, 0x5a, 0x0f, 127]);

    let mut x = vec![448.0_f32; 129];
    x[128] = -7.0;
    let row = encoded(Scalar::E4m3x128, &x);
    assert_eq!(row[..128], [0x7e; 128]);
    assert_eq!(row[128..], [0xfe, 127, 121, 0]);
}

#[test]
fn q8_k_keeps_the_sums_of_its_codes() {
    let row = encoded(Scalar::Q8K, &wave(256));
    let codes: Vec<i8> = row[4..260].iter().map(|q| *q as i8).collect();
    assert!(codes.contains(&-127), "the extreme element has the code -127");
    for (codes, sum) in codes.chunks(16).zip(row[260..].as_chunks().0) {
        let expected: i32 = codes.iter().map(|q| i32::from(*q)).sum();
        assert_eq!(i32::from(i16::from_le_bytes(*sum)), expected);
    }
}

#[test]
fn the_first_of_two_extremes_gives_the_scale_of_q8_k() {
    let row = encoded(Scalar::Q8K, &[0.5_f32, 1.0, -1.0]);
    assert_eq!(row[..4], (-1.0_f32 / 127.0).to_le_bytes());
    // -63.5 is a tie.
    assert_eq!(row[4..8].iter().map(|q| *q as i8).collect::<Vec<_>>(), [-64, -127, 127, 0]);
    assert_eq!(row[260..262], (-64_i16).to_le_bytes());
}

#[test]
fn nothing_but_the_group_of_a_nan_is_lost() {
    for scalar in ENCODED {
        let group = match scalar {
            Scalar::Kv8 { .. } => 64,
            Scalar::Idx4 | Scalar::Q8_0 => 32,
            Scalar::E4m3x128 => 128,
            Scalar::Q8K => 256,
            _ => 1,
        };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut x, at) = (wave(600), group + group / 2);
            let clean = decoded::<f32>(scalar, &encoded(scalar, &x), x.len());
            x[at] = bad;
            let got = decoded::<f32>(scalar, &encoded(scalar, &x), x.len());
            let lost = at / group * group..(at / group + 1) * group;
            for (i, (got, clean)) in got.iter().zip(&clean).enumerate() {
                if !lost.contains(&i) {
                    assert_eq!(got, clean, "{scalar}: element {i}");
                } else if group == 1 {
                    assert_eq!(got.to_bits(), bad.to_bits(), "{scalar}");
                } else {
                    assert!(got.is_nan(), "{scalar}: element {i}: {got}");
                }
            }
        }
    }
}

#[test]
fn scales_that_are_out_of_range_are_defined() {
    // d = 1e-6/127 is less than half of the smallest f16.
    let row = encoded(Scalar::Q8_0, &[1e-6_f32; 32]);
    assert_eq!(row, [0; 34]);
    let row = encoded(Scalar::Q8_0, &[1e7_f32; 32]);
    assert!(decoded::<f32>(Scalar::Q8_0, &row, 32).iter().all(|x| x.is_nan()));
    // A subnormal d rounds down by up to a third of the value, and the codes stop at 127.
    let row = encoded(Scalar::Q8_0, &[1.4_f32, -1.4].map(|x| x * 127.0 * 2f32.powi(-24)));
    assert_eq!(row[..4], [1, 0, 127, -127_i8 as u8]);
    let row = encoded(Scalar::Q8K, &[1e-38_f32; 256]);
    assert_eq!(row, [0; 292]);

    let mut out = [0.0_f64; 2];
    decode_fp8_row(&[0x38, 0x7f], &[255], &mut out);
    assert!(out.iter().all(|x| x.is_nan()));
    decode_fp8_row(&[0x38, 0x7f], &[0], &mut out);
    assert!(out[0] == 2f64.powi(-127) && out[1].is_nan());
    decode_fp4_row(&[0x72], &[255], &mut out);
    assert!(out.iter().all(|x| x.is_nan()));
    // The range of f32 does not bound the numbers in double precision.
    decode_fp4_row(&[0x72], &[254], &mut out);
    assert_eq!(out, [2f64.powi(127), 6.0 * 2f64.powi(127)]);
}

#[test]
fn decoding_never_panics_on_bytes() {
    let mut bits = 1_u32;
    let mut bytes = |n: usize| -> Vec<u8> {
        let next = |bits: &mut u32| {
            *bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*bits >> 24) as u8
        };
        (0..n).map(|_| next(&mut bits)).collect()
    };
    for scalar in ENCODED.into_iter().chain(BLOCKS) {
        for width in (6..70).chain([255, 256, 257, 513]) {
            let row = bytes(scalar.row_bytes(width));
            decoded::<f32>(scalar, &row, width);
            decoded::<f64>(scalar, &row, width);
            decoded::<f32>(scalar, &vec![0xff; row.len()], width);
            let x: Vec<f32> = bytes(4 * width).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            if ENCODED.contains(&scalar) {
                encoded(scalar, &x);
            }
        }
        decoded::<f32>(scalar, &vec![0; scalar.row_bytes(6)], 6);
    }
}

#[test]
fn empty_rows_are_rows() {
    for scalar in [Scalar::F32, Scalar::Kv8 { rope: 0 }, Scalar::Idx4, Scalar::Q8K, Scalar::Q8_0] {
        assert_eq!(encoded::<f32>(scalar, &[]).len(), 0, "{scalar}");
        decoded::<f32>(scalar, &[], 0);
    }
}

#[test]
#[should_panic(expected = "q8_0[33]: a row has 68 bytes, got 34")]
fn a_row_of_another_length_is_a_bug() {
    decode_row(Scalar::Q8_0, &[0; 34], &mut [0.0_f32; 33]);
}

#[test]
#[should_panic(expected = "fp8: a row of it alone does not hold real numbers")]
fn a_row_without_its_scales_is_a_bug() {
    decode_row(Scalar::Fp8, &[0; 4], &mut [0.0_f32; 4]);
}

#[test]
#[should_panic(expected = "q4_k: nothing is ever encoded in this type")]
fn encoding_weights_is_a_bug() {
    encode_row(Scalar::Q4K, &[0.0_f32; 256], &mut [0; 144]);
}

#[test]
fn hadamard_multiplies_by_the_sylvester_matrix() {
    let x: Vec<f64> = wave(16).iter().map(|x| f64::from(*x)).collect();
    let mut y = x.clone();
    hadamard(&mut y);
    for (i, y) in y.iter().enumerate() {
        let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        let expected = x.iter().enumerate().map(|(j, x)| sign(j) * x).sum::<f64>() / 4.0;
        assert!((y - expected).abs() < 1e-14, "row {i}: expected {expected}, got {y}");
    }
}

#[test]
fn hadamard_is_its_own_inverse() {
    for n in [1, 2, 8, 128, 512] {
        let x: Vec<f64> = wave(n).iter().map(|x| f64::from(*x)).collect();
        let mut y = x.clone();
        hadamard(&mut y);
        assert!(n == 1 || y != x);
        hadamard(&mut y);
        let worst = x.iter().zip(&y).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-12 * n as f64, "{n}: {worst:e}");
    }
}

#[test]
#[should_panic(expected = "hadamard: expected a power of two, got 96 channels")]
fn hadamard_of_another_length_is_a_bug() {
    hadamard(&mut [0.0_f32; 96]);
}

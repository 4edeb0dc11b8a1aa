//! Rows of numbers in the formats of activations and states: the bytes of
//! [`ds4_ir::formats::encode_row`], in loops that vectorise.
use super::product::Isa;
use super::simd::versions;
use ds4_ir::formats::{
    self, e8m0_to_f32, f16_to_f32, f32_to_bf16, f32_to_e2m1, f32_to_e4m3, f32_to_f16, pow2_ceil,
};
use ds4_ir::{E4M3_GROUP, IDX4_GROUP, KV8_GROUP, Scalar};

/// Encodes one row; `row` has the bytes of the row and is overwritten whole.
pub(super) fn encode(isa: Isa, scalar: Scalar, x: &[f32], row: &mut [u8]) {
    assert!(row.len() == scalar.row_bytes(x.len()), "{} bytes for {scalar}[{}]", row.len(), x.len());
    match scalar {
        Scalar::Kv8 { rope } => kv8(isa, x, usize::from(rope), row),
        Scalar::E4m3x128 => e4m3x128(isa, x, row),
        Scalar::Idx4 if x.len().is_multiple_of(IDX4_GROUP) => idx4(isa, x, row),
        Scalar::Q8_0 if x.len().is_multiple_of(32) => q8_0(isa, x, row),
        Scalar::Q8K if x.len().is_multiple_of(256) => q8_k(isa, x, row),
        _ => formats::encode_row(scalar, x, row),
    }
}

/// The largest magnitude, or `None` if a value is NaN or infinite.
#[inline(always)]
fn finite_amax(x: &[f32]) -> Option<f32> {
    // The bits of magnitudes order like the magnitudes, and NaN lies above infinity.
    let mut tops = [0u32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (top, x) in tops.iter_mut().zip(chunk) {
            *top = (*top).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let top = tops.into_iter().chain(rest.iter().map(|x| x.to_bits() & 0x7fff_ffff)).max().unwrap_or(0);
    let amax = f32::from_bits(top);
    amax.is_finite().then_some(amax)
}

/// Codes under power-of-two scales; `codes_of` encodes a group at its scale.
#[inline(always)]
fn scaled(
    x: &[f32],
    group: usize,
    (amax_min, max_inverse): (f32, f32),
    scales: &mut [u8],
    mut codes_of: impl FnMut(usize, &[f32], f32),
) {
    scales.fill(0);
    for ((at, x), scale_code) in x.chunks(group).enumerate().zip(scales) {
        match finite_amax(x) {
            None => {
                // A group that holds a NaN or an infinity decodes to NaN.
                *scale_code = 255;
                codes_of(at, &[0.0; E4M3_GROUP][..x.len()], 1.0);
            }
            Some(amax) => {
                *scale_code = pow2_ceil(amax.max(amax_min) * max_inverse);
                codes_of(at, x, e8m0_to_f32(*scale_code));
            }
        }
    }
}

/// Least magnitude that a scale is chosen for, and 1 / the largest code value.
const E4M3: (f32, f32) = (1e-4, (1.0 / 448.0_f64) as f32);
const E2M1: (f32, f32) = (6.0 * f32::MIN_POSITIVE, (1.0 / 6.0_f64) as f32);

#[inline(always)]
fn e4m3(x: &[f32], group: usize, codes: &mut [u8], scales: &mut [u8]) {
    scaled(x, group, E4M3, scales, |at, x, scale| {
        for (code, x) in codes[at * group..].iter_mut().zip(x) {
            *code = f32_to_e4m3(*x / scale);
        }
    });
}

versions! {
    fn kv8<V>(x: &[f32], rope: usize, row: &mut [u8]) {
        let (x, rotary) = x.split_at(x.len() - rope);
        let (codes, rest) = row.split_at_mut(x.len());
        let (halves, scales) = rest.split_at_mut(2 * rope);
        e4m3(x, KV8_GROUP, codes, scales);
        for (half, x) in halves.as_chunks_mut::<2>().0.iter_mut().zip(rotary) {
            *half = f32_to_bf16(*x).to_le_bytes();
        }
    }
}

versions! {
    fn e4m3x128<V>(x: &[f32], row: &mut [u8]) {
        let (codes, scales) = row.split_at_mut(x.len());
        e4m3(x, E4M3_GROUP, codes, scales);
    }
}

versions! {
    fn idx4<V>(x: &[f32], row: &mut [u8]) {
        let (codes, scales) = row.split_at_mut(x.len() / 2);
        scaled(x, IDX4_GROUP, E2M1, scales, |at, x, scale| {
            let mut nibbles = [0u8; IDX4_GROUP];
            for (nibble, x) in nibbles.iter_mut().zip(x) {
                *nibble = f32_to_e2m1(*x / scale);
            }
            let codes = &mut codes[at * IDX4_GROUP / 2..][..IDX4_GROUP / 2];
            for (code, [even, odd]) in codes.iter_mut().zip(nibbles.as_chunks::<2>().0) {
                *code = even | odd << 4;
            }
        });
    }
}

/// Nearest integer, ties to even, clamped to -128 … 127; `x` is not NaN.
#[inline(always)]
fn round_to_i8(x: f32) -> i8 {
    // In [2^23, 2^24) floats are the integers, so the addition rounds.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x.clamp(-128.0, 127.0) + SHIFT;
    (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32) as i8
}

versions! {
    /// As `encode_q8_0` of the formats.
    fn q8_0<V>(x: &[f32], row: &mut [u8]) {
        for (x, block) in x.as_chunks::<32>().0.iter().zip(row.as_chunks_mut::<34>().0) {
            let d_code = f32_to_f16(finite_amax(x).map_or(f32::NAN, |amax| amax / 127.0));
            let d = f16_to_f32(d_code);
            let (d_bytes, codes) = block.split_at_mut(2);
            d_bytes.copy_from_slice(&d_code.to_le_bytes());
            if d.is_normal() {
                for (x, q) in x.iter().zip(codes) {
                    *q = round_to_i8((*x / d).max(-127.0)) as u8;
                }
            } else {
                codes.fill(0);
            }
        }
    }
}

versions! {
    /// As `encode_q8_k` of the formats.
    fn q8_k<V>(x: &[f32], row: &mut [u8]) {
        for (x, block) in x.as_chunks::<256>().0.iter().zip(row.as_chunks_mut::<292>().0) {
            block.fill(0);
            let (d_bytes, rest) = block.split_at_mut(4);
            let (codes, sums) = rest.split_at_mut(256);
            let Some(amax) = finite_amax(x) else {
                d_bytes.copy_from_slice(&f32::NAN.to_le_bytes());
                continue;
            };
            // The first of the largest magnitude: whole vectors without one are passed over.
            let holds = |x: &&[f32; 16]| x.iter().fold(false, |held, x| held | (x.abs() == amax));
            let near = x.as_chunks::<16>().0.iter().find(holds).expect("the largest magnitude is one of them");
            let extreme = near.iter().find(|x| x.abs() == amax).expect("it is one of these");
            let d_inverse = -127.0 / extreme;
            if d_inverse.is_infinite() {
                continue;
            }
            d_bytes.copy_from_slice(&(1.0 / d_inverse).to_le_bytes());
            for (x, q) in x.iter().zip(&mut *codes) {
                *q = round_to_i8(d_inverse * *x) as u8;
            }
            for (codes, sum) in codes.as_chunks::<16>().0.iter().zip(sums.as_chunks_mut::<2>().0) {
                let mut total = 0i16;
                for q in codes {
                    total += i16::from(*q as i8);
                }
                *sum = total.to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::case::noise;
    use crate::cpu::product::isas;

    #[test]
    fn bytes_are_those_of_the_formats() {
        let scalars = [
            Scalar::Kv8 { rope: 64 },
            Scalar::Kv8 { rope: 2 },
            Scalar::E4m3x128,
            Scalar::Idx4,
            Scalar::Q8_0,
            Scalar::Q8K,
            Scalar::Bf16,
            Scalar::F16,
            Scalar::F32,
        ];
        let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::MAX, -f32::MIN_POSITIVE, 1e-45, -448.0];
        let mut seed = 11;
        for (case, scalar) in (0..40).flat_map(|c| scalars.map(|s| (c, s))) {
            for width in [64, 66, 128, 256, 300, 512] {
                let size = 10.0_f32.powf(noise(&mut seed) * if case % 2 == 0 { 2.0 } else { 37.0 });
                let mut x: Vec<f32> = (0..width).map(|_| noise(&mut seed) * size).collect();
                if case % 4 == 3 {
                    x[width / 3] = special[case / 4 % special.len()];
                }
                if case % 8 == 5 {
                    // Halves between codes, and several of the largest magnitude.
                    x.iter_mut().for_each(|x| *x = (*x / size * 9.0).round() / 2.0);
                }
                let mut expected = vec![0x55; scalar.row_bytes(width)];
                formats::encode_row(scalar, &x, &mut expected);
                for isa in isas() {
                    let mut got = vec![0xaa; expected.len()];
                    encode(*isa, scalar, &x, &mut got);
                    assert_eq!(got, expected, "{scalar}[{width}] on {isa:?}, case {case}");
                }
            }
        }
    }
}

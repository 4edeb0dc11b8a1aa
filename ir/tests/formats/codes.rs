//! Single codes: all of them decoded by their definition, and rounding judged by brute force.
use ds4_ir::formats::*;

/// Value of a code by its definition (spec 4.4): `e` exponent bits, `m` mantissa bits.
fn definition(code: u32, e: u32, m: u32) -> f64 {
    let bias = (1 << (e - 1)) - 1;
    let (exponent, mantissa) = ((code >> m & ((1 << e) - 1)) as i32, f64::from(code & ((1 << m) - 1)));
    let fraction = mantissa / f64::from(1 << m);
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(1 - bias),
        _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
    };
    if code >> (e + m) & 1 == 1 { -magnitude } else { magnitude }
}

fn assert_is(code: u32, got: f32, expected: f64) {
    assert_eq!(f64::from(got), expected, "code {code:#x}");
    assert_eq!(got.is_sign_negative(), expected.is_sign_negative(), "code {code:#x}");
}

#[test]
fn every_f16_decodes_by_definition_and_back() {
    for code in 0..=u16::MAX {
        let x = f16_to_f32(code);
        match code & 0x7fff {
            0x7c00 => assert_eq!(x, if code == 0x7c00 { f32::INFINITY } else { f32::NEG_INFINITY }),
            0x7c01.. => assert!(x.is_nan() && x.is_sign_negative() == (code > 0x7fff), "code {code:#x}"),
            _ => assert_is(code.into(), x, definition(code.into(), 5, 10)),
        }
        assert_eq!(f32_to_f16(x), code);
    }
}

#[test]
fn every_bf16_decodes_by_definition_and_back() {
    for code in 0..=u16::MAX {
        let x = bf16_to_f32(code);
        match code & 0x7fff {
            0x7f80 => assert_eq!(x, if code == 0x7f80 { f32::INFINITY } else { f32::NEG_INFINITY }),
            0x7f81.. => assert!(x.is_nan() && x.is_sign_negative() == (code > 0x7fff), "code {code:#x}"),
            _ => assert_is(code.into(), x, definition(code.into(), 8, 7)),
        }
        assert_eq!(f32_to_bf16(x), code);
    }
}

#[test]
fn every_small_code_decodes_by_definition_and_back() {
    for code in 0..=u8::MAX {
        let x = e4m3_to_f32(code);
        if code & 0x7f == 0x7f {
            assert!(x.is_nan());
        } else {
            assert_is(code.into(), x, definition(code.into(), 4, 3));
        }
        assert_eq!(f32_to_e4m3(x), code);

        // Only the low four bits count.
        let y = e2m1_to_f32(code);
        assert_is(code.into(), y, definition(u32::from(code) & 15, 2, 1));
        assert_eq!(f32_to_e2m1(y), code & 15);

        let scale = e8m0_to_f32(code);
        match code {
            255 => assert!(scale.is_nan()),
            _ => assert_is(code.into(), scale, 2f64.powi(i32::from(code) - 127)),
        }
    }
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(e2m1_to_f32), [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
    assert_eq!(e4m3_to_f32(0x7e), 448.0);
}

/// Nearest of `n` ascending codes by trying all of them, ties to the even one.
fn brute_force(x: f32, n: u8, decode: fn(u8) -> f32) -> u8 {
    // Saturated first: far away, all distances round to the same number.
    let x = x.abs().min(decode(n - 1));
    let distance = |code: &u8| (f64::from(decode(*code)) - f64::from(x)).abs();
    let mut codes: Vec<u8> = (0..n).collect();
    codes.sort_by(|a, b| distance(a).total_cmp(&distance(b)).then((a % 2).cmp(&(b % 2))));
    codes[0]
}

/// Middles of neighbouring codes, the floats beside them, and floats of every exponent.
fn probes(n: u8, decode: fn(u8) -> f32) -> Vec<f32> {
    let mut probes: Vec<f32> = (1..n)
        .map(|code| (decode(code - 1) + decode(code)) / 2.0)
        .flat_map(|middle| [middle.next_down(), middle, middle.next_up()])
        .collect();
    let mut bits = 0x1234_5678_u32;
    for exponent in 0..255 {
        for _ in 0..8 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            probes.push(f32::from_bits(exponent << 23 | bits >> 9));
        }
    }
    probes
}

#[test]
fn e4m3_and_e2m1_round_like_a_search() {
    for x in probes(127, e4m3_to_f32) {
        let expected = brute_force(x, 127, e4m3_to_f32);
        assert_eq!(f32_to_e4m3(x), expected, "{x:e}");
        assert_eq!(f32_to_e4m3(-x), expected | 0x80, "-{x:e}");
    }
    for x in probes(8, e2m1_to_f32) {
        let expected = brute_force(x, 8, e2m1_to_f32);
        assert_eq!(f32_to_e2m1(x), expected, "{x:e}");
        assert_eq!(f32_to_e2m1(-x), expected | 8, "-{x:e}");
    }
}

/// Between any two neighbours: the middle goes to the even one, the floats beside it to the nearer.
fn assert_rounds_to_nearest_even(top: u16, decode: fn(u16) -> f32, encode: fn(f32) -> u16) {
    for low in 0..top {
        let high = low + 1;
        let middle = ((f64::from(decode(low)) + f64::from(decode(high))) / 2.0) as f32;
        let even = if low % 2 == 0 { low } else { high };
        for (x, code) in [(middle, even), (middle.next_down(), low), (middle.next_up(), high)] {
            assert_eq!(encode(x), code, "{x:e}");
            assert_eq!(encode(-x), code | 0x8000, "-{x:e}");
        }
    }
}

#[test]
fn f16_and_bf16_round_to_nearest_even() {
    assert_rounds_to_nearest_even(0x7bff, f16_to_f32, f32_to_f16);
    assert_rounds_to_nearest_even(0x7f7f, bf16_to_f32, f32_to_bf16);
}

#[test]
fn what_is_too_large_or_no_number_is_defined() {
    assert_eq!(f32_to_f16(65520f32.next_down()), 0x7bff);
    assert_eq!([65520.0, 65536.0, 1e9, f32::MAX, f32::INFINITY].map(f32_to_f16), [0x7c00; 5]);
    assert_eq!(f32_to_bf16(f32::MAX), 0x7f80);
    for x in [449.0, 464.0, 480.0, 1e9, f32::MAX, f32::INFINITY] {
        assert_eq!((f32_to_e4m3(x), f32_to_e4m3(-x)), (0x7e, 0xfe), "{x:e}");
        assert_eq!((f32_to_e2m1(x), f32_to_e2m1(-x)), (7, 15), "{x:e}");
    }
    // A NaN whose payload lies in the dropped bits only must not become infinity.
    for nan in [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0x7fff_ffff)] {
        assert!(f16_to_f32(f32_to_f16(nan)).is_nan());
        assert!(bf16_to_f32(f32_to_bf16(nan)).is_nan());
        assert_eq!((f32_to_e4m3(nan), f32_to_e4m3(-nan)), (0x7f, 0xff));
        assert_eq!((f32_to_e2m1(nan), f32_to_e2m1(-nan)), (7, 15));
    }
}

#[test]
fn pow2_ceil_is_the_smallest_power_that_is_not_smaller() {
    for code in 1..=254_u8 {
        let power = e8m0_to_f32(code);
        assert_eq!(pow2_ceil(power), code);
        assert_eq!(pow2_ceil(power * 1.5), code + 1);
        assert_eq!(pow2_ceil(power.next_up()), code + 1);
        if code > 1 {
            assert_eq!(pow2_ceil(power.next_down()), code);
        }
    }
}

#[test]
fn iq2_xxs_tables_have_their_properties() {
    // Ascending in base 3, so all entries differ; magnitudes are the three allowed ones.
    let digits = |entry: &[u8; 8]| entry.iter().rev().map(|m| m / 17).collect::<Vec<u8>>();
    assert!(IQ2XXS_GRID.is_sorted_by(|a, b| digits(a) < digits(b)));
    assert!(IQ2XXS_GRID.iter().flatten().all(|m| [8, 25, 43].contains(m)));
    for code in 0..128 {
        let signs = iq2xxs_signs(code);
        assert_eq!(signs & 0x7f, code);
        assert_eq!(signs.count_ones() % 2, 0);
    }
}

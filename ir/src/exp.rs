//! The exponential function of single precision, in one fixed sequence of operations.
//!
//! Math libraries differ in their last bits; this gives the same bits on every machine, and loops over
//! it vectorise, so that a kernel's exponentials equal the interpreter's.

/// 1 / ln 2.
const LOG2_E: f64 = std::f64::consts::LOG2_E;
/// Added and subtracted, it rounds to an integer, which then stands in the low bits.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// 1 / n!
const TERMS: [f64; 10] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
];

/// eˣ, at most 0.501 units in the last place away; 0 below -104, ∞ above 89, NaN for NaN.
///
/// With n the integer nearest to x / ln 2 and r = x - n·ln 2, the Taylor polynomial of degree 9 at r
/// times 2ⁿ in binary64, where it is off by less than 2⁻³⁶ of its value, rounded once.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // `clamp` keeps NaN; within these bounds the exponent of the binary64 result never leaves its range.
    let x = f64::from(x.clamp(-104.0, 89.0));
    let shifted = x * LOG2_E + SHIFT;
    let r = x - (shifted - SHIFT) * std::f64::consts::LN_2;
    let [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9] = TERMS;
    let r2 = r * r;
    let r4 = r2 * r2;
    let low = (c0 + c1 * r) + (c2 + c3 * r) * r2;
    let high = (c4 + c5 * r) + (c6 + c7 * r) * r2;
    let p = (low + high * r4) + (c8 + c9 * r) * (r4 * r4);
    // The low twelve bits of a NaN that was an f32 are zero: it stays one.
    f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52)) as f32
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn is_the_nearest_float_or_its_neighbour() {
        let mut worst = 0.0_f64;
        for i in 0..4_000_000_u32 {
            let x = -104.5 + i as f32 * (194.0 / 4e6);
            let (got, exact) = (exp(x), f64::from(x).exp());
            if exact > f64::from(f32::MAX) {
                assert!(got == f32::INFINITY || got == f32::MAX, "exp({x}) = {got}");
                continue;
            }
            let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            worst = worst.max((f64::from(got) - exact).abs() / ulp.max(1e-45));
        }
        assert!(worst < 0.501, "{worst} units in the last place");
    }

    #[test]
    fn ends_are_exact() {
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!((exp(f32::NEG_INFINITY), exp(-104.0), exp(-3e38)), (0.0, 0.0, 0.0));
        assert_eq!((exp(f32::INFINITY), exp(89.0), exp(3e38)), (f32::INFINITY, f32::INFINITY, f32::INFINITY));
        assert!(exp(88.72).is_finite() && exp(-103.0) > 0.0);
        for bits in [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff_u32] {
            assert!(exp(f32::from_bits(bits)).is_nan(), "{bits:#x}");
        }
    }
}

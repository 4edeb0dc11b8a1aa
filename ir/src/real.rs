//! The two precisions the interpreter runs in.
use crate::ops::{Body, Op};
use crate::view::Frame;
use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// `f32` or `f64`: the type in which the interpreter keeps real values.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
    + Send
    + Sync
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// -∞.
    const NEG_INFINITY: Self;
    /// Exact.
    fn from_f32(x: f32) -> Self;
    /// Rounded to nearest in `f32`.
    fn from_f64(x: f64) -> Self;
    /// Rounded to nearest from `f64`.
    fn to_f32(self) -> f32;
    /// Exact.
    fn to_f64(self) -> f64;
    /// eˣ; in `f32` as [`crate::exp`] defines it.
    fn exp(self) -> Self;
    /// ln(1 + x).
    fn ln_1p(self) -> Self;
    /// √x.
    fn sqrt(self) -> Self;
    /// self · a + b, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// |x|.
    fn abs(self) -> Self;
    /// The larger, the other one if one is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller, the other one if one is NaN.
    fn min(self, other: Self) -> Self;
    /// The meaning of `op` in this precision.
    fn eval_of(op: &Op) -> fn(&mut Frame<'_, Self>);
}

macro_rules! real {
    ($t:ident, $eval:ident, $exp:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = $t::NEG_INFINITY;
            fn from_f32(x: f32) -> Self {
                x as $t
            }
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn exp(self) -> Self {
                $exp(self)
            }
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn mul_add(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            fn abs(self) -> Self {
                self.abs()
            }
            fn max(self, other: Self) -> Self {
                self.max(other)
            }
            fn min(self, other: Self) -> Self {
                self.min(other)
            }
            fn eval_of(op: &Op) -> fn(&mut Frame<'_, Self>) {
                match &op.body {
                    Body::Primitive { $eval, .. } | Body::Fused { $eval, .. } => *$eval,
                }
            }
        }
    };
}
real!(f32, eval32, crate::exp);
real!(f64, eval64, f64::exp);

//! RMS norms (spec 2): `x / sqrt(mean(x²) + eps)`, with a weight or without.
use super::infer::{Inferred, Sig, constant, extent, f32};
use super::{Op, prim};
use crate::view::Frame;
use crate::{Dim, Real, Scalar, Type};

pub(super) const ROWS: &[Op] = &[
    prim!(
        "rms_norm",
        "x @w eps=",
        "x / sqrt(mean(x²) + eps) · w over the last axis (spec 2).",
        rms_norm_type,
        rms_norm
    ),
    prim!(
        "head_norm",
        "x eps=",
        "x / sqrt(mean(x²) + eps) over the last axis, no weight (spec 2.3).",
        head_norm_type,
        head_norm
    ),
    prim!(
        "flat_norm",
        "x eps=",
        "x / sqrt(mean(x²) + eps) over all streams of a token at once; the streams become one axis (spec 2.1).",
        flat_norm_type,
        head_norm
    ),
];

fn rms_norm_type(s: &Sig<'_>) -> Inferred {
    let x = s.of(0, Scalar::F32)?;
    s.weight(1, &[constant(0, *x.dims.last().expect("an axis"))?])?;
    s.number(2)?;
    Ok(Type::Tensor(x.clone()))
}

fn head_norm_type(s: &Sig<'_>) -> Inferred {
    let x = s.of(0, Scalar::F32)?;
    s.number(1)?;
    Ok(Type::Tensor(x.clone()))
}

fn flat_norm_type(s: &Sig<'_>) -> Inferred {
    let dims = s.f32(0, 3)?;
    s.number(1)?;
    Ok(f32([dims[0], Dim::Const(extent(&[constant(0, dims[1])?, constant(0, dims[2])?])?)]))
}

/// The factor that gives `row` an RMS of one.
pub fn scale<F: Real>(row: &[F], eps: F) -> F {
    let mean = super::dot(row, row) / F::from_f64(row.len() as f64);
    F::ONE / (mean + eps).sqrt()
}

fn rms_norm<F: Real>(f: &mut Frame<'_, F>) {
    let (x, w, eps) = (f.tensor(0), f.weight(1).to_real::<F>(), f.lit(2));
    let rows = x.real().chunks_exact(w.len());
    for (out, row) in f.out_real().chunks_exact_mut(w.len()).zip(rows) {
        let s = scale(row, eps);
        for ((o, x), w) in out.iter_mut().zip(row).zip(&w) {
            *o = *x * s * *w;
        }
    }
}

/// `head_norm`, and `flat_norm` too: they differ in the shape of the result only.
fn head_norm<F: Real>(f: &mut Frame<'_, F>) {
    let (x, eps) = (f.tensor(0).real(), f.lit(1));
    let width = *f.out_dims().last().expect("an axis");
    for (out, row) in f.out_real().chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let s = scale(row, eps);
        out.iter_mut().zip(row).for_each(|(o, x)| *o = *x * s);
    }
}

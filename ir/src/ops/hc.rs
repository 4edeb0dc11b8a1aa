//! Hyper-connections (spec 2.1): the residual streams, their gates, and what goes in and out.
use super::infer::{Inferred, Sig, constant, f32, same};
use super::{Op, prim};
use crate::view::Frame;
use crate::{Dim, Real, Scalar, Type};

pub(super) const ROWS: &[Op] = &[
    prim!("streams", "x n=", "x in each of the n residual streams (spec 2).", streams_type, streams),
    prim!("stream_add", "h y", "h with y added to every stream (spec 2.9).", post_like, stream_add),
    prim!(
        "hc_gates",
        "mix @scale @base iters= eps=",
        "pre, post and the Sinkhorn-normalised combine matrix, in this order (spec 2.1).",
        gates_type,
        hc_gates
    ),
    prim!(
        "hc_head_gates",
        "mix @scale @base eps=",
        "sigmoid(mix · scale + base) + eps (spec 2.1, head).",
        head_gates_type,
        hc_head_gates
    ),
    prim!(
        "hc_pre",
        "h gates",
        "Σ_j pre_j · h_j: the streams of a token joined (spec 2.1).",
        pre_type,
        hc_pre
    ),
    prim!(
        "hc_post",
        "h y gates",
        "post_j · y + Σ_i combine_ij · h_i for each stream j (spec 2.1).",
        hc_post_type,
        hc_post
    ),
];

/// Most residual streams of a token.
const STREAMS_MAX: u32 = 64;

/// Number of streams of a mix of n² + 2n gates.
fn streams_of(mix: u32) -> Result<u32, String> {
    let n = (1..=STREAMS_MAX).find(|n| n * n + 2 * n == mix);
    n.ok_or_else(|| format!("gates: expected n² + 2n of them, got {mix}"))
}

fn streams_type(s: &Sig<'_>) -> Inferred {
    let x = s.f32(0, 2)?;
    Ok(f32([x[0], Dim::Const(s.count(1)?), x[1]]))
}

/// h `[t, n, D]` and y `[t, D]` give `[t, n, D]`.
fn post_like(s: &Sig<'_>) -> Inferred {
    let (h, y) = (s.f32(0, 3)?, s.f32(1, 2)?);
    same("extents of y", &[h[0], h[2]][..], y)?;
    Ok(f32(h.to_vec()))
}

fn gates_type(s: &Sig<'_>) -> Inferred {
    let mix = s.f32(0, 2)?;
    let gates = constant(0, mix[1])?;
    streams_of(gates)?;
    s.weight(1, &[3])?;
    s.weight(2, &[gates])?;
    s.count(3)?;
    s.number(4)?;
    Ok(f32(mix.to_vec()))
}

fn head_gates_type(s: &Sig<'_>) -> Inferred {
    let mix = s.f32(0, 2)?;
    s.weight(1, &[1])?;
    s.weight(2, &[constant(0, mix[1])?])?;
    s.number(3)?;
    Ok(f32(mix.to_vec()))
}

fn pre_type(s: &Sig<'_>) -> Inferred {
    let (h, gates) = (s.f32(0, 3)?, s.f32(1, 2)?);
    let (n, width) = (constant(0, h[1])?, constant(1, gates[1])?);
    if width != n && streams_of(width)? != n {
        return Err(format!("gates: expected those of {n} streams, got {width}"));
    }
    same("rows of the gates", h[0], gates[0])?;
    Ok(f32([h[0], h[2]]))
}

fn hc_post_type(s: &Sig<'_>) -> Inferred {
    let ty = post_like(s)?;
    let (h, gates) = (s.f32(0, 3)?, s.of(2, Scalar::F32)?);
    let n = constant(0, h[1])?;
    if n > STREAMS_MAX {
        return Err(format!("gates: expected at most {STREAMS_MAX} streams, got {n}"));
    }
    same("extents of the gates", &[h[0], Dim::Const(n * n + 2 * n)][..], &gates.dims[..])?;
    Ok(ty as Type)
}

fn streams<F: Real>(f: &mut Frame<'_, F>) {
    let (x, n) = (f.tensor(0), f.int(1));
    let (width, x) = (x.width(), x.real());
    for (i, out) in f.out_real().chunks_exact_mut(width).enumerate() {
        out.copy_from_slice(&x[i / n * width..][..width]);
    }
}

fn stream_add<F: Real>(f: &mut Frame<'_, F>) {
    let (h, y) = (f.tensor(0), f.tensor(1).real());
    let (n, width, h) = (h.dims[1], h.dims[2], h.real());
    for (i, o) in f.out_real().iter_mut().enumerate() {
        *o = h[i] + y[i / (n * width) * width + i % width];
    }
}

fn sigmoid<F: Real>(x: F) -> F {
    F::ONE / (F::ONE + (-x).exp())
}

/// `hc_gates` of one token: `scale` has three elements, `base` as many as `mix` and `out`.
pub fn gates_of<F: Real>(mix: &[F], scale: &[F], base: &[F], rounds: usize, eps: F, out: &mut [F]) {
    let n = streams_of(mix.len() as u32).expect("inferred") as usize;
    let two = F::ONE + F::ONE;
    for j in 0..n {
        out[j] = sigmoid(mix[j] * scale[0] + base[j]) + eps;
        out[n + j] = two * sigmoid(mix[n + j] * scale[1] + base[n + j]);
    }
    let combine = &mut out[2 * n..];
    for (i, c) in combine.iter_mut().enumerate() {
        *c = mix[2 * n + i] * scale[2] + base[2 * n + i];
    }
    sinkhorn(combine, n, rounds, eps);
}

fn hc_gates<F: Real>(f: &mut Frame<'_, F>) {
    let (mix, scale, base) = (f.tensor(0), f.weight(1).to_real::<F>(), f.weight(2).to_real::<F>());
    let (rounds, eps, width) = (f.int(3), f.lit(4), mix.width());
    for (out, m) in f.out_real().chunks_exact_mut(width).zip(mix.real().chunks_exact(width)) {
        gates_of(m, &scale, &base, rounds, eps, out);
    }
}

/// Softmax over each row, then rows and columns normalised in turn, columns first; round one is the
/// softmax and the first columns (spec 2.1).
fn sinkhorn<F: Real>(c: &mut [F], n: usize, rounds: usize, eps: F) {
    for row in c.chunks_exact_mut(n) {
        let max = row.iter().fold(F::NEG_INFINITY, |m, x| m.max(*x));
        row.iter_mut().for_each(|x| *x = (*x - max).exp());
        let sum = row.iter().copied().sum::<F>();
        row.iter_mut().for_each(|x| *x = *x / sum + eps);
    }
    for round in 0..rounds {
        if round > 0 {
            for row in c.chunks_exact_mut(n) {
                let sum = row.iter().copied().sum::<F>() + eps;
                row.iter_mut().for_each(|x| *x /= sum);
            }
        }
        for j in 0..n {
            let sum = (0..n).map(|i| c[i * n + j]).sum::<F>() + eps;
            (0..n).for_each(|i| c[i * n + j] /= sum);
        }
    }
}

/// `hc_head_gates` of one token: `base` has as many elements as `mix` and `out`.
pub fn head_gates_of<F: Real>(mix: &[F], scale: F, base: &[F], eps: F, out: &mut [F]) {
    for ((o, m), base) in out.iter_mut().zip(mix).zip(base) {
        *o = sigmoid(*m * scale + *base) + eps;
    }
}

fn hc_head_gates<F: Real>(f: &mut Frame<'_, F>) {
    let (mix, scale, base) = (f.tensor(0), f.weight(1).to_real::<F>(), f.weight(2).to_real::<F>());
    let (eps, width) = (f.lit(3), mix.width());
    for (out, m) in f.out_real().chunks_exact_mut(width).zip(mix.real().chunks_exact(width)) {
        head_gates_of(m, scale[0], &base, eps, out);
    }
}

fn hc_pre<F: Real>(f: &mut Frame<'_, F>) {
    let (h, gates) = (f.tensor(0), f.tensor(1));
    let (n, width) = (h.dims[1], h.dims[2]);
    let (h, stride, gates) = (h.real(), gates.width(), gates.real());
    for (t, out) in f.out_real().chunks_exact_mut(width).enumerate() {
        out.fill(F::ZERO);
        for j in 0..n {
            let (gate, row) = (gates[t * stride + j], &h[(t * n + j) * width..][..width]);
            out.iter_mut().zip(row).for_each(|(o, x)| *o += gate * *x);
        }
    }
}

fn hc_post<F: Real>(f: &mut Frame<'_, F>) {
    let (h, y, gates) = (f.tensor(0), f.tensor(1).real(), f.tensor(2).real());
    let (n, width, h) = (h.dims[1], h.dims[2], h.real());
    for (i, out) in f.out_real().chunks_exact_mut(width).enumerate() {
        let (t, j) = (i / n, i % n);
        let gates = &gates[t * (n * n + 2 * n)..][..n * n + 2 * n];
        let y = &y[t * width..][..width];
        out.iter_mut().zip(y).for_each(|(o, y)| *o = gates[n + j] * *y);
        for from in 0..n {
            // The first index of the matrix is the source stream (spec 2.1).
            let (c, row) = (gates[2 * n + from * n + j], &h[(t * n + from) * width..][..width]);
            out.iter_mut().zip(row).for_each(|(o, x)| *o += c * *x);
        }
    }
}

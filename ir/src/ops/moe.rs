//! Mixture of experts (spec 2.8): routers, experts behind a table of matrices, SwiGLU.
use super::index::largest;
use super::infer::{Inferred, Sig, constant, f32, rank_of, same, with_last};
use super::linear::product;
use super::{Op, prim};
use crate::view::{Frame, Route, Tensor};
use crate::{Dim, Real, Scalar, Sym, TensorType, Type};

pub(super) const ROWS: &[Op] = &[
    prim!("router_scores", "x", "sqrt(softplus(x)).", router_type, router_scores),
    prim!(
        "select_experts",
        "scores biased k= scale=",
        "The k experts with the largest `biased`, ties to the lower index, each weighted by its share of their `scores` times `scale`.",
        select_type,
        select_experts
    ),
    prim!(
        "hash_experts",
        "scores @table ids scale=",
        "The experts that the table gives the token id, weighted as by select_experts.",
        hash_type,
        hash_experts
    ),
    prim!(
        "expert_matmul",
        "x @w routes",
        "x, or the row of x that belongs to the route, times the matrix of each routed expert.",
        expert_matmul_type,
        expert_matmul
    ),
    prim!(
        "swiglu",
        "gate up clamp=",
        "silu(min(gate, clamp)) · clip(up, ±clamp); clamp 0 clips nothing.",
        swiglu_type,
        swiglu
    ),
    prim!(
        "route_scale",
        "x routes",
        "Each routed expert's row times its weight.",
        route_scale_type,
        route_scale
    ),
    prim!("expert_sum", "x", "Sum over the routed experts in the order of the routes.", sum_type, expert_sum),
];

fn router_type(s: &Sig<'_>) -> Inferred {
    Ok(f32(s.f32(0, 2)?.to_vec()))
}

fn routes(rows: Dim, k: u32) -> Type {
    Type::Tensor(TensorType::new(Scalar::Route, [rows, Dim::Const(k)]))
}

fn select_type(s: &Sig<'_>) -> Inferred {
    let (scores, biased) = (s.f32(0, 2)?, s.f32(1, 2)?);
    same("extents of `biased`", scores, biased)?;
    let (k, experts) = (s.count(2)?, constant(0, scores[1])?);
    if k > experts {
        return Err(format!("k: expected at most {experts} experts, got {k}"));
    }
    s.number(3)?;
    Ok(routes(scores[0], k))
}

fn hash_type(s: &Sig<'_>) -> Inferred {
    let scores = s.f32(0, 2)?;
    same("rows of the scores", Dim::Sym(Sym::Tokens), scores[0])?;
    let table = s.tensor(1)?;
    if !matches!(table.scalar, Scalar::I32 | Scalar::I64) || table.dims.len() != 2 {
        return Err(format!("operand 1: expected i32 or i64 [vocabulary, k], got {table}"));
    }
    s.per_token(2)?;
    s.number(3)?;
    Ok(routes(scores[0], constant(1, table.dims[1])?))
}

fn expert_matmul_type(s: &Sig<'_>) -> Inferred {
    let x = s.reals(0)?;
    let w = s.extents(1, 3)?;
    let routes = s.of(2, Scalar::Route)?;
    rank_of(2, routes, 2)?;
    same("columns of the weight", constant(0, *x.dims.last().expect("an axis"))?, w[2])?;
    match &x.dims[..] {
        [rows, _] => same("rows of the routes", *rows, routes.dims[0])?,
        [rows, k, _] => same("extents of the routes", &[*rows, *k][..], &routes.dims[..])?,
        _ => return Err(format!("operand 0: expected 2 or 3 axes, got {x}")),
    }
    Ok(f32([routes.dims[0], routes.dims[1], Dim::Const(w[1])]))
}

fn swiglu_type(s: &Sig<'_>) -> Inferred {
    let (gate, up) = (s.of(0, Scalar::F32)?, s.of(1, Scalar::F32)?);
    same("extents of `up`", &gate.dims, &up.dims)?;
    if s.number(2)? < 0.0 {
        return Err("clamp: expected a number of at least 0".to_string());
    }
    Ok(Type::Tensor(gate.clone()))
}

fn route_scale_type(s: &Sig<'_>) -> Inferred {
    let (x, routes) = (s.f32(0, 3)?, s.of(1, Scalar::Route)?);
    same("extents of the routes", &x[..2], &routes.dims[..])?;
    Ok(f32(x.to_vec()))
}

fn sum_type(s: &Sig<'_>) -> Inferred {
    let x = s.f32(0, 3)?;
    Ok(f32(with_last(&x[..2], constant(0, x[2])?)))
}

/// `router_scores` of one element.
#[inline(always)]
pub fn router_score<F: Real>(x: F) -> F {
    // softplus without overflow: max(x, 0) + ln(1 + e^-|x|)
    (x.max(F::ZERO) + (-x.abs()).exp().ln_1p()).sqrt()
}

fn router_scores<F: Real>(f: &mut Frame<'_, F>) {
    let x = f.tensor(0).real();
    f.out_real().iter_mut().zip(x).for_each(|(o, x)| *o = router_score(*x));
}

/// Weights of the chosen experts: their scores over the sum of them, times `scale`.
pub fn weigh<F: Real>(scores: &[F], chosen: impl Iterator<Item = usize>, scale: F, out: &mut [Route<F>]) {
    for (route, expert) in out.iter_mut().zip(chosen) {
        let weight = scores[expert];
        *route = Route { expert: i32::try_from(expert).expect("experts fit an i32"), weight };
    }
    let sum = out.iter().map(|r| r.weight).sum::<F>();
    out.iter_mut().for_each(|r| r.weight = r.weight / sum * scale);
}

fn select_experts<F: Real>(f: &mut Frame<'_, F>) {
    let (scores, biased, k, scale) = (f.tensor(0), f.tensor(1).real(), f.int(2), f.lit(3));
    let (experts, scores) = (scores.width(), scores.real());
    for (t, out) in f.out_route().chunks_exact_mut(k).enumerate() {
        let row = t * experts..(t + 1) * experts;
        let mut chosen = largest(&biased[row.clone()], k);
        // Scores that are no numbers choose nothing; the first experts keep the step defined.
        chosen
            .extend((0..experts).filter(|e| !chosen.contains(e)).take(k - chosen.len()).collect::<Vec<_>>());
        weigh(&scores[row], chosen.into_iter(), scale, out);
    }
}

fn hash_experts<F: Real>(f: &mut Frame<'_, F>) {
    let (scores, table, ids, scale) = (f.tensor(0), f.weight(1).matrix(0), f.tensor(2).int(), f.lit(3));
    let (experts, scores) = (scores.width(), scores.real());
    for (t, out) in f.out_route().chunks_exact_mut(table.width).enumerate() {
        let chosen = table.int_row(ids[t] as usize).map(|e| usize::try_from(e).expect("checked on load"));
        weigh(&scores[t * experts..][..experts], chosen, scale, out);
    }
}

fn expert_matmul<F: Real>(f: &mut Frame<'_, F>) {
    let (x, w, routes) = (f.tensor(0), f.weight(1), f.tensor(2));
    let (k, width, shared) = (routes.width(), x.width(), x.dims.len() == 2);
    let (x, routes) = (x.to_real(), routes.route());
    let rows = w.dims[1];
    let out = f.out_real();
    for expert in 0..w.items.len() {
        // Each expert's matrix is decoded once for all tokens that chose it.
        let mine: Vec<usize> = (0..routes.len()).filter(|i| routes[*i].expert as usize == expert).collect();
        if mine.is_empty() {
            continue;
        }
        let row_of = |i: usize| if shared { i / k } else { i };
        let xs: Vec<&[F]> = mine.iter().map(|i| &x[row_of(*i) * width..][..width]).collect();
        product(&w.matrix(expert), 0..rows, &xs, |i, row, y| out[mine[i] * rows + row] = y);
    }
}

/// `swiglu` of one element of gate and up.
#[inline(always)]
pub fn swiglu_of<F: Real>(mut gate: F, mut up: F, clamp: F) -> F {
    if clamp > F::ZERO {
        (gate, up) = (gate.min(clamp), up.max(-clamp).min(clamp));
    }
    gate / (F::ONE + (-gate).exp()) * up
}

fn swiglu<F: Real>(f: &mut Frame<'_, F>) {
    let (gate, up, clamp) = (f.tensor(0).real(), f.tensor(1).real(), f.lit(2));
    f.out_real().iter_mut().zip(gate.iter().zip(up)).for_each(|(o, (g, u))| *o = swiglu_of(*g, *u, clamp));
}

fn route_scale<F: Real>(f: &mut Frame<'_, F>) {
    let (x, routes): (Tensor<'_, F>, _) = (f.tensor(0), f.tensor(1).route());
    let (width, x) = (x.width(), x.real());
    for (i, o) in f.out_real().iter_mut().enumerate() {
        *o = x[i] * routes[i / width].weight;
    }
}

fn expert_sum<F: Real>(f: &mut Frame<'_, F>) {
    let x = f.tensor(0);
    let (k, width, x) = (x.dims[1], x.dims[2], x.real());
    for (t, out) in f.out_real().chunks_exact_mut(width).enumerate() {
        out.fill(F::ZERO);
        for slot in 0..k {
            out.iter_mut().zip(&x[(t * k + slot) * width..]).for_each(|(o, x)| *o += *x);
        }
    }
}

//! The lightning indexer (spec 2.6): which compressed entries each token may read.
use super::dot;
use super::infer::{Inferred, Sig, constant, f32, same};
use super::{Op, prim};
use crate::view::Frame;
use crate::{Dim, Real, Scalar, StateKind, Sym, TensorType, Type};

pub(super) const ROWS: &[Op] = &[
    prim!(
        "index_scores",
        "q weights entries pos",
        "Σ_h relu(q_h · entry_j) · weights_h / sqrt(width · heads) for each entry the token may see, -∞ for the others (spec 2.6).",
        scores_type,
        index_scores
    ),
    prim!(
        "topk",
        "scores k=",
        "Indices of the k largest scores above -∞, ties to the lower index, in ascending order, padded with -1.",
        topk_type,
        topk
    ),
];

fn scores_type(s: &Sig<'_>) -> Inferred {
    let entries = s.state(2, StateKind::Entries)?;
    let q = s.of(0, entries.scalar)?;
    same("axes of q", 3, q.dims.len())?;
    same("rows of q", Dim::Sym(Sym::Tokens), q.dims[0])?;
    same("width of q", entries.width, constant(0, q.dims[2])?)?;
    same("extents of the weights", &q.dims[..2], s.f32(1, 2)?)?;
    s.per_token(3)?;
    Ok(f32([q.dims[0], Dim::Sym(Sym::Entries(entries.kind.span()))]))
}

fn topk_type(s: &Sig<'_>) -> Inferred {
    let scores = s.f32(0, 2)?;
    Ok(Type::Tensor(TensorType::new(Scalar::I32, [scores[0], Dim::Const(s.count(1)?)])))
}

fn index_scores<F: Real>(f: &mut Frame<'_, F>) {
    let (q, weights, entries, pos) = (f.tensor(0), f.tensor(1).real(), f.state(2), f.tensor(3).int());
    let (heads, width, n) = (q.dims[1], q.dims[2], f.out_dims()[1]);
    let ratio = entries.ty.kind.span() as usize;
    let scale = F::ONE / F::from_f64((width * heads) as f64).sqrt();
    let q = q.to_real();
    let mut keys = vec![F::ZERO; n * width];
    keys.chunks_exact_mut(width).enumerate().for_each(|(j, key)| entries.read_row(j, key));
    for (t, out) in f.out_real().chunks_exact_mut(n.max(1)).enumerate() {
        let seen = (pos[t] as usize + 1) / ratio;
        for (j, (o, key)) in out.iter_mut().zip(keys.chunks_exact(width)).enumerate() {
            let score = |h: usize| {
                let s = dot(&q[(t * heads + h) * width..][..width], key);
                s.max(F::ZERO) * weights[t * heads + h]
            };
            *o = if j < seen { (0..heads).map(score).sum::<F>() * scale } else { F::NEG_INFINITY };
        }
    }
}

/// Indices of the `k` largest of `scores`, largest first, ties to the lower index; -∞ never counts.
pub fn largest<F: Real>(scores: &[F], k: usize) -> Vec<usize> {
    // Adding zero makes -0 equal to 0: the two are a tie.
    let key = |i: &usize| (scores[*i] + F::ZERO).to_f64();
    let order = |a: &usize, b: &usize| key(b).total_cmp(&key(a)).then(a.cmp(b));
    let mut ids: Vec<usize> = (0..scores.len()).filter(|i| scores[*i] > F::NEG_INFINITY).collect();
    if k < ids.len() {
        ids.select_nth_unstable_by(k, order);
        ids.truncate(k);
    }
    ids.sort_unstable_by(order);
    ids
}

fn topk<F: Real>(f: &mut Frame<'_, F>) {
    let (scores, k) = (f.tensor(0), f.int(1));
    let n = scores.width();
    let scores = scores.real();
    for (t, out) in f.out_int().chunks_exact_mut(k).enumerate() {
        let mut ids = largest(&scores[t * n..][..n], k);
        ids.sort_unstable();
        out.fill(-1);
        for (o, i) in out.iter_mut().zip(ids) {
            *o = i32::try_from(i).expect("entries fit an i32");
        }
    }
}

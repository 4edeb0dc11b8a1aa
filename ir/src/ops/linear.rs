//! Matrix products, the rounding of their inputs, and the sums between them.
use super::infer::{Inferred, Sig, constant, extent, f32, same, with_last};
use super::{Op, prim};
use crate::view::{Frame, Matrix};
use crate::{Dim, Real, Scalar, Type};

pub(super) const ROWS: &[Op] = &[
    prim!("matmul", "x @w", "x · wᵀ over the last axis.", matmul_type, matmul),
    prim!(
        "grouped_matmul",
        "x @w groups=",
        "Group g of x times the g-th slice of w's rows (spec 2.7).",
        grouped_type,
        grouped_matmul
    ),
    prim!(
        "round_act",
        "x fmt=",
        "x in the format `fmt` of a matmul's input; f32 leaves it (spec 6.2, 4.4).",
        round_act_type,
        copy_rows
    ),
    prim!(
        "split",
        "x parts=",
        "The last axis cut into `parts` equal rows; moves nothing.",
        split_type,
        copy_rows
    ),
    prim!("add", "x ?y", "x + y; y may be one row for all rows of x.", add_type, add),
];

/// Formats of matmul inputs.
const ACT: &[Scalar] = &[Scalar::F32, Scalar::F16, Scalar::Bf16, Scalar::E4m3x128, Scalar::Q8K, Scalar::Q8_0];

fn matmul_type(s: &Sig<'_>) -> Inferred {
    let x = s.reals(0)?;
    let w = s.extents(1, 2)?;
    let k = constant(0, *x.dims.last().expect("an axis"))?;
    same("columns of the weight", k, w[1])?;
    Ok(f32(with_last(&x.dims, w[0])))
}

fn grouped_type(s: &Sig<'_>) -> Inferred {
    let x = s.reals(0)?;
    let w = s.extents(1, 2)?;
    let groups = s.count(2)?;
    let per_token: Vec<u32> = x.dims[1..].iter().map(|d| constant(0, *d)).collect::<Result<_, _>>()?;
    same("elements of all groups", extent(&[groups, w[1]])?, extent(&per_token)?)?;
    same("rows of the weight modulo groups", 0, w[0] % groups)?;
    Ok(f32([x.dims[0], Dim::Const(w[0])]))
}

fn round_act_type(s: &Sig<'_>) -> Inferred {
    let x = s.of(0, Scalar::F32)?;
    let mut ty = x.clone();
    ty.scalar = s.format(1, ACT)?;
    Ok(Type::Tensor(ty))
}

fn split_type(s: &Sig<'_>) -> Inferred {
    let x = s.of(0, Scalar::F32)?;
    let (k, parts) = (constant(0, *x.dims.last().expect("an axis"))?, s.count(1)?);
    same("elements modulo parts", 0, k % parts)?;
    let mut dims = with_last(&x.dims, parts);
    dims.push(Dim::Const(k / parts));
    Ok(f32(dims))
}

fn add_type(s: &Sig<'_>) -> Inferred {
    let (x, y) = (s.of(0, Scalar::F32)?, s.reals(1)?);
    if !(x.dims == y.dims || x.dims[1..] == y.dims[..]) {
        return Err(format!("operand 1: expected the extents of {x} or of its rows, got {y}"));
    }
    Ok(Type::Tensor(x.clone()))
}

/// Σ aᵢ·bᵢ in eight partial sums, joined pairwise: the one summation order of the interpreter.
pub fn dot<F: Real>(a: &[F], b: &[F]) -> F {
    assert!(a.len() == b.len(), "dot of {} and {} elements", a.len(), b.len());
    let mut sums = [F::ZERO; 8];
    let (heads, tails) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = heads.remainder().iter().zip(tails.remainder());
    for (x, y) in heads.zip(tails) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    for (i, (x, y)) in rest.enumerate() {
        sums[i] += *x * *y;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Rows `from..to` of `m` times every `x` row: `write(x_row, row, product)`.
pub(super) fn product<F: Real>(
    m: &Matrix<'_>,
    rows: std::ops::Range<usize>,
    xs: &[&[F]],
    mut write: impl FnMut(usize, usize, F),
) {
    let mut weights = vec![F::ZERO; m.width];
    for row in rows {
        m.read_row(row, &mut weights);
        for (i, x) in xs.iter().enumerate() {
            write(i, row, dot(x, &weights));
        }
    }
}

fn matmul<F: Real>(f: &mut Frame<'_, F>) {
    let (x, m) = (f.tensor(0).to_real(), f.weight(1).matrix(0));
    let xs: Vec<&[F]> = x.chunks_exact(m.width).collect();
    let out = f.out_real();
    product(&m, 0..m.rows, &xs, |i, row, y| out[i * m.rows + row] = y);
}

fn grouped_matmul<F: Real>(f: &mut Frame<'_, F>) {
    let (x, m, groups) = (f.tensor(0).to_real(), f.weight(1).matrix(0), f.int(2));
    let rank = m.rows / groups;
    let out = f.out_real();
    for g in 0..groups {
        let xs: Vec<&[F]> = x.chunks_exact(m.width).skip(g).step_by(groups).collect();
        product(&m, g * rank..(g + 1) * rank, &xs, |i, row, y| out[i * m.rows + row] = y);
    }
}

/// Copies `f32` rows into the format of the result: all that `round_act` and `split` do.
fn copy_rows<F: Real>(f: &mut Frame<'_, F>) {
    let x = f.tensor(0);
    let width = *f.out_dims().last().expect("an axis");
    for (r, row) in x.real().chunks_exact(width).enumerate() {
        f.write_row(r, row);
    }
}

fn add<F: Real>(f: &mut Frame<'_, F>) {
    let (x, y) = (f.tensor(0).real(), f.numbers(1));
    for (i, (o, x)) in f.out_real().iter_mut().zip(x).enumerate() {
        *o = *x + y[i % y.len()];
    }
}

//! Rotary positions (spec 2.2). The angles are a value, made once per step: no other op calls sin
//! or cos.
use super::infer::{Inferred, Sig, constant, f32, same};
use super::{Op, prim};
use crate::view::Frame;
use crate::{Dim, Real, Scalar, Sym, TensorType, Type};

pub(super) const ROWS: &[Op] = &[
    prim!(
        "rope_table",
        "pos dims= base= factor= orig= fast= slow=",
        "cos and sin of each pair's angle at each position, pairs interleaved; YaRN where factor > 1 (spec 2.2).",
        rope_table_type,
        rope_table
    ),
    prim!(
        "closed_pos",
        "pos ratio=",
        "First position of each block of `ratio` tokens that this step closes (spec 2.5).",
        closed_pos_type,
        closed_pos
    ),
    prim!(
        "rope",
        "x table",
        "The last channels of each row rotated, pair (2i, 2i+1) by angle i (spec 2.2).",
        rope_type,
        rope
    ),
    prim!("unrope", "x table", "The inverse of rope.", rope_type, unrope),
];

fn rope_table_type(s: &Sig<'_>) -> Inferred {
    let pos = s.of(0, Scalar::I32)?;
    same("axes of pos", 1, pos.dims.len())?;
    let dims = s.count(1)?;
    same("dims modulo 2", 0, dims % 2)?;
    for i in 2..7 {
        s.number(i)?;
    }
    Ok(f32([pos.dims[0], Dim::Const(dims)]))
}

fn closed_pos_type(s: &Sig<'_>) -> Inferred {
    s.per_token(0)?;
    let ratio = s.count(1)?;
    Ok(Type::Tensor(TensorType::new(Scalar::I32, [Dim::Sym(Sym::Closed(ratio))])))
}

fn rope_type(s: &Sig<'_>) -> Inferred {
    let (x, table) = (s.of(0, Scalar::F32)?, s.f32(1, 2)?);
    same("rows of the table", x.dims[0], table[0])?;
    let (width, dims) = (constant(0, *x.dims.last().expect("an axis"))?, constant(1, table[1])?);
    if dims > width {
        return Err(format!("operand 1: expected at most {width} channels, got {dims}"));
    }
    Ok(Type::Tensor(x.clone()))
}

/// Angular frequency of pair `i` of `dims / 2`, in `f32` as the reference computes it (spec 2.2).
///
/// `yarn`: factor, original context, fast and slow turns; a factor of 1 changes nothing.
pub fn frequency(i: usize, dims: usize, base: f64, yarn: [f64; 4]) -> f32 {
    let [factor, orig, fast, slow] = yarn;
    let exponent = (2 * i) as f32 / dims as f32;
    // The power is taken in binary64 and rounded once: libraries differ in their powf.
    let f = 1.0 / (f64::from(base as f32).powf(f64::from(exponent)) as f32);
    if factor == 1.0 {
        return f;
    }
    let correction = |turns: f64| {
        dims as f64 * (orig / (turns * std::f64::consts::TAU)).ln() / (2.0 * f64::from(base as f32).ln())
    };
    let lo = correction(fast).floor().max(0.0);
    let hi = correction(slow).ceil().min(dims as f64 - 1.0);
    let ramp = ((i as f32 - lo as f32) / (hi - lo).max(1e-3) as f32).clamp(0.0, 1.0);
    let keep = 1.0 - ramp;
    f / factor as f32 * (1.0 - keep) + f * keep
}

fn rope_table<F: Real>(f: &mut Frame<'_, F>) {
    let (pos, dims) = (f.tensor(0).int(), f.int(1));
    let number = |i| f.lit(i).to_f64();
    let (base, yarn) = (number(2), [number(3), number(4), number(5), number(6)]);
    let table = f.out_real();
    for i in 0..dims / 2 {
        let freq = frequency(i, dims, base, yarn);
        for (row, p) in table.chunks_exact_mut(dims).zip(pos) {
            // The product is rounded to f32 on purpose (spec 6.1), then reduced accurately.
            let angle = f64::from(*p as f32 * freq);
            row[2 * i] = F::from_f64(angle.cos());
            row[2 * i + 1] = F::from_f64(angle.sin());
        }
    }
}

/// The first positions of the blocks that the tokens at `pos` close.
pub(super) fn closed(pos: &[i32], ratio: usize) -> impl Iterator<Item = usize> + '_ {
    pos.iter()
        .map(|p| *p as usize + 1)
        .filter(move |end| end.is_multiple_of(ratio))
        .map(move |end| end - ratio)
}

fn closed_pos<F: Real>(f: &mut Frame<'_, F>) {
    let (pos, ratio) = (f.tensor(0).int(), f.int(1));
    for (o, first) in f.out_int().iter_mut().zip(closed(pos, ratio)) {
        *o = i32::try_from(first).expect("positions fit an i32");
    }
}

fn rope<F: Real>(f: &mut Frame<'_, F>) {
    rotate(f, F::ONE);
}

fn unrope<F: Real>(f: &mut Frame<'_, F>) {
    rotate(f, -F::ONE);
}

/// Rotates by the table's angles times `sign`.
fn rotate<F: Real>(f: &mut Frame<'_, F>, sign: F) {
    let (x, table) = (f.tensor(0), f.tensor(1));
    let (width, dims) = (x.width(), table.width());
    let rows_per_token = x.rows() / table.rows().max(1);
    let (x, table) = (x.real(), table.real());
    for (r, (out, row)) in f.out_real().chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
        let angles = &table[r / rows_per_token * dims..][..dims];
        out.copy_from_slice(row);
        for (pair, angle) in out[width - dims..].chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
            let (a, b, cos, sin) = (pair[0], pair[1], angle[0], angle[1] * sign);
            pair[0] = a * cos - b * sin;
            pair[1] = a * sin + b * cos;
        }
    }
}

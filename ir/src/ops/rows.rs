//! Rows of states: how they are rounded, how they enter a state, how they are picked again.
use super::infer::{Inferred, Sig, constant, f32, same};
use super::rope::closed;
use super::{Op, prim};
use crate::view::Frame;
use crate::{Dim, Real, Scalar, StateKind, Sym, TensorType, Type, formats};

pub(super) const ROWS: &[Op] = &[
    prim!("embed_rows", "@table ids", "The table's row of each token id.", embed_type, embed_rows),
    prim!("take_rows", "x want", "The rows of x whose logits are wanted.", take_type, take_rows),
    prim!(
        "to_row",
        "x fmt= dims=",
        "x as rows of a key/value state: kv8 with `dims` rotary channels, or f32 (spec 6.2).",
        to_row_type,
        to_row
    ),
    prim!(
        "to_index",
        "x fmt=",
        "x as index rows or queries: Hadamard transform and idx4, or f32 unchanged (spec 2.6, 6.2).",
        to_index_type,
        to_index
    ),
    prim!(
        "push",
        "ring! rows pos",
        "The ring with this step's rows at their positions (spec 3.1).",
        push_type,
        push
    ),
    prim!(
        "append",
        "entries! rows pos",
        "The entries with the rows of the blocks that this step closes (spec 3.1).",
        append_type,
        append
    ),
    prim!(
        "gather_rows",
        "entries idx",
        "The entries at idx, per token; idx -1 gives a row of zeros.",
        gather_type,
        gather_rows
    ),
];

fn embed_type(s: &Sig<'_>) -> Inferred {
    let table = s.extents(0, 2)?;
    s.per_token(1)?;
    Ok(f32([Dim::Sym(Sym::Tokens), Dim::Const(table[1])]))
}

fn take_type(s: &Sig<'_>) -> Inferred {
    let (x, want) = (s.of(0, Scalar::F32)?, s.of(1, Scalar::I32)?);
    same("extents of want", &[Dim::Sym(Sym::Wanted)][..], &want.dims[..])?;
    let mut ty = x.clone();
    same("rows of x", Dim::Sym(Sym::Tokens), ty.dims[0])?;
    ty.dims[0] = Dim::Sym(Sym::Wanted);
    Ok(Type::Tensor(ty))
}

fn to_row_type(s: &Sig<'_>) -> Inferred {
    let x = s.of(0, Scalar::F32)?;
    let width = constant(0, *x.dims.last().expect("an axis"))?;
    let dims = s.count(2)?;
    if dims >= width {
        return Err(format!("dims: expected fewer than {width} rotary channels, got {dims}"));
    }
    let rope = u16::try_from(dims).map_err(|_| format!("dims: {dims} rotary channels are too many"))?;
    let packed = matches!(&s.args[1], super::SigArg::Lit(lit) if lit.to_string() == "kv8");
    let scalar = if packed { Scalar::Kv8 { rope } } else { s.format(1, &[Scalar::F32])? };
    Ok(Type::Tensor(TensorType { scalar, dims: x.dims.clone() }))
}

fn to_index_type(s: &Sig<'_>) -> Inferred {
    let x = s.of(0, Scalar::F32)?;
    let scalar = s.format(1, &[Scalar::F32, Scalar::Idx4])?;
    let width = constant(0, *x.dims.last().expect("an axis"))?;
    if scalar == Scalar::Idx4 && !width.is_power_of_two() {
        return Err(format!("the Hadamard transform needs a power of two as index width, got {width}"));
    }
    Ok(Type::Tensor(TensorType { scalar, dims: x.dims.clone() }))
}

fn push_type(s: &Sig<'_>) -> Inferred {
    let (state, rows) = (s.state(0, StateKind::Ring)?, s.of(1, s.state(0, StateKind::Ring)?.scalar)?);
    same("extents of the rows", &[Dim::Sym(Sym::Tokens), Dim::Const(state.width)][..], &rows.dims[..])?;
    s.per_token(2)?;
    Ok(Type::State(*state))
}

fn append_type(s: &Sig<'_>) -> Inferred {
    let state = s.state(0, StateKind::Entries)?;
    let rows = s.of(1, state.scalar)?;
    let closed = Dim::Sym(Sym::Closed(state.kind.span()));
    same("extents of the rows", &[closed, Dim::Const(state.width)][..], &rows.dims[..])?;
    s.per_token(2)?;
    Ok(Type::State(*state))
}

fn gather_type(s: &Sig<'_>) -> Inferred {
    let state = s.state(0, StateKind::Entries)?;
    let idx = s.of(1, Scalar::I32)?;
    same("axes of idx", 2, idx.dims.len())?;
    let dims = [idx.dims[0], idx.dims[1], Dim::Const(state.width)];
    Ok(Type::Tensor(TensorType::new(state.scalar, dims)))
}

fn embed_rows<F: Real>(f: &mut Frame<'_, F>) {
    let (table, ids) = (f.weight(0).matrix(0), f.tensor(1).int());
    for (out, id) in f.out_real().chunks_exact_mut(table.width).zip(ids) {
        table.read_row(*id as usize, out);
    }
}

fn take_rows<F: Real>(f: &mut Frame<'_, F>) {
    let (x, want) = (f.tensor(0), f.tensor(1).int());
    let size: usize = x.dims[1..].iter().product();
    let x = x.real();
    for (out, row) in f.out_real().chunks_exact_mut(size).zip(want) {
        out.copy_from_slice(&x[*row as usize * size..][..size]);
    }
}

fn to_row<F: Real>(f: &mut Frame<'_, F>) {
    let x = f.tensor(0);
    for (r, row) in x.real().chunks_exact(x.width()).enumerate() {
        f.write_row(r, row);
    }
}

fn to_index<F: Real>(f: &mut Frame<'_, F>) {
    let x = f.tensor(0);
    let packed = matches!(&f.out, crate::view::Out::Tensor { scalar: Scalar::Idx4, .. });
    let mut row = vec![F::ZERO; x.width()];
    for (r, from) in x.real().chunks_exact(x.width()).enumerate() {
        row.copy_from_slice(from);
        if packed {
            formats::hadamard(&mut row);
        }
        f.write_row(r, &row);
    }
}

fn push<F: Real>(f: &mut Frame<'_, F>) {
    let (rows, pos) = (f.tensor(1), f.tensor(2).int());
    for (i, p) in pos.iter().enumerate() {
        f.out_state().copy_row(*p as usize, &rows, i);
    }
}

fn append<F: Real>(f: &mut Frame<'_, F>) {
    let (rows, pos) = (f.tensor(1), f.tensor(2).int());
    let ratio = f.out_state().ty.kind.span() as usize;
    for (i, first) in closed(pos, ratio).enumerate() {
        f.out_state().copy_row(first / ratio, &rows, i);
    }
}

fn gather_rows<F: Real>(f: &mut Frame<'_, F>) {
    let (entries, idx) = (f.state(0), f.tensor(1).int());
    let mut row = vec![F::ZERO; entries.ty.width as usize];
    for (i, j) in idx.iter().enumerate() {
        match usize::try_from(*j) {
            Ok(j) => entries.read_row(j, &mut row),
            Err(_) => row.fill(F::ZERO),
        }
        f.write_row(i, &row);
    }
}

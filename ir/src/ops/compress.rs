//! The compressor (spec 2.5, 3): a softmax per channel over the tokens of a block, for ratio 4 over
//! two blocks, and the tail of tokens that the next step still needs.
use super::infer::{Inferred, Sig, f32, same};
use super::rope::closed;
use super::{Op, prim};
use crate::view::{Frame, State, Tensor};
use crate::{Dim, Real, StateKind, StateType, Sym, Type};

pub(super) const ROWS: &[Op] = &[
    prim!(
        "compress_pool",
        "tail k gate @ape pos",
        "Per channel Σ softmax(gate + ape)·k over the tokens of each block that this step closes; for ratio 4 lane A of the block before and lane B of its own (spec 2.5).",
        pool_type,
        compress_pool
    ),
    prim!(
        "compress_push",
        "tail! k gate @ape pos",
        "The tail with this step's k and gate + ape at their positions (spec 3.1).",
        push_type,
        compress_push
    ),
];

/// Lanes of a token's `k` and `gate`: two where blocks overlap.
fn lanes(ratio: u32) -> u32 {
    if StateKind::overlaps(ratio) { 2 } else { 1 }
}

/// Checks the operands that both ops share; the tail and the width of one lane.
fn check<'a>(s: &Sig<'a>) -> Result<(&'a StateType, u32), String> {
    let tail = s.state(0, StateKind::Tail)?;
    same("element type of the tail", crate::Scalar::F32, tail.scalar)?;
    let ratio = tail.kind.span();
    same("tail row modulo its lanes of k and gate", 0, tail.width % (2 * lanes(ratio)))?;
    let half = tail.width / 2;
    for i in [1, 2] {
        let expected = [Dim::Sym(Sym::Tokens), Dim::Const(half)];
        same(&format!("operand {i}: extents"), &expected[..], s.f32(i, 2)?)?;
    }
    s.weight(3, &[ratio, half])?;
    s.per_token(4)?;
    Ok((tail, half / lanes(ratio)))
}

fn pool_type(s: &Sig<'_>) -> Inferred {
    let (tail, width) = check(s)?;
    Ok(f32([Dim::Sym(Sym::Closed(tail.kind.span())), Dim::Const(width)]))
}

fn push_type(s: &Sig<'_>) -> Inferred {
    Ok(Type::State(*check(s)?.0))
}

/// The `k` and `gate + ape` of any token that the open block or the one before it needs: from this
/// step or from the tail.
struct Tokens<'a, F> {
    tail: State<'a, F>,
    k: Tensor<'a, F>,
    gate: Tensor<'a, F>,
    ape: Vec<F>,
    start: usize,
    ratio: usize,
}

impl<F: Real> Tokens<'_, F> {
    /// Fills `row` with `[k | gate + ape]` of the token at `p`.
    fn read(&self, p: usize, row: &mut [F]) {
        if p < self.start {
            return self.tail.read_row(p, row);
        }
        fill(row, &self.k, &self.gate, &self.ape, p - self.start, p % self.ratio);
    }
}

/// Writes `[k | gate + ape]` of step token `i`, `slot` being its place in its block.
fn fill<F: Real>(row: &mut [F], k: &Tensor<'_, F>, gate: &Tensor<'_, F>, ape: &[F], i: usize, slot: usize) {
    let half = row.len() / 2;
    let (to_k, to_gate) = row.split_at_mut(half);
    to_k.copy_from_slice(&k.real()[i * half..][..half]);
    let gate = &gate.real()[i * half..][..half];
    for ((o, g), a) in to_gate.iter_mut().zip(gate).zip(&ape[slot * half..]) {
        *o = *g + *a;
    }
}

fn compress_pool<F: Real>(f: &mut Frame<'_, F>) {
    let (tail, pos) = (f.state(0), f.tensor(4).int());
    let ratio = tail.ty.kind.span();
    let width = *f.out_dims().last().expect("an axis");
    let tokens = Tokens {
        tail,
        k: f.tensor(1),
        gate: f.tensor(2),
        ape: f.weight(3).to_real(),
        start: pos.first().map_or(0, |p| *p as usize),
        ratio: ratio as usize,
    };
    let overlaps = StateKind::overlaps(ratio);
    let ratio = ratio as usize;
    let mut slots = Vec::new();
    for (out, first) in f.out_real().chunks_exact_mut(width).zip(closed(pos, ratio)) {
        slots.clear();
        // Block 0 has no block before it: its lane A counts as -∞, which is the same as absent.
        if overlaps && first >= ratio {
            (first - ratio..first).for_each(|p| slots.push((p, 0)));
        }
        let own = if overlaps { width } else { 0 };
        (first..first + ratio).for_each(|p| slots.push((p, own)));
        pool(&tokens, &slots, out);
    }
}

/// One entry: `slots` are pairs of position and first channel of the lane.
fn pool<F: Real>(tokens: &Tokens<'_, F>, slots: &[(usize, usize)], out: &mut [F]) {
    let half = tokens.tail.ty.width as usize / 2;
    let mut row = vec![F::ZERO; 2 * half];
    let mut read = |p: usize, lane: usize, visit: &mut dyn FnMut(usize, F, F)| {
        tokens.read(p, &mut row);
        for c in 0..out.len() {
            visit(c, row[lane + c], row[half + lane + c]);
        }
    };
    let mut max = vec![F::NEG_INFINITY; out.len()];
    for &(p, lane) in slots {
        read(p, lane, &mut |c, _, g| max[c] = max[c].max(g));
    }
    let (mut sum, mut total) = (vec![F::ZERO; out.len()], vec![F::ZERO; out.len()]);
    for &(p, lane) in slots {
        read(p, lane, &mut |c, k, g| {
            let e = (g - max[c]).exp();
            total[c] += e;
            sum[c] += e * k;
        });
    }
    out.iter_mut().zip(sum.iter().zip(&total)).for_each(|(o, (s, t))| *o = *s / *t);
}

fn compress_push<F: Real>(f: &mut Frame<'_, F>) {
    let (k, gate, ape, pos) = (f.tensor(1), f.tensor(2), f.weight(3).to_real(), f.tensor(4).int());
    let ratio = f.out_state().ty.kind.span() as usize;
    for (i, p) in pos.iter().enumerate() {
        let p = *p as usize;
        fill(f.out_state().real_row(p), &k, &gate, &ape, i, p % ratio);
    }
}

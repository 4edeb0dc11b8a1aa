//! Attention with sinks over the window and, per kind of layer, compressed entries (spec 2.4).
//!
//! Keys come in one order whatever the split of the prompt: window positions ascending, then
//! entries. What of the window lies before this step is read from the ring, the rest from this
//! step's own rows.
//!
//! Products are added by fused multiplication and addition, in the order of [`dot`](super::dot): the
//! keys of a long context are many, and this halves the instructions that they take.
use super::infer::{Inferred, Sig, constant, same};
use super::{Op, prim};
use crate::view::{Frame, State, Tensor};
use crate::{Dim, Real, Scalar, StateKind, StateType, Sym, TensorType, Type};

pub(super) const ROWS: &[Op] = &[
    prim!(
        "attend_window",
        "q ring row @sinks pos",
        "Softmax attention of each head over the window, the head's sink in the denominator; keys are the values (spec 2.4).",
        window_type,
        attend_window
    ),
    prim!(
        "attend_selected",
        "q ring row sel idx @sinks pos",
        "attend_window with the gathered entries `sel` as further keys where idx is not -1.",
        selected_type,
        attend_selected
    ),
    prim!(
        "attend_entries",
        "q ring row entries @sinks pos",
        "attend_window with every entry that the token may see as a further key.",
        entries_type,
        attend_entries
    ),
];

/// Checks q, ring, row, sinks and pos; answers the result type and the ring.
fn check<'a>(s: &Sig<'a>, sinks: usize) -> Result<(Type, &'a StateType), String> {
    let q = s.f32(0, 3)?;
    same("rows of q", Dim::Sym(Sym::Tokens), q[0])?;
    let ring = s.state(1, StateKind::Ring)?;
    let row = s.of(2, ring.scalar)?;
    same("width of q", ring.width, constant(0, q[2])?)?;
    let expected = [Dim::Sym(Sym::Tokens), Dim::Const(ring.width)];
    same("extents of the rows", &expected[..], &row.dims[..])?;
    s.weight(sinks, &[constant(0, q[1])?])?;
    s.per_token(sinks + 1)?;
    Ok((Type::Tensor(TensorType::new(Scalar::F32, q.to_vec())), ring))
}

fn window_type(s: &Sig<'_>) -> Inferred {
    Ok(check(s, 3)?.0)
}

fn selected_type(s: &Sig<'_>) -> Inferred {
    let (ty, ring) = check(s, 5)?;
    let (sel, idx) = (s.of(3, ring.scalar)?, s.of(4, Scalar::I32)?);
    same("axes of sel", 3, sel.dims.len())?;
    same("extents of idx", &sel.dims[..2], &idx.dims[..])?;
    same("width of sel", Dim::Const(ring.width), sel.dims[2])?;
    Ok(ty)
}

fn entries_type(s: &Sig<'_>) -> Inferred {
    let (ty, ring) = check(s, 4)?;
    let entries = s.state(3, StateKind::Entries)?;
    same("row format of the entries", (ring.scalar, ring.width), (entries.scalar, entries.width))?;
    Ok(ty)
}

/// Decoded window rows: positions from `first` on, those before the step from the ring.
pub struct Window<F> {
    rows: Vec<F>,
    first: usize,
    span: usize,
    width: usize,
}

impl<F: Real> Window<F> {
    /// Decodes what the tokens at `pos` see of the ring and of their own rows.
    pub fn new(ring: &State<'_, F>, own: &Tensor<'_, F>, pos: &[i32]) -> Window<F> {
        let (width, span) = (ring.ty.width as usize, ring.ty.kind.span() as usize);
        let start = pos.first().map_or(0, |p| *p as usize);
        let first = (start + 1).saturating_sub(span);
        let mut rows = vec![F::ZERO; (start - first + pos.len()) * width];
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            match (first + i).checked_sub(start) {
                None => ring.read_row(first + i, row),
                Some(own_row) => own.read_row(own_row, row),
            }
        }
        Window { rows, first, span, width }
    }

    /// The keys that the token at `p` sees, `p` included.
    pub fn keys(&self, p: usize) -> impl Iterator<Item = &[F]> {
        let from = (p + 1).saturating_sub(self.span);
        let rows = &self.rows[(from - self.first) * self.width..(p + 1 - self.first) * self.width];
        rows.chunks_exact(self.width)
    }
}

/// Σ aᵢ·bᵢ in the eight partial sums of [`dot`](super::dot), each product added without being rounded.
pub fn fused_dot<F: Real>(a: &[F], b: &[F]) -> F {
    assert!(a.len() == b.len(), "fused_dot of {} and {} elements", a.len(), b.len());
    let mut sums = [F::ZERO; 8];
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        sums[i % 8] = x.mul_add(*y, sums[i % 8]);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Some heads of one token: `q` and `out` are `[heads, width]`, `keys` are the values too.
pub fn attend<F: Real>(q: &[F], keys: &[&[F]], sinks: &[F], out: &mut [F]) {
    let width = out.len() / sinks.len();
    let scale = F::ONE / F::from_f64(width as f64).sqrt();
    let mut scores = vec![F::ZERO; keys.len()];
    for ((q, out), sink) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(sinks) {
        let mut max = *sink;
        for (s, key) in scores.iter_mut().zip(keys) {
            *s = fused_dot(q, key) * scale;
            max = max.max(*s);
        }
        let mut total = (*sink - max).exp();
        out.fill(F::ZERO);
        for (s, key) in scores.iter().zip(keys) {
            let e = (*s - max).exp();
            total += e;
            out.iter_mut().zip(*key).for_each(|(o, k)| *o = e.mul_add(*k, *o));
        }
        out.iter_mut().for_each(|o| *o /= total);
    }
}

/// Runs `attend` for every token; `more(t, p)` lists the keys after the window's.
fn run<'k, F: Real>(
    f: &mut Frame<'_, F>,
    window: &'k Window<F>,
    sinks: usize,
    more: impl Fn(usize, usize) -> Vec<&'k [F]>,
) {
    let (q, pos) = (f.tensor(0).real(), f.tensor(sinks + 1).int());
    let sinks = f.weight(sinks).to_real::<F>();
    let size = sinks.len() * window.width;
    for (t, out) in f.out_real().chunks_exact_mut(size).enumerate() {
        let p = pos[t] as usize;
        let mut keys: Vec<&[F]> = window.keys(p).collect();
        keys.extend(more(t, p));
        attend(&q[t * size..][..size], &keys, &sinks, out);
    }
}

fn attend_window<F: Real>(f: &mut Frame<'_, F>) {
    let window = Window::new(&f.state(1), &f.tensor(2), f.tensor(4).int());
    run(f, &window, 3, |_, _| Vec::new());
}

fn attend_selected<F: Real>(f: &mut Frame<'_, F>) {
    let window = Window::new(&f.state(1), &f.tensor(2), f.tensor(6).int());
    let (sel, idx) = (f.tensor(3).to_real(), f.tensor(4));
    let (k, idx) = (idx.width(), idx.int());
    run(f, &window, 5, |t, _| {
        let chosen = (t * k..(t + 1) * k).filter(|i| idx[*i] >= 0);
        chosen.map(|i| &sel[i * window.width..][..window.width]).collect()
    });
}

fn attend_entries<F: Real>(f: &mut Frame<'_, F>) {
    let pos = f.tensor(5).int();
    let window = Window::new(&f.state(1), &f.tensor(2), pos);
    let entries = f.state(3);
    let ratio = entries.ty.kind.span() as usize;
    let n = pos.last().map_or(0, |p| (*p as usize + 1) / ratio);
    let mut keys = vec![F::ZERO; n * window.width];
    keys.chunks_exact_mut(window.width).enumerate().for_each(|(j, key)| entries.read_row(j, key));
    run(f, &window, 4, |_, p| keys.chunks_exact(window.width).take((p + 1) / ratio).collect());
}

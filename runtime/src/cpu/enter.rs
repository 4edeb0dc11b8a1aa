//! Small products whose results are gates or routes: `hc_enter`, `hc_head_enter`, `moe_route`,
//! `moe_route_hash`. Prepare, multiply, then finish token by token.
use super::cells::Cells;
use super::frame::SharedFrame;
use super::input::{Columns, Factor, Input, Layout, block_rows, extents, format, rows_max, value, weight};
use super::linear::identity;
use super::op::{OpKernel, Site};
use super::product::Job;
use super::select::select;
use crate::memory::cast_mut;
use ds4_ir::ops::moe::{router_score, weigh};
use ds4_ir::ops::{hc, norm};

/// Tokens that one task of finishing takes.
const TASK_TOKENS: usize = 8;

/// What comes after the product.
enum Finish {
    /// Gates of a sublayer: rounds of normalising, eps.
    Gates(usize, f32),
    /// Gates of the head: eps.
    HeadGates(f32),
    /// Experts by score: how many, scale.
    Select(usize, f32),
    /// Experts by token id: scale.
    Hash(f32),
}

/// A product of few weight rows and its finish.
pub(super) struct Enter {
    input: Input,
    factor: Factor,
    columns: Columns,
    /// Where the products lie in scratch.
    mix: usize,
    scratch: Layout,
    worker_bytes: usize,
    /// Elements of an input row, of a product row.
    width: usize,
    rows: usize,
    row_bytes: usize,
    /// Eps of the norm that the streams take before they are rounded.
    norm: Option<f32>,
    finish: Finish,
}

impl Enter {
    pub(super) fn new(site: &Site<'_>) -> Enter {
        let (fmt, norm, finish) = match site.op.name {
            "hc_enter" => (5, Some(site.real(4)), Finish::Gates(site.int(6), site.real(7))),
            "hc_head_enter" => (5, Some(site.real(4)), Finish::HeadGates(site.real(6))),
            "moe_route" => (3, None, Finish::Select(site.int(4), site.real(5))),
            "moe_route_hash" => (4, None, Finish::Hash(site.real(5))),
            other => panic!("`{other}` enters nothing"),
        };
        let (ty, w) = (value(site.args, 0), weight(site.args, 1));
        let (rows, width) = (extents(w)[0], extents(w)[1]);
        let tokens = rows_max(ty, width, site.maxima);
        let mut scratch = Layout::default();
        let new = if norm.is_some() { Input::made } else { Input::new };
        let mut input = new(0, ty, format(site.args, fmt), width, tokens);
        let factor = input.factor(site, 1, tokens, &mut scratch);
        let columns = Columns::new(tokens, &mut scratch);
        let mix = scratch.take(tokens * rows * 4);
        let normed = if norm.is_some() { width * 4 } else { 0 };
        // Scores and what is added to them, or scales and bases; and who is chosen.
        let finishing = 3 * rows.max(4) * 4;
        let multiply = (factor.kernel.scratch_bytes)(width, tokens);
        let worker_bytes = (normed + input.worker_bytes()).max(finishing).max(multiply);
        let row_bytes = w.scalar.row_bytes(width);
        Enter { input, factor, columns, mix, scratch, worker_bytes, width, rows, row_bytes, norm, finish }
    }

    fn block(&self, f: &SharedFrame<'_>) -> usize {
        block_rows(self.rows, self.row_bytes, self.factor.kernel.granule, f.threads)
    }

    /// Norms the streams of a token and prepares them.
    fn enter(&self, token: usize, eps: f32, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let h = &f.tensor(0).real()[token * self.width..][..self.width];
        let (normed, rounded) = worker.split_at_mut(self.width * 4);
        let normed = cast_mut::<f32>(normed, self.width);
        let scale = norm::scale(h, eps);
        normed.iter_mut().zip(h).for_each(|(o, x)| *o = *x * scale);
        self.input.round(token, normed, f, rounded);
    }

    fn multiply(&self, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let (block, tokens) = (self.block(f), self.tokens(f));
        let rows = task * block..((task + 1) * block).min(self.rows);
        let (inputs, stride) = self.input.prepared(&self.factor, f);
        // SAFETY: each task writes the cells of its own weight rows.
        let out = unsafe { Cells::shared(f.scratch, self.mix, tokens, self.rows) };
        let columns = self.columns.get(0..tokens, f);
        let m = f.weight(1).matrix(0);
        (self.factor.kernel.run)(&Job { m, rows, inputs, stride, columns, out: &out }, worker);
    }

    fn tokens(&self, f: &SharedFrame<'_>) -> usize {
        f.out_shape().0
    }

    fn finish(&self, token: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let n = self.rows;
        // SAFETY: the products are written in an earlier phase, and not again.
        let mix = unsafe { f.scratch.slice::<f32>(self.mix + token * n * 4, n) };
        let (own, rest) = cast_mut::<f32>(worker, 3 * n.max(4)).split_at_mut(n);
        let row = token..token + 1;
        match self.finish {
            Finish::Gates(rounds, eps) => {
                let (base, scale) = (own, &mut rest[..3]);
                f.weight(2).matrix(0).read_row(0, scale);
                f.weight(3).matrix(0).read_row(0, base);
                // SAFETY: each token belongs to one task.
                hc::gates_of(mix, scale, base, rounds, eps, unsafe { f.out_rows(row) });
            }
            Finish::HeadGates(eps) => {
                let (base, scale) = (own, &mut rest[..1]);
                f.weight(2).matrix(0).read_row(0, scale);
                f.weight(3).matrix(0).read_row(0, base);
                // SAFETY: each token belongs to one task.
                hc::head_gates_of(mix, scale[0], base, eps, unsafe { f.out_rows(row) });
            }
            Finish::Select(k, scale) => {
                let (biased, chosen) = rest.split_at_mut(n);
                own.iter_mut().zip(mix).for_each(|(o, x)| *o = router_score(*x));
                f.weight(2).matrix(0).read_row(0, biased);
                biased.iter_mut().zip(&*own).for_each(|(b, score)| *b += *score);
                let chosen = select(biased, k, chosen);
                // SAFETY: each token belongs to one task.
                weigh(own, chosen.iter().map(|e| *e as usize), scale, unsafe { f.out_rows(row) });
            }
            Finish::Hash(scale) => {
                own.iter_mut().zip(mix).for_each(|(o, x)| *o = router_score(*x));
                let id = f.tensor(3).int()[token] as usize;
                let chosen = f.weight(2).matrix(0).int_row(id);
                let chosen = chosen.map(|e| usize::try_from(e).expect("checked on load"));
                // SAFETY: each token belongs to one task.
                weigh(own, chosen, scale, unsafe { f.out_rows(row) });
            }
        }
    }
}

impl OpKernel for Enter {
    fn scratch_bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    fn worker_bytes(&self) -> usize {
        self.worker_bytes
    }

    fn phases(&self) -> usize {
        3
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        match phase {
            0 if self.norm.is_some() => self.tokens(f) + 1,
            0 => self.input.tasks(f) + 1,
            1 => self.rows.div_ceil(self.block(f)),
            _ => self.tokens(f).div_ceil(TASK_TOKENS),
        }
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let tokens = self.tokens(f);
        match phase {
            0 => {
                let Some(task) = task.checked_sub(1) else {
                    // SAFETY: the list is written by this task alone.
                    return identity(unsafe { self.columns.fill(0..tokens, f) });
                };
                match self.norm {
                    Some(eps) => self.enter(task, eps, f, worker),
                    None => self.input.prepare(task, f, worker),
                }
            }
            1 => self.multiply(task, f, worker),
            _ => {
                let own = task * TASK_TOKENS..((task + 1) * TASK_TOKENS).min(tokens);
                own.for_each(|token| self.finish(token, f, worker));
            }
        }
    }
}

//! The indexer: the scores of a token's keys, then the largest of them.
//!
//! A step of few tokens scores blocks of keys as tasks, into scratch, and selects in a second phase; with
//! more tokens each is one task whose scores stay in its thread's buffer.
mod score;
mod select;
#[cfg(test)]
mod tests;

use super::frame::SharedFrame;
use super::op::{OpKernel, Site};
use super::product::{Isa, isas};
use super::worker::{room, take};
use ds4_ir::ops::{SigArg, dot};
use ds4_ir::view::Data;
use ds4_ir::{Scalar, Type};
use score::{Head, ROW, SIDE};
use std::ops::Range;

/// Most tokens whose keys are split; the plan's scratch follows the same rule.
const SPLIT_TOKENS: u32 = 8;
/// Keys of a task.
const BLOCK: usize = 256;

/// `index_scores` and `topk`.
pub(super) struct IndexSelect {
    heads: usize,
    width: usize,
    ratio: usize,
    keys_max: usize,
    /// Tokens that the scratch holds scores of; 0 where tokens are not split.
    split: usize,
    /// Whether keys are packed as [`score`] reads them, and the machine has a version of it.
    packed: bool,
    isa: Isa,
}

impl IndexSelect {
    /// The kernel of a node.
    pub(super) fn new(site: &Site<'_>) -> Option<IndexSelect> {
        let (SigArg::Value(Type::Tensor(q)), SigArg::Value(Type::State(entries))) =
            (&site.args[0], &site.args[2])
        else {
            return None;
        };
        let [heads, width] = [1, 2].map(|axis| q.dims[axis].constant().expect("inferred") as usize);
        let split = if site.maxima.tokens <= SPLIT_TOKENS { site.maxima.tokens as usize } else { 0 };
        let keys_max = site.maxima.ctx.div_ceil(entries.kind.span()) as usize;
        let kernel = IndexSelect {
            heads,
            width,
            ratio: entries.kind.span() as usize,
            keys_max,
            split,
            packed: entries.scalar == Scalar::Idx4 && width == score::WIDTH,
            isa: Isa::Scalar,
        };
        Some(kernel.on(isas()[0]))
    }

    /// With kernels of that instruction set.
    pub(super) fn on(self, isa: Isa) -> IndexSelect {
        let packed = self.packed && (matches!(isa, Isa::Avx2 | Isa::Avx512) || cfg!(test));
        IndexSelect { isa, packed, ..self }
    }

    /// Keys that token `t` sees.
    fn seen(&self, f: &SharedFrame<'_>, t: usize) -> usize {
        (f.tensor(3).int()[t] as usize + 1) / self.ratio
    }

    /// Scores of a range of keys.
    fn score(&self, f: &SharedFrame<'_>, t: usize, keys: Range<usize>, out: &mut [f32], worker: &mut [u8]) {
        let mut rest = worker;
        let scale = 1.0 / ((self.width * self.heads) as f32).sqrt();
        if let (true, Data::Packed(rows)) = (self.packed, f.state(2).data) {
            let heads = take::<Head>(&mut rest, self.heads);
            if let Some(spread) = self.read_heads(f, t, heads) {
                let rows = &rows[keys.start * ROW..keys.end * ROW];
                let mut slow = self.slow(f, t, rest);
                for (i, rows) in rows.chunks(SIDE * ROW).enumerate() {
                    let mut scores = [0.0; SIDE];
                    let exact = match <&[u8; SIDE * ROW]>::try_from(rows) {
                        Ok(rows) => score::scores(self.isa, heads, spread, rows, &mut scores),
                        Err(_) => {
                            let mut padded = [0; SIDE * ROW];
                            padded[..rows.len()].copy_from_slice(rows);
                            score::scores(self.isa, heads, spread, &padded, &mut scores)
                        }
                    };
                    let n = rows.len() / ROW;
                    for (j, out) in out[i * SIDE..][..n].iter_mut().enumerate() {
                        let key = keys.start + i * SIDE + j;
                        let sum = if exact >> j & 1 == 1 { scores[j] } else { slow.sum(key) };
                        *out = sum * scale;
                    }
                }
                return;
            }
        }
        let mut slow = self.slow(f, t, rest);
        for (key, out) in keys.zip(out) {
            *out = slow.sum(key) * scale;
        }
    }

    /// The packed heads of token `t` and the largest spread of their scales; `None` if a product of
    /// theirs may be inexact for every key.
    fn read_heads(&self, f: &SharedFrame<'_>, t: usize, heads: &mut [Head]) -> Option<u8> {
        let Data::Packed(q) = f.tensor(0).data else { panic!("queries have the type of the keys") };
        let q = &q.as_chunks::<ROW>().0[t * self.heads..][..self.heads];
        let weights = &f.tensor(1).real()[t * self.heads..];
        let mut spread = 0;
        for ((head, q), weight) in heads.iter_mut().zip(q).zip(weights) {
            spread = spread.max(head.read(q, *weight)?);
        }
        Some(spread)
    }

    fn slow<'a>(&self, f: &'a SharedFrame<'a>, t: usize, worker: &'a mut [u8]) -> Slow<'a> {
        let mut rest = worker;
        let q = take::<f32>(&mut rest, self.heads * self.width);
        Slow { f, t, heads: self.heads, q, key: take::<f32>(&mut rest, self.width), read: false }
    }

    /// Floats of scores of token `t` in scratch, to write.
    ///
    /// # Safety
    /// While the slice lives, no other task reads or writes them.
    unsafe fn written<'a>(&self, f: &SharedFrame<'a>, t: usize, keys: Range<usize>) -> &'a mut [f32] {
        // SAFETY: as the caller says.
        unsafe { f.scratch.slice_mut((t * self.keys_max + keys.start) * 4, keys.len()) }
    }

    fn tokens(&self, f: &SharedFrame<'_>) -> usize {
        f.tensor(3).int().len()
    }

    fn blocks(&self, f: &SharedFrame<'_>) -> usize {
        self.tokens(f).checked_sub(1).map_or(0, |last| self.seen(f, last).div_ceil(BLOCK))
    }
}

/// Scores in the interpreter's order of summation, from decoded rows.
struct Slow<'a> {
    f: &'a SharedFrame<'a>,
    t: usize,
    heads: usize,
    q: &'a mut [f32],
    key: &'a mut [f32],
    /// Whether `q` holds the decoded heads.
    read: bool,
}

impl Slow<'_> {
    fn sum(&mut self, key: usize) -> f32 {
        let width = self.key.len();
        if !self.read {
            let q = self.f.tensor(0);
            for (h, row) in self.q.chunks_exact_mut(width).enumerate() {
                q.read_row(self.t * self.heads + h, row);
            }
            self.read = true;
        }
        self.f.state(2).read_row(key, self.key);
        let weights = &self.f.tensor(1).real()[self.t * self.heads..];
        let heads = self.q.chunks_exact(width).zip(weights);
        heads.map(|(q, weight)| dot(q, self.key).max(0.0) * weight).sum()
    }
}

impl OpKernel for IndexSelect {
    fn scratch_bytes(&self) -> u64 {
        (self.split * self.keys_max * 4) as u64
    }

    fn worker_bytes(&self) -> usize {
        let scores = if self.split == 0 { room::<f32>(self.keys_max) } else { 0 };
        let heads = if self.packed { room::<Head>(self.heads) } else { 0 };
        let slow = room::<f32>(self.heads * self.width) + room::<f32>(self.width);
        room::<u32>(select::COUNTS) + scores + heads + slow
    }

    fn phases(&self) -> usize {
        if self.split > 0 { 2 } else { 1 }
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        match (self.split, phase) {
            (1.., 0) => self.tokens(f) * self.blocks(f),
            _ => self.tokens(f),
        }
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let mut rest = worker;
        if self.split > 0 && phase == 0 {
            let (t, block) = (task / self.blocks(f), task % self.blocks(f));
            let keys = block * BLOCK..((block + 1) * BLOCK).min(self.seen(f, t));
            if !keys.is_empty() {
                // SAFETY: each block of keys of a token belongs to one task.
                let scores = unsafe { self.written(f, t, keys.clone()) };
                self.score(f, t, keys, scores, rest);
            }
            return;
        }
        let n = self.seen(f, task);
        let counts = take::<u32>(&mut rest, select::COUNTS);
        // SAFETY: each token belongs to one task.
        let out = unsafe { f.out_rows::<i32>(task..task + 1) };
        if self.split > 0 {
            // SAFETY: the first phase has written them.
            let scores = unsafe { f.scratch.slice(task * self.keys_max * 4, n) };
            return select::select(scores, counts, out);
        }
        let scores = take::<f32>(&mut rest, self.keys_max);
        self.score(f, task, 0..n, &mut scores[..n], rest);
        select::select(&scores[..n], counts, out);
    }
}

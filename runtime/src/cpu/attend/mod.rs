//! Attention over a ring and entries, all heads of a token against each decoded key.
//!
//! Heads share one key row, and keys are the values: a key is decoded once for the scores and, by
//! channels, once for the sums, never copied. Every number has the interpreter's order of summation, so
//! tokens, heads, keys and channels may be split freely:
//!
//! 1. scores of a block of keys and their maximum per head;
//! 2. the block's scores become exponentials, once all maxima are known;
//! 3. a block of channels: Σ of the exponentials, keys ascending, then the weighted keys likewise.
//!
//! A step of few tokens runs these as phases, its scores in scratch. With more tokens each is one task
//! that takes the three in turn in its thread's buffer.
mod keys;
#[cfg(test)]
mod tests;
mod tile;

use super::frame::SharedFrame;
use super::op::{OpKernel, Site};
use super::product::{Isa, isas};
use super::simd::versions;
use super::worker::{room, take};
use ds4_ir::ops::SigArg;
use ds4_ir::view::Tensor;
use ds4_ir::{Scalar, StateType, exp};
use keys::{CHANNELS, Keys, More};
use std::ops::Range;

/// Most tokens whose work is split; the plan's scratch follows the same rule.
const SPLIT_TOKENS: u32 = 8;
/// Keys of a block of scores; the plan's scratch follows the same rule.
const BLOCK: usize = 16;
/// Keys whose channels are decoded before they are added.
const CHUNK: usize = 64;

/// What the keys after the window are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Window,
    Entries,
    /// Rows of a value, and which of them count.
    Selected,
    /// Entries of these numbers.
    Gathered,
}

/// The kernel of all forms of attention.
pub(super) struct Attend {
    form: Form,
    /// Operand; `pos` and, where the result is rotated back, the table follow.
    sinks: usize,
    rotates: bool,
    heads: usize,
    width: usize,
    /// The width with zeros up to a multiple of 8.
    stride: usize,
    /// Most keys of a token.
    keys_max: usize,
    /// Most picked keys of a token.
    picked_max: usize,
    /// Tokens that the scratch holds scores of; 0 where tokens are not split.
    split: usize,
    isa: Isa,
}

fn state(arg: &SigArg<'_>) -> Option<StateType> {
    match arg {
        SigArg::Value(ty) => ty.state().copied(),
        _ => None,
    }
}

fn extent(arg: &SigArg<'_>, axis: usize) -> Option<usize> {
    match arg {
        SigArg::Value(ty) => ty.tensor()?.dims.get(axis)?.constant().map(|n| n as usize),
        _ => None,
    }
}

impl Attend {
    /// The kernel of a node, `None` where it has none for these types.
    pub(super) fn new(site: &Site<'_>) -> Option<Attend> {
        let (form, sinks) = match site.op.name {
            "attend_window" | "swa_attend" => (Form::Window, 3),
            "attend_entries" | "hca_attend" => (Form::Entries, 4),
            "attend_selected" => (Form::Selected, 5),
            "csa_attend" => (Form::Gathered, 5),
            _ => return None,
        };
        let rotates = site.args.len() == sinks + 3;
        let (heads, width) = (extent(&site.args[0], 1)?, extent(&site.args[0], 2)?);
        let ring = state(&site.args[1])?;
        if !matches!(ring.scalar, Scalar::F32 | Scalar::Kv8 { .. }) {
            return None;
        }
        let dims = if rotates { extent(&site.args[sinks + 2], 1)? } else { 0 };
        if !width.is_multiple_of(2) && dims > 0 && width > CHANNELS {
            // A rotated pair would lie in two blocks of channels.
            return None;
        }
        let (more_max, picked_max) = match form {
            Form::Window => (0, 0),
            Form::Entries => (site.maxima.ctx.div_ceil(state(&site.args[3])?.kind.span()) as usize, 0),
            Form::Selected | Form::Gathered => {
                let k = extent(&site.args[4], 1)?;
                (k, k)
            }
        };
        // A primitive has no scratch in any plan.
        let split = if rotates && site.maxima.tokens <= SPLIT_TOKENS { site.maxima.tokens } else { 0 };
        Some(Attend {
            form,
            sinks,
            rotates,
            heads,
            width,
            stride: width.next_multiple_of(8),
            keys_max: ring.kind.span() as usize + more_max,
            picked_max,
            split: split as usize,
            isa: isas()[0],
        })
    }

    /// With kernels of that instruction set.
    #[cfg(test)]
    pub(super) fn on(self, isa: Isa) -> Attend {
        Attend { isa, ..self }
    }

    /// Floats of the scores of one token: the maxima of each block, then by key and head.
    fn scores_len(&self) -> usize {
        (self.keys_max.div_ceil(BLOCK) + self.keys_max) * self.heads
    }

    /// The keys of token `t`; `picked` is memory for the numbers of chosen rows.
    fn keys<'a>(&self, f: &SharedFrame<'a>, t: usize, picked: &'a mut [u32]) -> Keys<'a> {
        let (ring, own, pos) = (f.state(1), f.tensor(2), f.tensor(self.sinks + 1).int());
        let p = pos[t] as usize;
        let more = match self.form {
            Form::Window => More::First(own.data, 0),
            Form::Entries => More::First(f.state(3).data, (p + 1) / f.state(3).ty.kind.span() as usize),
            Form::Selected => More::Picked(f.tensor(3).data, pick(&f.tensor(4), t, true, picked)),
            Form::Gathered => More::Picked(f.state(3).data, pick(&f.tensor(4), t, false, picked)),
        };
        let keys = Keys::new(ring, own, pos[0] as usize, p, more);
        assert!(keys.len() <= self.keys_max, "{} keys of at most {}", keys.len(), self.keys_max);
        keys
    }

    /// Scores and maxima of a block of keys.
    fn score(
        &self,
        f: &SharedFrame<'_>,
        t: usize,
        keys: &Keys<'_>,
        block: Range<usize>,
        (scores, maxima): (&mut [f32], &mut [f32]),
        worker: &mut [u8],
    ) {
        let mut rest = worker;
        let q = &f.tensor(0).real()[t * self.heads * self.width..][..self.heads * self.width];
        let decoded = take::<f32>(&mut rest, BLOCK * self.stride);
        let q = if self.stride == self.width { q } else { self.padded(q, &mut rest) };
        keys.read_groups(self.isa, block.clone(), self.stride, decoded);
        let scale = 1.0 / (self.width as f32).sqrt();
        tile::scores(self.isa, q, self.stride, decoded, block.len(), scale, scores);
        maxima.fill(f32::NEG_INFINITY);
        raise(self.isa, scores, maxima);
    }

    fn padded<'a>(&self, q: &[f32], rest: &mut &'a mut [u8]) -> &'a [f32] {
        let padded = take::<f32>(rest, self.heads * self.stride);
        for (to, q) in padded.chunks_exact_mut(self.stride).zip(q.chunks_exact(self.width)) {
            to[..self.width].copy_from_slice(q);
            to[self.width..].fill(0.0);
        }
        padded
    }

    fn sinks(&self, f: &SharedFrame<'_>, out: &mut [f32]) {
        f.weight(self.sinks).matrix(0).read_row(0, out);
    }

    /// The larger of the sink and all scores, per head.
    fn maximum<'a>(&self, f: &SharedFrame<'_>, maxima: &[f32], rest: &mut &'a mut [u8]) -> &'a mut [f32] {
        let max = take::<f32>(rest, self.heads);
        self.sinks(f, max);
        raise(self.isa, maxima, max);
        max
    }

    /// The results of all heads of token `t` in the channels of one block.
    fn mix(
        &self,
        f: &SharedFrame<'_>,
        t: usize,
        keys: &Keys<'_>,
        from: usize,
        (weights, max): (&[f32], &[f32]),
        worker: &mut [u8],
    ) {
        let mut rest = worker;
        let (totals, acc) =
            (take::<f32>(&mut rest, self.heads), take::<f32>(&mut rest, self.heads * CHANNELS));
        let decoded = take::<f32>(&mut rest, CHUNK * CHANNELS);
        self.sinks(f, totals);
        exponentials(self.isa, totals, max);
        sums(self.isa, weights, totals);
        acc.fill(0.0);
        for (chunk, weights) in weights.chunks(CHUNK * self.heads).enumerate() {
            let n = weights.len() / self.heads;
            keys.read_channels(self.isa, chunk * CHUNK..chunk * CHUNK + n, from, decoded);
            tile::mix(self.isa, weights, self.heads, &decoded[..n * CHANNELS], acc);
        }
        let channels = from..(from + CHANNELS).min(self.width);
        for (head, (acc, total)) in acc.chunks_exact(CHANNELS).zip(&*totals).enumerate() {
            // SAFETY: each token, head and block of channels belongs to one task.
            let out = unsafe { f.out_part::<f32>(t * self.heads + head, channels.clone()) };
            divide(self.isa, acc, *total, out);
            if self.rotates {
                self.unrope(&f.tensor(self.sinks + 2), t, from, out);
            }
        }
    }

    /// Rotates channels `from..` of token `t` back, as `unrope` does.
    fn unrope(&self, table: &Tensor<'_, f32>, t: usize, from: usize, out: &mut [f32]) {
        let dims = table.width();
        let first = self.width - dims;
        let skip = first.saturating_sub(from).min(out.len());
        let angles = &table.real()[t * dims + (from + skip).saturating_sub(first)..];
        let out = &mut out[skip..];
        super::rows::rotate_back(out, &angles[..out.len()]);
    }

    /// One token from beginning to end.
    fn token(&self, f: &SharedFrame<'_>, t: usize, worker: &mut [u8]) {
        let mut rest = worker;
        let picked = take::<u32>(&mut rest, self.picked_max);
        let scores = take::<f32>(&mut rest, self.scores_len());
        let keys = self.keys(f, t, picked);
        let n = keys.len();
        let (maxima, scores) = scores.split_at_mut(self.keys_max.div_ceil(BLOCK) * self.heads);
        let blocks = maxima.chunks_exact_mut(self.heads).zip(scores.chunks_mut(BLOCK * self.heads));
        for (block, (maxima, scores)) in blocks.enumerate().take(n.div_ceil(BLOCK)) {
            let range = block * BLOCK..((block + 1) * BLOCK).min(n);
            let scores = &mut scores[..range.len() * self.heads];
            self.score(f, t, &keys, range, (scores, maxima), rest);
        }
        let max = self.maximum(f, &maxima[..n.div_ceil(BLOCK) * self.heads], &mut rest);
        let scores = &mut scores[..n * self.heads];
        exponentials(self.isa, scores, max);
        for from in (0..self.width).step_by(CHANNELS) {
            self.mix(f, t, &keys, from, (scores, max), rest);
        }
    }

    /// Floats of token `t` in scratch, to write.
    ///
    /// # Safety
    /// While the slice lives, no other task reads or writes them.
    unsafe fn written<'a>(&self, f: &SharedFrame<'a>, t: usize, floats: Range<usize>) -> &'a mut [f32] {
        // SAFETY: as the caller says.
        unsafe { f.scratch.slice_mut((t * self.scores_len() + floats.start) * 4, floats.len()) }
    }

    /// Floats of token `t` in scratch.
    ///
    /// # Safety
    /// An earlier phase wrote them, and no task writes them now.
    unsafe fn read<'a>(&self, f: &SharedFrame<'a>, t: usize, floats: Range<usize>) -> &'a [f32] {
        // SAFETY: as the caller says.
        unsafe { f.scratch.slice((t * self.scores_len() + floats.start) * 4, floats.len()) }
    }

    /// Blocks of keys of the step's last token, which has the most.
    fn blocks(&self, f: &SharedFrame<'_>) -> usize {
        let p = f.tensor(self.sinks + 1).int().last().map_or(0, |p| *p as usize);
        let more = match self.form {
            Form::Entries => (p + 1) / f.state(3).ty.kind.span() as usize,
            _ => self.picked_max,
        };
        ((p + 1).min(f.state(1).ty.kind.span() as usize) + more).div_ceil(BLOCK)
    }

    fn is_split(&self, f: &SharedFrame<'_>) -> bool {
        f.tensor(self.sinks + 1).int().len() <= self.split
    }
}

/// The numbers of the chosen rows of token `t`: those of `idx`, or of rows that stand in its order.
fn pick<'a>(idx: &Tensor<'_, f32>, t: usize, in_order: bool, picked: &'a mut [u32]) -> &'a [u32] {
    let k = idx.width();
    let chosen = idx.int()[t * k..][..k].iter().enumerate();
    let chosen = chosen.filter_map(|(i, j)| Some((i, u32::try_from(*j).ok()?)));
    let mut n = 0;
    for (i, j) in chosen {
        picked[n] = if in_order { (t * k + i) as u32 } else { j };
        n += 1;
    }
    &picked[..n]
}

versions! {
    /// Raises each maximum to the scores of its head.
    fn raise<V>(scores: &[f32], maxima: &mut [f32]) {
        for row in scores.chunks_exact(maxima.len()) {
            for (m, s) in maxima.iter_mut().zip(row) {
                *m = m.max(*s);
            }
        }
    }
}

versions! {
    /// Scores become e^(score - maximum of the head).
    fn exponentials<V>(scores: &mut [f32], max: &[f32]) {
        for row in scores.chunks_exact_mut(max.len()) {
            for (s, m) in row.iter_mut().zip(max) {
                *s = exp(*s - *m);
            }
        }
    }
}

versions! {
    /// Adds the rows to `totals`, first row first.
    fn sums<V>(rows: &[f32], totals: &mut [f32]) {
        for row in rows.chunks_exact(totals.len()) {
            for (t, x) in totals.iter_mut().zip(row) {
                *t += *x;
            }
        }
    }
}

versions! {
    fn divide<V>(x: &[f32], by: f32, out: &mut [f32]) {
        for (o, x) in out.iter_mut().zip(x) {
            *o = *x / by;
        }
    }
}

impl OpKernel for Attend {
    fn scratch_bytes(&self) -> u64 {
        (self.split * self.scores_len() * 4) as u64
    }

    fn worker_bytes(&self) -> usize {
        let score = room::<f32>(BLOCK * self.stride)
            + if self.stride == self.width { 0 } else { room::<f32>(self.heads * self.stride) };
        let mix =
            room::<f32>(self.heads) + room::<f32>(self.heads * CHANNELS) + room::<f32>(CHUNK * CHANNELS);
        let whole = if self.split == 0 { room::<f32>(self.scores_len()) } else { 0 };
        room::<u32>(self.picked_max) + whole + room::<f32>(self.heads) + score.max(mix)
    }

    fn phases(&self) -> usize {
        if self.split > 0 { 3 } else { 1 }
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        let tokens = f.tensor(self.sinks + 1).int().len();
        match phase {
            _ if !self.is_split(f) => {
                if phase == 0 {
                    tokens
                } else {
                    0
                }
            }
            2 => tokens * self.width.div_ceil(CHANNELS),
            _ => tokens * self.blocks(f),
        }
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        if !self.is_split(f) {
            return self.token(f, task, worker);
        }
        let mut rest = worker;
        let picked = take::<u32>(&mut rest, self.picked_max);
        let parts = if phase == 2 { self.width.div_ceil(CHANNELS) } else { self.blocks(f) };
        let (t, part) = (task / parts, task % parts);
        let keys = self.keys(f, t, picked);
        let (heads, n, first) = (self.heads, keys.len(), self.keys_max.div_ceil(BLOCK) * self.heads);
        let block = part * BLOCK..((part + 1) * BLOCK).min(n);
        if phase < 2 && block.is_empty() {
            return;
        }
        let own = first + block.start * heads..first + block.end * heads;
        let maxima = 0..n.div_ceil(BLOCK) * heads;
        match phase {
            0 => {
                // SAFETY: each block's scores and maxima belong to one task.
                let scores = unsafe { self.written(f, t, own) };
                // SAFETY: as above.
                let maxima = unsafe { self.written(f, t, part * heads..(part + 1) * heads) };
                self.score(f, t, &keys, block, (scores, maxima), rest);
            }
            1 => {
                // SAFETY: each block's scores belong to one task.
                let scores = unsafe { self.written(f, t, own) };
                // SAFETY: the first phase has written the maxima.
                let max = self.maximum(f, unsafe { self.read(f, t, maxima) }, &mut rest);
                exponentials(self.isa, scores, max);
            }
            _ => {
                // SAFETY: the first phase has written the maxima, the second the scores.
                let (maxima, weights) =
                    unsafe { (self.read(f, t, maxima), self.read(f, t, first..first + n * heads)) };
                let max = self.maximum(f, maxima, &mut rest);
                self.mix(f, t, &keys, part * CHANNELS, (weights, max), rest);
            }
        }
    }
}

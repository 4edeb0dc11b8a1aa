//! The compressor: blocks that a step closes go to the threads, each to its end in one task.
use super::encode::encode;
use super::frame::{Place, SharedFrame};
use super::op::{OpKernel, Site};
use super::product::{Isa, isas};
use super::rows::{rms_norm, rotate, transform};
use super::simd::versions;
use super::worker::{room, take};
use ds4_ir::ops::SigArg;
use ds4_ir::view::{Data, state_slot};
use ds4_ir::{Scalar, StateKind, StateType, Type, exp};

/// Operands: tail, k, gate, ape, pos; then, where rows are finished, the norm's weight, the table, eps.
const POS: usize = 4;

/// `compress_pool`, `compress_row`, `compress_index_row`.
pub(super) struct Compress {
    tail: StateType,
    /// Channels of an entry.
    width: usize,
    /// Whether entries are normed and rotated.
    finishes: bool,
    /// Whether they are index keys.
    transforms: bool,
    isa: Isa,
}

fn tail_of(arg: &SigArg<'_>) -> Option<StateType> {
    match arg {
        SigArg::Value(Type::State(ty)) => Some(*ty),
        _ => None,
    }
}

impl Compress {
    /// The kernel of a node.
    pub(super) fn new(site: &Site<'_>) -> Option<Compress> {
        let Type::Tensor(ty) = site.ty else { return None };
        Some(Compress {
            tail: tail_of(&site.args[0])?,
            width: ty.dims[1].constant()? as usize,
            finishes: site.op.name != "compress_pool",
            transforms: site.op.name == "compress_index_row",
            isa: isas()[0],
        })
    }

    /// With kernels of that instruction set.
    #[cfg(test)]
    pub(super) fn on(self, isa: Isa) -> Compress {
        Compress { isa, ..self }
    }

    fn ratio(&self) -> usize {
        self.tail.kind.span() as usize
    }

    /// First position of the first block that the step closes.
    fn first(&self, f: &SharedFrame<'_>) -> usize {
        let start = f.tensor(POS).int().first().map_or(0, |p| *p as usize);
        start / self.ratio() * self.ratio()
    }

    /// Calls `visit` with `k`, `gate` and `ape` of each token that the block from `first` on pools, in
    /// the lane that counts. The tail's gates hold `ape` already: theirs is empty.
    fn visit(
        &self,
        f: &SharedFrame<'_>,
        first: usize,
        ape: &mut [f32],
        mut visit: impl FnMut(&[f32], &[f32], &[f32]),
    ) {
        let (tail, half) = (f.state(0), self.tail.width as usize / 2);
        let (k, gate) = (f.tensor(1).real(), f.tensor(2).real());
        let start = f.tensor(POS).int()[0] as usize;
        let overlaps = StateKind::overlaps(self.tail.kind.span());
        // Block 0 has no block before it: its lane A counts as -∞, which is the same as absent.
        let before = if overlaps && first > 0 { self.ratio() } else { 0 };
        for p in first - before..first + self.ratio() {
            let lane = if overlaps && p >= first { self.width } else { 0 };
            let part = lane..lane + self.width;
            if p < start {
                let Data::Real(rows) = tail.data else { panic!("tails are f32") };
                let row = &rows[state_slot(tail.ty.kind, tail.capacity, p) * 2 * half..][..2 * half];
                visit(&row[..half][part.clone()], &row[half..][part], &[]);
            } else {
                let at = (p - start) * half;
                f.weight(3).matrix(0).read_row(p % self.ratio(), ape);
                visit(&k[at..][part.clone()], &gate[at..][part.clone()], &ape[part]);
            }
        }
    }

    /// One entry, not yet finished.
    fn pool(&self, f: &SharedFrame<'_>, first: usize, out: &mut [f32], worker: &mut [u8]) {
        let mut rest = worker;
        let ape = take::<f32>(&mut rest, self.tail.width as usize / 2);
        let max = take::<f32>(&mut rest, self.width);
        let total = take::<f32>(&mut rest, self.width);
        max.fill(f32::NEG_INFINITY);
        self.visit(f, first, ape, |_, gate, ape| raise(self.isa, gate, ape, max));
        total.fill(0.0);
        out.fill(0.0);
        self.visit(f, first, ape, |k, gate, ape| add(self.isa, (k, gate, ape), max, total, out));
        out.iter_mut().zip(total).for_each(|(o, t)| *o /= *t);
    }
}

versions! {
    fn raise<V>(gate: &[f32], ape: &[f32], max: &mut [f32]) {
        if ape.is_empty() {
            for (m, g) in max.iter_mut().zip(gate) {
                *m = m.max(*g);
            }
        } else {
            for ((m, g), a) in max.iter_mut().zip(gate).zip(ape) {
                *m = m.max(*g + *a);
            }
        }
    }
}

versions! {
    /// Adds e^(gate - max) to the totals and its product with `k` to the sums.
    fn add<V>(token: (&[f32], &[f32], &[f32]), max: &[f32], total: &mut [f32], sum: &mut [f32]) {
        let n = sum.len();
        let (k, gate, max, total) = (&token.0[..n], &token.1[..n], &max[..n], &mut total[..n]);
        for c in 0..n {
            let gate = if token.2.is_empty() { gate[c] } else { gate[c] + token.2[c] };
            let e = exp(gate - max[c]);
            total[c] += e;
            sum[c] += e * k[c];
        }
    }
}

impl OpKernel for Compress {
    fn worker_bytes(&self) -> usize {
        room::<f32>(self.width) * 4 + room::<f32>(self.tail.width as usize / 2)
    }

    fn tasks(&self, _: usize, f: &SharedFrame<'_>) -> usize {
        f.out_shape().0
    }

    fn run(&self, _: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let mut rest = worker;
        let pooled = take::<f32>(&mut rest, self.width);
        self.pool(f, self.first(f) + task * self.ratio(), pooled, rest);
        let row = take::<f32>(&mut rest, self.width);
        if self.finishes {
            f.weight(5).matrix(0).read_row(0, row);
            let table = f.tensor(6);
            let dims = table.width();
            let norm = take::<f32>(&mut rest, self.width);
            norm.copy_from_slice(row);
            rms_norm(self.isa, pooled, norm, f.lit(7), row);
            rotate(&mut row[self.width - dims..], &table.real()[task * dims..][..dims]);
        } else {
            row.copy_from_slice(pooled);
        }
        let Place::Tensor { scalar, .. } = f.place else { panic!("the result is no value") };
        if scalar == Scalar::F32 {
            // SAFETY: each row belongs to one task.
            return unsafe { f.out_rows::<f32>(task..task + 1) }.copy_from_slice(row);
        }
        if self.transforms {
            transform(self.isa, row);
        }
        // SAFETY: as above.
        encode(self.isa, scalar, row, unsafe { f.out_rows::<u8>(task..task + 1) });
    }
}

/// `compress_push`.
pub(super) struct Push {
    tail: StateType,
    isa: Isa,
}

/// Tokens that one task pushes.
const PUSH_TOKENS: usize = 16;

impl Push {
    /// The kernel of a node.
    pub(super) fn new(site: &Site<'_>) -> Option<Push> {
        Some(Push { tail: tail_of(&site.args[0])?, isa: isas()[0] })
    }
}

versions! {
    fn sum<V>(a: &[f32], out: &mut [f32]) {
        for (o, a) in out.iter_mut().zip(a) {
            *o += *a;
        }
    }
}

impl OpKernel for Push {
    fn tasks(&self, _: usize, f: &SharedFrame<'_>) -> usize {
        // Of tokens that would take the same row the last one counts.
        let capacity = f.out_state_type().1;
        let tokens = f.tensor(POS).int().len();
        if tokens > capacity { 1 } else { tokens.div_ceil(PUSH_TOKENS) }
    }

    fn run(&self, _: usize, task: usize, f: &SharedFrame<'_>, _: &mut [u8]) {
        let pos = f.tensor(POS).int();
        let (half, capacity) = (self.tail.width as usize / 2, f.out_state_type().1);
        let tokens = if pos.len() > capacity {
            pos.len() - capacity..pos.len()
        } else {
            task * PUSH_TOKENS..((task + 1) * PUSH_TOKENS).min(pos.len())
        };
        for i in tokens {
            let p = pos[i] as usize;
            // SAFETY: tokens of a step have rows of their own, as they are no more than rows.
            let row = unsafe { f.out_state_row::<f32>(p) };
            let (k, gate) = row.split_at_mut(half);
            k.copy_from_slice(&f.tensor(1).real()[i * half..][..half]);
            f.weight(3).matrix(0).read_row(p % self.tail.kind.span() as usize, gate);
            sum(self.isa, &f.tensor(2).real()[i * half..][..half], gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Compress;
    use crate::cpu::case::{Case, case};
    use crate::cpu::product::isas;

    fn check(case: &Case) {
        for isa in isas() {
            case.check_kernel(&|site| Box::new(Compress::new(site).expect("a kernel").on(*isa)));
        }
    }

    /// Ratio, lanes, channels of an entry, steps.
    const SHAPES: [(usize, usize, usize); 4] = [(4, 2, 512), (4, 2, 24), (128, 1, 72), (8, 1, 16)];
    const STEPS: [(usize, usize); 9] =
        [(0, 1), (3, 1), (0, 4), (1, 2), (2, 7), (126, 3), (127, 1), (130, 140), (5, 300)];

    #[test]
    fn blocks_become_entries() {
        for (ratio, lanes, d) in SHAPES {
            let half = lanes * d;
            let header = format!(
                "%tail: state tail/{ratio} f32[{}], %k: f32[t, {half}], %gate: f32[t, {half}], %pos: i32[t], \
                 %table: f32[m{ratio}, 4], @ape: f32[{ratio}, {half}], @w: f32[{d}]",
                2 * half
            );
            let pool = format!("%y = compress_pool %tail, %k, %gate, @ape, %pos : f32[m{ratio}, {d}]");
            let args = "%tail, %k, %gate, @ape, %pos, @w, %table, eps=1e-6";
            let row = format!("%y = compress_row {args}, fmt=kv8, dims=4 : kv8r4[m{ratio}, {d}]");
            let plain = format!("%y = compress_row {args}, fmt=f32, dims=4 : f32[m{ratio}, {d}]");
            let index = format!("%y = compress_index_row {args}, fmt=idx4 : idx4[m{ratio}, {d}]");
            for (start, tokens) in STEPS {
                for line in [&pool, &row, &plain] {
                    check(&case(&header, line, start, tokens).scaled("gate", 5.0));
                }
                if d.is_power_of_two() {
                    check(&case(&header, &index, start, tokens));
                }
            }
        }
    }

    #[test]
    fn tails_take_tokens() {
        for (ratio, lanes, d) in SHAPES {
            let half = lanes * d;
            let header = format!(
                "%tail: state tail/{ratio} f32[{0}], %k: f32[t, {half}], %gate: f32[t, {half}], %pos: i32[t], \
                 @ape: f32[{ratio}, {half}]",
                2 * half
            );
            let line = format!(
                "%y = compress_push %tail, %k, %gate, @ape, %pos : state tail/{ratio} f32[{}]",
                2 * half
            );
            for (start, tokens) in STEPS {
                case(&header, &line, start, tokens).check();
            }
        }
    }
}

//! Ops that make each row of their result of one row, or of a token's few: norms, rotations, streams,
//! rounding. Rows go to the threads; what a row becomes on the way stays in the thread's buffer.
use super::encode::encode;
use super::frame::{Place, SharedFrame};
use super::op::{OpKernel, Site};
use super::product::{Isa, isas};
use super::simd::versions;
use super::worker::{room, take};
use ds4_ir::formats::hadamard;
use ds4_ir::{Scalar, Type};

/// Elements that one task makes, in whole rows.
const TASK_ELEMENTS: usize = 1 << 12;

/// What is done to a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    RmsNorm,
    RoundAct,
    ToIndex,
    HeadRope,
    KvRow,
    IndexQuery,
    HcPre,
    HcPreNorm,
    HcPost,
}

/// By name of the op.
const KINDS: [(&str, Kind); 10] = [
    ("hc_post", Kind::HcPost),
    ("hc_pre", Kind::HcPre),
    ("hc_pre_norm", Kind::HcPreNorm),
    ("head_rope", Kind::HeadRope),
    ("index_query", Kind::IndexQuery),
    ("kv_row", Kind::KvRow),
    ("rms_norm", Kind::RmsNorm),
    ("round_act", Kind::RoundAct),
    ("to_index", Kind::ToIndex),
    ("to_row", Kind::RoundAct),
];

/// The kernel of such an op.
pub(super) struct Rows {
    kind: Kind,
    /// Elements of a row of the result.
    width: usize,
    isa: Isa,
}

impl Rows {
    /// The kernel of a node.
    pub(super) fn new(site: &Site<'_>) -> Option<Rows> {
        let (_, kind) = KINDS.iter().find(|(name, _)| *name == site.op.name)?;
        let Type::Tensor(ty) = site.ty else { return None };
        let width = ty.dims.last()?.constant()? as usize;
        Some(Rows { kind: *kind, width, isa: isas()[0] })
    }

    /// With kernels of that instruction set.
    #[cfg(test)]
    pub(super) fn on(self, isa: Isa) -> Rows {
        Rows { isa, ..self }
    }

    fn task_rows(&self) -> usize {
        (TASK_ELEMENTS / self.width).max(1)
    }

    /// Operand with the weight of a norm.
    fn norm(&self) -> Option<usize> {
        match self.kind {
            Kind::RmsNorm | Kind::KvRow => Some(1),
            Kind::HcPreNorm => Some(2),
            _ => None,
        }
    }

    /// Makes row `r` in `x`.
    fn make(&self, f: &SharedFrame<'_>, r: usize, norm: &[f32], x: &mut [f32]) {
        let isa = self.isa;
        let from = |i: usize| &f.tensor(i).real()[r * self.width..][..self.width];
        match self.kind {
            Kind::RmsNorm => rms_norm(isa, from(0), norm, f.lit(2), x),
            Kind::RoundAct => x.copy_from_slice(from(0)),
            Kind::ToIndex => x.copy_from_slice(from(0)),
            Kind::HeadRope => {
                let row = from(0);
                let scale = rms_scale(isa, row, f.lit(3));
                x.iter_mut().zip(row).for_each(|(o, x)| *o = *x * scale);
                self.rotate(f, 1, r, x);
            }
            Kind::KvRow => {
                rms_norm(isa, from(0), norm, f.lit(3), x);
                self.rotate(f, 2, r, x);
            }
            Kind::IndexQuery => {
                x.copy_from_slice(from(0));
                self.rotate(f, 1, r, x);
            }
            Kind::HcPre => self.join(f, r, x),
            Kind::HcPreNorm => {
                self.join(f, r, x);
                let scale = rms_scale(isa, x, f.lit(3));
                x.iter_mut().zip(norm).for_each(|(x, w)| *x = *x * scale * *w);
            }
            Kind::HcPost => {
                let (h, gates) = (f.tensor(0), f.tensor(2).real());
                let (n, width) = (h.dims[1], self.width);
                let (t, j) = (r / n, r % n);
                let gates = &gates[t * (n * n + 2 * n)..][..n * n + 2 * n];
                let y = &f.tensor(1).real()[t * width..][..width];
                mix(isa, &h.real()[t * n * width..][..n * width], y, gates, j, x);
            }
        }
        let packed = !matches!(f.place, Place::Tensor { scalar: Scalar::F32, .. });
        if packed && matches!(self.kind, Kind::ToIndex | Kind::IndexQuery) {
            transform(isa, x);
        }
    }

    /// The streams of token `t` joined.
    fn join(&self, f: &SharedFrame<'_>, t: usize, x: &mut [f32]) {
        let (h, gates) = (f.tensor(0), f.tensor(1));
        let (n, stride) = (h.dims[1], gates.width());
        join(self.isa, &h.real()[t * n * self.width..], &gates.real()[t * stride..][..n], x);
    }

    /// Rotates row `r` by the angles of its token.
    fn rotate(&self, f: &SharedFrame<'_>, table: usize, r: usize, x: &mut [f32]) {
        let table = f.tensor(table);
        let (rows, _) = f.out_shape();
        let (per_token, dims) = (rows / table.rows().max(1), table.width());
        let angles = &table.real()[r / per_token * dims..][..dims];
        rotate(&mut x[self.width - dims..], angles);
    }
}

/// Rotates pairs, as `rope` does.
pub(super) fn rotate(x: &mut [f32], angles: &[f32]) {
    for (pair, angle) in x.as_chunks_mut::<2>().0.iter_mut().zip(angles.as_chunks::<2>().0) {
        let ([a, b], [cos, sin]) = (*pair, *angle);
        *pair = [a * cos - b * sin, a * sin + b * cos];
    }
}

/// Rotates pairs back, as `unrope` does.
pub(super) fn rotate_back(x: &mut [f32], angles: &[f32]) {
    for (pair, angle) in x.as_chunks_mut::<2>().0.iter_mut().zip(angles.as_chunks::<2>().0) {
        let ([a, b], [cos, sin]) = (*pair, [angle[0], -angle[1]]);
        *pair = [a * cos - b * sin, a * sin + b * cos];
    }
}

versions! {
    /// The factor that gives `x` an RMS of one.
    pub(super) fn rms_scale<V>(x: &[f32], eps: f32) -> f32 {
        let mut sums = [0.0f32; 8];
        let (eights, rest) = x.as_chunks::<8>();
        for x in eights {
            for lane in 0..8 {
                sums[lane] += x[lane] * x[lane];
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += *x * *x;
        }
        let [a, b, c, d, e, f, g, h] = sums;
        let mean = (((a + b) + (c + d)) + ((e + f) + (g + h))) / x.len() as f32;
        1.0 / (mean + eps).sqrt()
    }
}

/// As the op of that name, one row.
pub(super) fn rms_norm(isa: Isa, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    weighed(isa, x, rms_scale(isa, x, eps), w, out);
}

versions! {
    fn weighed<V>(x: &[f32], scale: f32, w: &[f32], out: &mut [f32]) {
        for ((o, x), w) in out.iter_mut().zip(x).zip(w) {
            *o = *x * scale * *w;
        }
    }
}

versions! {
    /// The transform of index rows.
    pub(super) fn transform<V>(x: &mut [f32]) {
        hadamard(x);
    }
}

versions! {
    /// Σ_j gates_j · h_j.
    fn join<V>(h: &[f32], gates: &[f32], out: &mut [f32]) {
        let width = out.len();
        out.fill(0.0);
        for (gate, row) in gates.iter().zip(h.chunks_exact(width)) {
            for (o, x) in out.iter_mut().zip(row) {
                *o += *gate * *x;
            }
        }
    }
}

versions! {
    /// post_j · y + Σ_i combine_ij · h_i, with the gates of a token of n streams.
    fn mix<V>(h: &[f32], y: &[f32], gates: &[f32], j: usize, out: &mut [f32]) {
        let width = out.len();
        let n = h.len() / width;
        for (o, y) in out.iter_mut().zip(y) {
            *o = gates[n + j] * *y;
        }
        for (from, row) in h.chunks_exact(width).enumerate() {
            let gate = gates[2 * n + from * n + j];
            for (o, x) in out.iter_mut().zip(row) {
                *o += gate * *x;
            }
        }
    }
}

impl OpKernel for Rows {
    fn worker_bytes(&self) -> usize {
        room::<f32>(self.width) * 2
    }

    fn tasks(&self, _: usize, f: &SharedFrame<'_>) -> usize {
        f.out_shape().0.div_ceil(self.task_rows())
    }

    fn run(&self, _: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let mut rest = worker;
        let norm = take::<f32>(&mut rest, self.width);
        let x = take::<f32>(&mut rest, self.width);
        if let Some(i) = self.norm() {
            f.weight(i).matrix(0).read_row(0, norm);
        }
        let Place::Tensor { scalar, .. } = f.place else { panic!("the result is no value") };
        let rows = task * self.task_rows()..((task + 1) * self.task_rows()).min(f.out_shape().0);
        for r in rows {
            if scalar == Scalar::F32 {
                // SAFETY: each row belongs to one task.
                self.make(f, r, norm, unsafe { f.out_rows::<f32>(r..r + 1) });
                continue;
            }
            // SAFETY: as above.
            let out = unsafe { f.out_rows::<u8>(r..r + 1) };
            if self.kind == Kind::RoundAct {
                encode(self.isa, scalar, &f.tensor(0).real()[r * self.width..][..self.width], out);
            } else {
                self.make(f, r, norm, x);
                encode(self.isa, scalar, x, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;
    use crate::cpu::case::{Case, case};
    use crate::cpu::product::isas;

    fn check(case: &Case) {
        for isa in isas() {
            case.check_kernel(&|site| Box::new(Rows::new(site).expect("a kernel").on(*isa)));
        }
    }

    /// Each op for several widths and numbers of tokens.
    fn cases(of: impl Fn(usize) -> (String, String)) {
        for width in [8, 24, 72, 128, 4096] {
            let (header, line) = of(width);
            for (start, tokens) in [(0, 1), (5, 2), (126, 3), (1, 7), (0, 70)] {
                check(&case(&header, &line, start, tokens));
            }
        }
    }

    #[test]
    fn norms() {
        cases(|d| {
            let header = format!("%x: f32[t, 3, {d}], @w: f32[{d}]");
            (header, format!("%y = rms_norm %x, @w, eps=1e-6 : f32[t, 3, {d}]"))
        });
        cases(|d| {
            let header = format!("%x: f32[t, {d}], @w: bf16[{d}]");
            (header, format!("%y = rms_norm %x, @w, eps=0.1 : f32[t, {d}]"))
        });
    }

    #[test]
    fn rounding() {
        for fmt in ["q8_0", "q8_k", "e4m3x128", "bf16"] {
            cases(|d| {
                let line = format!("%y = round_act %x, fmt={fmt} : {fmt}[t, 2, {d}]");
                (format!("%x: f32[t, 2, {d}]"), line)
            });
        }
        cases(|d| (format!("%x: f32[t, {d}]"), format!("%y = to_row %x, fmt=kv8, dims=4 : kv8r4[t, {d}]")));
        for (d, fmt) in [(128, "idx4"), (16, "idx4"), (24, "f32")] {
            let line = format!("%y = to_index %x, fmt={fmt} : {fmt}[t, {d}]");
            check(&case(&format!("%x: f32[t, {d}]"), &line, 3, 5));
        }
    }

    #[test]
    fn heads_and_rows() {
        cases(|d| {
            let header = format!("%x: f32[t, {}], %table: f32[t, 6]", 5 * d);
            (header, format!("%y = head_rope %x, %table, parts=5, eps=1e-6 : f32[t, 5, {d}]"))
        });
        for (fmt, scalar) in [("kv8", "kv8r6"), ("f32", "f32")] {
            cases(|d| {
                let header = format!("%x: f32[t, {d}], @w: f32[{d}], %table: f32[t, 6]");
                let literals = format!("eps=1e-6, fmt={fmt}, dims=6");
                (header, format!("%y = kv_row %x, @w, %table, {literals} : {scalar}[t, {d}]"))
            });
        }
        for (d, fmt) in [(128, "idx4"), (16, "idx4"), (24, "f32")] {
            let header = format!("%x: f32[t, {}], %table: f32[t, 4]", 9 * d);
            let line = format!("%y = index_query %x, %table, parts=9, fmt={fmt} : {fmt}[t, 9, {d}]");
            [1, 2, 7].iter().for_each(|t| check(&case(&header, &line, 3, *t)));
        }
    }

    #[test]
    fn streams() {
        cases(|d| {
            let header = format!("%h: f32[t, 4, {d}], %gates: f32[t, 24], @w: f32[{d}]");
            (header, format!("%y = hc_pre_norm %h, %gates, @w, eps=1e-6 : f32[t, {d}]"))
        });
        cases(|d| {
            let header = format!("%h: f32[t, 3, {d}], %gates: f32[t, 3]");
            (header, format!("%y = hc_pre %h, %gates : f32[t, {d}]"))
        });
        cases(|d| {
            let header = format!("%h: f32[t, 4, {d}], %y: f32[t, {d}], %gates: f32[t, 24]");
            (header, format!("%z = hc_post %h, %y, %gates : f32[t, 4, {d}]"))
        });
    }
}

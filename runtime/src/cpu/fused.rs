//! A fused op that has no kernel of its own: the kernels of its parts, one after the other, in the
//! scratch that the plan gives it.
use super::frame::{Place, SharedFrame};
use super::op::{OpKernel, Site};
use crate::memory::{Region, data, rows_of};
use ds4_ir::ops::{Sig, SigArg, Term};
use ds4_ir::view::{Operand, Tensor};
use ds4_ir::{Bind, Dim, Op, TensorType, Type};

/// Most operands of a part.
const ARGS_MAX: usize = 8;
/// Extents of a value; no tensor of the IR has more axes.
type Extents = ([usize; 4], usize);

/// One part of a definition.
enum Part {
    /// Operand of the fused op.
    Formal(usize),
    /// An earlier part under another shape.
    View(usize, TensorType),
    /// A value in scratch from that byte on.
    Value { run: Run, ty: TensorType, at: usize },
    /// The result.
    Root(Run),
}

/// A part's kernel and the parts that it reads.
struct Run {
    kernel: Box<dyn OpKernel>,
    args: Vec<usize>,
}

/// The parts of one fused node, resolved when a program is made.
pub(crate) struct Composite {
    parts: Vec<Part>,
    /// Part and phase of it, in turn.
    phases: Vec<(usize, usize)>,
    /// Bytes of the parts' values in the largest step; the parts' own scratch follows.
    values: usize,
    scratch_bytes: u64,
    worker_bytes: usize,
}

impl Composite {
    /// The parts of the site's op; `None` for a primitive.
    pub(crate) fn new(site: &Site<'_>) -> Option<Composite> {
        let definition = site.op.definition()?;
        let sig = Sig { args: site.args.to_vec() };
        let types = definition.types(&sig).expect("a verified node has typed parts");
        let mut parts: Vec<Part> = Vec::new();
        let mut end = 0;
        let last = definition.terms.len() - 1;
        let kind = |i: usize| match (&definition.terms[i], &types[i]) {
            (Term::Formal(at), _) => site.args[*at],
            (_, ty) => SigArg::Value(ty.as_ref().expect("a part has a type")),
        };
        for (i, (term, ty)) in definition.terms.iter().zip(&types).enumerate() {
            let (op, of) = match term {
                Term::Formal(at) => {
                    parts.push(Part::Formal(*at));
                    continue;
                }
                Term::Apply(op, of) => (*op, of),
            };
            let ty = ty.as_ref().expect("a part has a type");
            let args: Vec<SigArg<'_>> = of.iter().map(|a| kind(*a)).collect();
            assert!(args.len() <= ARGS_MAX, "`{}` has {} operands", op.name, args.len());
            let tensor = |ty: &Type| ty.tensor().expect("only the root may be a state").clone();
            if i < last && is_view(op, &args, ty) {
                parts.push(Part::View(of[0], tensor(ty)));
                continue;
            }
            let formal = |a: &usize| match definition.terms[*a] {
                Term::Formal(at) => Some(at),
                _ => None,
            };
            let operands: Vec<Option<usize>> = of.iter().map(formal).collect();
            let packings = site.products.of_part(&operands);
            let products = site.products.part(&packings);
            let kernel =
                super::kernel(&Site { op, args: &args, ty, maxima: site.maxima, products: &products });
            let packed = operands.iter().enumerate().filter(|(i, _)| products.is_packed(*i));
            packed.filter_map(|(_, operand)| *operand).for_each(|at| site.products.mark(at));
            let run = Run { kernel, args: of.clone() };
            if i == last {
                parts.push(Part::Root(run));
                continue;
            }
            let ty = tensor(ty);
            let at = end;
            let bytes = site.maxima.bytes(&ty).expect("the planner has placed it");
            end += usize::try_from(bytes).expect("scratch fits the address space");
            parts.push(Part::Value { run, ty, at });
        }
        Some(Composite::of(parts, end))
    }

    fn of(parts: Vec<Part>, values: usize) -> Composite {
        let runs = || parts.iter().enumerate().filter_map(|(i, part)| part.run().map(|run| (i, run)));
        let phases = runs().flat_map(|(i, run)| (0..run.kernel.phases()).map(move |p| (i, p))).collect();
        let scratch = runs().map(|(_, run)| run.kernel.scratch_bytes()).max().unwrap_or(0);
        let worker_bytes = runs().map(|(_, run)| run.kernel.worker_bytes()).max().unwrap_or(0);
        Composite { phases, values, scratch_bytes: values as u64 + scratch, worker_bytes, parts }
    }

    /// Calls `run` with the kernel behind a phase and its frame.
    fn with<R>(
        &self,
        phase: usize,
        f: &SharedFrame<'_>,
        run: impl FnOnce(&dyn OpKernel, usize, &SharedFrame<'_>) -> R,
    ) -> R {
        let (at, phase) = self.phases[phase];
        let part = self.parts[at].run().expect("a phase runs a part");
        let dims: [Extents; ARGS_MAX] = std::array::from_fn(|i| match part.args.get(i) {
            Some(a) => self.extents(*a, f.bind),
            None => ([0; 4], 0),
        });
        let mut operands = [Operand::Consumed; ARGS_MAX];
        for (i, a) in part.args.iter().enumerate() {
            operands[i] = self.operand(*a, &dims[i].0[..dims[i].1], f);
        }
        let out;
        let place = match &self.parts[at] {
            Part::Value { ty, at, .. } => {
                out = dims_of(ty, f.bind);
                let dims = &out.0[..out.1];
                let (rows, width) = rows_of(dims);
                let memory = f.scratch.part(*at, rows * ty.scalar.row_bytes(width));
                Place::Tensor { scalar: ty.scalar, dims, memory }
            }
            _ => f.place,
        };
        let own = usize::try_from(part.kernel.scratch_bytes()).expect("scratch fits the address space");
        let scratch: Region<'_> = f.scratch.part(self.values, own);
        let operands = &operands[..part.args.len()];
        run(&*part.kernel, phase, &SharedFrame { operands, place, scratch, ..*f })
    }

    /// Extents of a part that is no operand.
    fn extents(&self, part: usize, bind: &Bind) -> Extents {
        match &self.parts[part] {
            Part::View(_, ty) | Part::Value { ty, .. } => dims_of(ty, bind),
            Part::Formal(_) | Part::Root(_) => ([0; 4], 0),
        }
    }

    fn operand<'a>(&'a self, part: usize, dims: &'a [usize], f: &SharedFrame<'a>) -> Operand<'a, f32> {
        match &self.parts[part] {
            Part::Formal(at) => f.operands[*at],
            Part::View(of, ty) => {
                // Of a view of a view only the memory counts.
                let Operand::Tensor(t) = self.operand(*of, dims, f) else { panic!("a view of no value") };
                Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims, data: t.data })
            }
            Part::Value { ty, at, .. } => {
                let (rows, width) = rows_of(dims);
                // SAFETY: the part was computed in an earlier phase, and its memory is not written again.
                let bytes = unsafe { f.scratch.slice(*at, rows * ty.scalar.row_bytes(width)) };
                let data = data(ty.scalar, bytes, rows, width);
                Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims, data })
            }
            Part::Root(_) => unreachable!("the result is not read"),
        }
    }
}

impl Part {
    fn run(&self) -> Option<&Run> {
        match self {
            Part::Value { run, .. } | Part::Root(run) => Some(run),
            Part::Formal(_) | Part::View(..) => None,
        }
    }
}

impl OpKernel for Composite {
    fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    fn worker_bytes(&self) -> usize {
        self.worker_bytes
    }

    fn phases(&self) -> usize {
        self.phases.len()
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        self.with(phase, f, |kernel, phase, f| kernel.tasks(phase, f))
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        self.with(phase, f, |kernel, phase, f| kernel.run(phase, task, f, worker));
    }
}

/// Whether the part shows its operand's memory; the planner's scratch follows the same rule.
fn is_view(op: &Op, args: &[SigArg<'_>], ty: &Type) -> bool {
    let same = matches!(args.first(), Some(SigArg::Value(of)) if of.tensor() == ty.tensor());
    op.name == "split" || matches!(op.name, "round_act" | "to_row" | "to_index") && same
}

fn dims_of(ty: &TensorType, bind: &Bind) -> Extents {
    let mut dims = [0; 4];
    for (to, dim) in dims.iter_mut().zip(&ty.dims) {
        *to = match *dim {
            Dim::Const(n) => n as usize,
            Dim::Sym(s) => bind.sym(s),
        };
    }
    (dims, ty.dims.len())
}

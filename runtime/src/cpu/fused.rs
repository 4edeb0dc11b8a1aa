//! A fused op that has no loops of its own: the kernels of its parts, one after the other, in the
//! scratch that the plan gives it.
use super::{Kernel, plain};
use crate::memory::{data, data_mut, rows_of};
use ds4_ir::ops::{Sig, SigArg, Term};
use ds4_ir::plan::Maxima;
use ds4_ir::view::{DataMut, Frame, Operand, Out, Tensor};
use ds4_ir::{Bind, Dim, Op, Scalar, TensorType, Type};

/// Most parts of a definition, its operands included.
const PARTS_MAX: usize = 24;
/// Most operands of a part.
const ARGS_MAX: usize = 8;

/// One part of a definition.
enum Part {
    /// Operand of the fused op.
    Formal(usize),
    /// An earlier part under another shape.
    View(usize, TensorType),
    /// A value in scratch from that byte on.
    Value { kernel: Kernel, args: Vec<usize>, ty: TensorType, at: usize },
    /// The result.
    Root { kernel: Kernel, args: Vec<usize> },
}

/// The parts of one fused node, resolved when a program is made.
pub(crate) struct Composite {
    parts: Vec<Part>,
    /// Bytes of scratch that the parts take in the largest step.
    pub(super) scratch_bytes: u64,
}

impl Composite {
    /// The parts of `op` for operands of these types and steps of these sizes; `None` for a primitive.
    pub(crate) fn new(op: &Op, args: &[SigArg<'_>], maxima: &Maxima) -> Option<Composite> {
        let definition = op.definition()?;
        let sig = Sig { args: args.to_vec() };
        let types = definition.types(&sig).expect("a verified node has typed parts");
        let mut parts: Vec<Part> = Vec::new();
        let mut end = 0;
        let last = definition.terms.len() - 1;
        for (i, (term, ty)) in definition.terms.iter().zip(&types).enumerate() {
            parts.push(match (term, ty.as_ref().and_then(Type::tensor)) {
                (Term::Formal(at), _) => Part::Formal(*at),
                (Term::Apply(op, of), _) if i == last => Part::Root { kernel: plain(op), args: of.clone() },
                (Term::Apply(op, of), Some(ty)) => {
                    let operand = match (&definition.terms[of[0]], &types[of[0]]) {
                        (Term::Formal(at), _) => match args[*at] {
                            SigArg::Value(ty) => ty.tensor(),
                            _ => None,
                        },
                        (_, ty) => ty.as_ref().and_then(Type::tensor),
                    };
                    if is_view(op, operand, ty) {
                        Part::View(of[0], ty.clone())
                    } else {
                        let at = end;
                        let bytes = maxima.bytes(ty).expect("the planner has placed it");
                        end += usize::try_from(bytes).expect("scratch fits the address space");
                        Part::Value { kernel: plain(op), args: of.clone(), ty: ty.clone(), at }
                    }
                }
                (Term::Apply(..), None) => unreachable!("only the root may be a state"),
            });
        }
        assert!(parts.len() <= PARTS_MAX, "`{}` has {} parts", op.name, parts.len());
        Some(Composite { parts, scratch_bytes: end as u64 })
    }

    /// Runs the parts.
    pub(crate) fn run(&self, f: &mut Frame<'_, f32>) {
        let mut extents = [([0usize; 4], 0usize); PARTS_MAX];
        for (e, part) in extents.iter_mut().zip(&self.parts) {
            if let Part::View(_, ty) | Part::Value { ty, .. } = part {
                *e = dims_of(ty, f.bind);
            }
        }
        let (start, size) = (f.scratch.as_mut_ptr(), f.scratch.len());
        let mut values: [Option<Operand<'_, f32>>; PARTS_MAX] = [None; PARTS_MAX];
        for (i, part) in self.parts.iter().enumerate() {
            let (dims, rank) = &extents[i];
            let dims = &dims[..*rank];
            values[i] = Some(match part {
                Part::Formal(at) => f.operands[*at],
                Part::View(of, ty) => match values[*of].expect("an earlier part") {
                    Operand::Tensor(t) => {
                        Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims, data: t.data })
                    }
                    other => panic!("a view of {other:?}"),
                },
                Part::Value { kernel, args, ty, at } => {
                    let (rows, width) = rows_of(dims);
                    let bytes = rows * ty.scalar.row_bytes(width);
                    assert!(at + bytes <= size, "a part of {bytes} bytes at {at} in scratch of {size}");
                    // SAFETY: inside scratch, which is borrowed exclusively; every part has its own
                    // range, and no reference to this one exists yet.
                    let place = unsafe { std::slice::from_raw_parts_mut(start.add(*at), bytes) };
                    let out = Out::Tensor {
                        scalar: ty.scalar,
                        dims,
                        data: data_mut(ty.scalar, place, rows, width),
                    };
                    launch(*kernel, &values, args, out, f.bind);
                    // SAFETY: as above; the exclusive borrow has ended with the launch, and the range is
                    // not written again.
                    let place = unsafe { std::slice::from_raw_parts(start.add(*at), bytes) };
                    let data = data(ty.scalar, place, rows, width);
                    Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims, data })
                }
                Part::Root { kernel, args } => {
                    let nothing =
                        Out::Tensor { scalar: Scalar::F32, dims: &[], data: DataMut::Real(&mut []) };
                    let out = std::mem::replace(&mut f.out, nothing);
                    return launch(*kernel, &values, args, out, f.bind);
                }
            });
        }
        unreachable!("the last part is the result");
    }
}

fn launch(
    kernel: Kernel,
    values: &[Option<Operand<'_, f32>>],
    args: &[usize],
    out: Out<'_, f32>,
    bind: &Bind,
) {
    let mut operands = [Operand::Consumed; ARGS_MAX];
    for (o, a) in operands.iter_mut().zip(args) {
        *o = values[*a].expect("an earlier part");
    }
    kernel(&mut Frame { operands: &operands[..args.len()], out, bind, scratch: &mut [] });
}

/// Whether the part shows its operand's memory; the planner's scratch follows the same rule.
fn is_view(op: &Op, operand: Option<&TensorType>, ty: &TensorType) -> bool {
    op.name == "split" || matches!(op.name, "round_act" | "to_row" | "to_index") && operand == Some(ty)
}

fn dims_of(ty: &TensorType, bind: &Bind) -> ([usize; 4], usize) {
    let mut dims = [0; 4];
    for (to, dim) in dims.iter_mut().zip(&ty.dims) {
        *to = match *dim {
            Dim::Const(n) => n as usize,
            Dim::Sym(s) => bind.sym(s),
        };
    }
    (dims, ty.dims.len())
}

//! Fused ops are defined by the expression they replace. From that one line follow their result
//! type, their meaning, and in `passes` the rewrite rule and its inverse.
use super::infer::{Inferred, Sig, SigArg};
use super::{Body, Op, op, ops};
use crate::interp::Computed;
use crate::view::{DataMut, Frame, Operand, Out};
use crate::{Real, Scalar, TensorType, Type};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One place of a definition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Term {
    /// Operand of that index of the fused op.
    Formal(usize),
    /// An op applied to earlier terms.
    Apply(&'static Op, Vec<usize>),
}

/// The expression behind a fused op. Equal parts are one term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// Operands before what reads them; the last one is the result.
    pub terms: Vec<Term>,
}

static DEFINITIONS: LazyLock<BTreeMap<&'static str, Definition>> = LazyLock::new(|| {
    let fused = ops().filter_map(|row| match row.body {
        Body::Fused { definition, .. } => Some((row, definition)),
        Body::Primitive { .. } => None,
    });
    fused
        .map(|(row, text)| {
            let parsed = Definition::parse(row, text).unwrap_or_else(|why| panic!("{}: {why}", row.name));
            (row.name, parsed)
        })
        .collect()
});

impl Op {
    /// The definition of a fused op, `None` for a primitive.
    pub fn definition(&self) -> Option<&'static Definition> {
        DEFINITIONS.get(self.name)
    }
}

impl Definition {
    /// Reads an s-expression over `?formal` and the names of primitive ops.
    fn parse(row: &Op, text: &str) -> Result<Definition, String> {
        let formals: Vec<&str> = row.operands().map(|f| f.name).collect();
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let mut open: Vec<(&'static Op, Vec<usize>)> = Vec::new();
        let mut definition = Definition { terms: Vec::new() };
        let mut words = spaced.split_whitespace();
        while let Some(word) = words.next() {
            let done = match word {
                "(" => {
                    let name = words.next().unwrap_or_default();
                    let op = op(name).filter(|op| matches!(op.body, Body::Primitive { .. }));
                    open.push((op.ok_or_else(|| format!("no primitive op `{name}`"))?, Vec::new()));
                    continue;
                }
                ")" => {
                    let (op, args) = open.pop().ok_or("one `)` too many")?;
                    if args.len() != op.operands().count() {
                        return Err(format!("`{}` with {} operands", op.name, args.len()));
                    }
                    definition.term(Term::Apply(op, args))
                }
                word => {
                    let name = word.strip_prefix('?').ok_or_else(|| format!("expected ?x, got {word}"))?;
                    let at = formals.iter().position(|f| *f == name);
                    definition.term(Term::Formal(at.ok_or_else(|| format!("no operand `{name}`"))?))
                }
            };
            match open.last_mut() {
                Some((_, args)) => args.push(done),
                None if words.next().is_none() => return Ok(definition),
                None => return Err("more than one expression".to_string()),
            }
        }
        Err("one `)` is missing".to_string())
    }

    fn term(&mut self, term: Term) -> usize {
        self.terms.iter().position(|t| *t == term).unwrap_or_else(|| {
            self.terms.push(term);
            self.terms.len() - 1
        })
    }

    /// The types of all terms in order, `None` for operands of the fused op.
    ///
    /// # Errors
    /// Why an op of the definition does not take what it would get.
    pub fn types(&self, sig: &Sig<'_>) -> Result<Vec<Option<Type>>, String> {
        let mut types: Vec<Option<Type>> = Vec::with_capacity(self.terms.len());
        for term in &self.terms {
            let ty = match term {
                Term::Formal(_) => None,
                Term::Apply(op, args) => {
                    let arg = |i: &usize| match (&self.terms[*i], &types[*i]) {
                        (Term::Formal(at), _) => sig.args[*at],
                        (_, ty) => SigArg::Value(ty.as_ref().expect("an earlier term has its type")),
                    };
                    let inner = Sig { args: args.iter().map(arg).collect() };
                    for (formal, arg) in op.operands().zip(&inner.args) {
                        if !formal.takes(arg) {
                            return Err(format!("`{}` takes {formal}", op.name));
                        }
                    }
                    Some(op.infer(&inner).map_err(|why| format!("`{}`: {why}", op.name))?)
                }
            };
            types.push(ty);
        }
        Ok(types)
    }
}

fn of(name: &str) -> &'static Definition {
    &DEFINITIONS[name]
}

/// Result type of the fused op of that name.
pub(super) fn infer(name: &str, sig: &Sig<'_>) -> Inferred {
    let mut types = of(name).types(sig)?;
    Ok(types.pop().flatten().expect("a definition is an application"))
}

/// Meaning of the fused op of that name: its parts, one after the other, in buffers of their own.
pub(super) fn eval<F: Real>(name: &str, f: &mut Frame<'_, F>) {
    let definition = of(name);
    let consumed = match &f.out {
        Out::State(s) => Some(Type::State(s.ty)),
        Out::Tensor { .. } => None,
    };
    let owned: Vec<Option<Type>> = f.operands.iter().map(|o| type_of(o, consumed.as_ref())).collect();
    let args = f.operands.iter().zip(&owned).map(|(operand, ty)| match (operand, ty) {
        (Operand::Lit(lit), _) => SigArg::Lit(lit),
        (Operand::Weight(_), Some(Type::Tensor(ty))) => SigArg::Weight(ty),
        (_, Some(ty)) => SigArg::Value(ty),
        (_, None) => unreachable!("only literals have no type"),
    });
    let sig = Sig { args: args.collect() };
    let types = definition.types(&sig).unwrap_or_else(|why| panic!("{name}: {why}"));
    let mut computed: Vec<Option<Computed<F>>> = Vec::with_capacity(types.len());
    let last = definition.terms.len() - 1;
    for (i, (term, ty)) in definition.terms.iter().zip(&types).enumerate() {
        let Term::Apply(op, args) = term else {
            computed.push(None);
            continue;
        };
        let operand = |a: &usize| match (&definition.terms[*a], &computed[*a]) {
            (Term::Formal(at), _) => f.operands[*at],
            (_, value) => Operand::Tensor(value.as_ref().expect("an earlier term").tensor()),
        };
        let operands: Vec<Operand<'_, F>> = args.iter().map(operand).collect();
        if i == last {
            let nothing = Out::Tensor { scalar: Scalar::F32, dims: &[], data: DataMut::Real(&mut []) };
            let out = std::mem::replace(&mut f.out, nothing);
            let mut inner = Frame { operands: &operands, out, bind: f.bind, scratch: &mut [] };
            return F::eval_of(op)(&mut inner);
        }
        let ty = ty.as_ref().and_then(Type::tensor).expect("inner terms are tensors");
        let mut value = Computed::zeros(ty, f.bind);
        let out = value.out();
        F::eval_of(op)(&mut Frame { operands: &operands, out, bind: f.bind, scratch: &mut [] });
        computed.push(Some(value));
    }
}

fn type_of<F: Real>(operand: &Operand<'_, F>, consumed: Option<&Type>) -> Option<Type> {
    match operand {
        Operand::Tensor(t) => Some(Type::Tensor(t.ty.clone())),
        Operand::State(s) => Some(Type::State(s.ty)),
        Operand::Consumed => consumed.cloned(),
        Operand::Weight(w) => {
            let dims: Vec<u32> =
                w.dims.iter().map(|n| u32::try_from(*n).expect("extents of weights fit 32 bits")).collect();
            Some(Type::Tensor(TensorType::fixed(w.scalar, &dims)))
        }
        Operand::Lit(_) => None,
    }
}

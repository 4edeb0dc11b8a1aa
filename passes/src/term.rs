//! The e-graph's view of a function: nodes over inputs, weights and literals, each class typed.
use ds4_ir::ops::{Op, SigArg};
use ds4_ir::{Func, Lit, TensorType, Type};
use egg::{Analysis, DidMerge, EGraph, Id, Language};
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// What stands at the head of a term.
#[derive(Clone, Debug)]
pub(crate) enum Head {
    Op(&'static Op),
    /// An input of the function, by its index among the values.
    Input(usize),
    /// A weight of the function, by its index.
    Weight(usize),
    Lit(Lit),
}

impl Head {
    fn key(&self) -> (u8, usize, String) {
        match self {
            Head::Op(op) => (0, 0, op.name.to_string()),
            Head::Input(i) => (1, *i, String::new()),
            Head::Weight(i) => (2, *i, String::new()),
            Head::Lit(lit) => (3, 0, lit.to_string()),
        }
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        match (self, other) {
            (Head::Op(a), Head::Op(b)) => a == b,
            (Head::Input(a), Head::Input(b)) | (Head::Weight(a), Head::Weight(b)) => a == b,
            (Head::Lit(a), Head::Lit(b)) => a == b,
            _ => false,
        }
    }
}
impl Eq for Head {}
impl Hash for Head {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Head::Op(op) => op.name.hash(state),
            Head::Input(i) | Head::Weight(i) => i.hash(state),
            Head::Lit(lit) => lit.hash(state),
        }
    }
}
impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        match (self, other) {
            (Head::Op(a), Head::Op(b)) => a.name.cmp(b.name),
            // Literals print differently if they differ: 1 and 1.0 do.
            _ => self.key().cmp(&other.key()),
        }
    }
}

/// One e-node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Term {
    pub(crate) head: Head,
    pub(crate) args: Vec<Id>,
}

impl Language for Term {
    type Discriminant = (Head, usize);

    fn discriminant(&self) -> Self::Discriminant {
        (self.head.clone(), self.args.len())
    }
    fn matches(&self, other: &Term) -> bool {
        self.head == other.head && self.args.len() == other.args.len()
    }
    fn children(&self) -> &[Id] {
        &self.args
    }
    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.args
    }
}

/// What a class is: the type of a value or weight, or a literal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Value(Type),
    Weight(TensorType),
    Lit(Lit),
}

impl Kind {
    pub(crate) fn sig(&self) -> SigArg<'_> {
        match self {
            Kind::Value(ty) => SigArg::Value(ty),
            Kind::Weight(ty) => SigArg::Weight(ty),
            Kind::Lit(lit) => SigArg::Lit(lit),
        }
    }
}

/// Types of a function's inputs and weights, from which those of all classes follow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds {
    inputs: Vec<Type>,
    weights: Vec<TensorType>,
}

impl Kinds {
    pub(crate) fn of(func: &Func) -> Kinds {
        let inputs = func.values().map(|v| func.ty(v).clone()).collect();
        Kinds { inputs, weights: func.weights().map(|w| func.weight_type(w).clone()).collect() }
    }
}

/// The operands of a term as inference sees them.
pub(crate) fn sig_args<'a>(egraph: &'a EGraph<Term, Kinds>, args: &[Id]) -> Vec<SigArg<'a>> {
    args.iter().map(|id| egraph[*id].data.sig()).collect()
}

impl Analysis<Term> for Kinds {
    type Data = Kind;

    fn make(egraph: &mut EGraph<Term, Self>, term: &Term, _: Id) -> Kind {
        match &term.head {
            Head::Input(i) => Kind::Value(egraph.analysis.inputs[*i].clone()),
            Head::Weight(i) => Kind::Weight(egraph.analysis.weights[*i].clone()),
            Head::Lit(lit) => Kind::Lit(lit.clone()),
            Head::Op(op) => {
                let sig = ds4_ir::ops::Sig { args: sig_args(egraph, &term.args) };
                Kind::Value(op.infer(&sig).expect("only typed terms are added"))
            }
        }
    }

    fn merge(&mut self, a: &mut Kind, b: Kind) -> DidMerge {
        assert!(*a == b, "a rewrite changed a type: {a:?}, {b:?}");
        DidMerge(false, false)
    }
}

//! The op table. A row is everything the project knows about an operator: its operands, what it
//! computes, the type of its result, and its executable meaning.
//!
//! Parser, printer, verifier, interpreter, passes and `docs/ops.md` are driven by it.
use crate::Type;
use crate::view::Frame;
use std::fmt;
use std::hash::{Hash, Hasher};

pub mod attend;
mod compress;
mod define;
mod fused;
pub mod hc;
mod index;
mod infer;
mod linear;
pub mod moe;
pub mod norm;
mod rope;
mod rows;

pub use define::{Definition, Term};
pub use index::largest;
pub use infer::{Sig, SigArg};
pub use linear::dot;
pub use rope::frequency;

/// One operator.
pub struct Op {
    /// Name in the text.
    pub name: &'static str,
    /// Operands, separated by spaces: `x` a value or a state that is read, `x!` a state that is
    /// consumed and returned, `@w` a weight, `?y` a value or a weight, `k=` a literal.
    pub operands: &'static str,
    /// What it computes, one sentence or formula, with its section of the specification.
    pub doc: &'static str,
    /// How it is defined.
    pub body: Body,
}

/// How an op is defined.
pub enum Body {
    /// By executable meaning.
    Primitive {
        /// Type of the result.
        infer: fn(&Sig<'_>) -> Result<Type, String>,
        /// Meaning in single precision.
        eval32: fn(&mut Frame<'_, f32>),
        /// Meaning in double precision.
        eval64: fn(&mut Frame<'_, f64>),
    },
    /// By the expression it replaces, from which all else follows.
    Fused {
        /// An s-expression over `?operand` and names of primitive ops.
        definition: &'static str,
        /// Type of the result, inferred through the definition.
        infer: fn(&Sig<'_>) -> Result<Type, String>,
        /// The definition, part by part, in single precision.
        eval32: fn(&mut Frame<'_, f32>),
        /// The definition, part by part, in double precision.
        eval64: fn(&mut Frame<'_, f64>),
    },
}

/// One operand of an op's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Formal {
    /// Name without its marks.
    pub name: &'static str,
    kind: FormalKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FormalKind {
    Value,
    Consumed,
    Weight,
    Either,
    Literal,
}

impl Formal {
    fn parse(text: &'static str) -> Formal {
        use FormalKind::*;
        if let Some(name) = text.strip_suffix('!') {
            return Formal { name, kind: Consumed };
        }
        if let Some(name) = text.strip_suffix('=') {
            return Formal { name, kind: Literal };
        }
        match (text.strip_prefix('@'), text.strip_prefix('?')) {
            (Some(name), _) => Formal { name, kind: Weight },
            (_, Some(name)) => Formal { name, kind: Either },
            _ => Formal { name: text, kind: Value },
        }
    }

    /// Whether `%x` may stand here.
    pub fn takes_value(self) -> bool {
        matches!(self.kind, FormalKind::Value | FormalKind::Consumed | FormalKind::Either)
    }

    /// Whether `@w` may stand here.
    pub fn takes_weight(self) -> bool {
        matches!(self.kind, FormalKind::Weight | FormalKind::Either)
    }

    /// Whether an operand of this kind may stand here.
    pub fn takes(self, arg: &SigArg<'_>) -> bool {
        match arg {
            SigArg::Value(_) => self.takes_value(),
            SigArg::Weight(_) => self.takes_weight(),
            SigArg::Lit(_) => self.is_literal(),
        }
    }

    /// Whether `name=literal` must stand here.
    pub fn is_literal(self) -> bool {
        self.kind == FormalKind::Literal
    }
}

impl fmt::Display for Formal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FormalKind::Value => write!(f, "a value as `{}`", self.name),
            FormalKind::Consumed => write!(f, "a state as `{}`", self.name),
            FormalKind::Weight => write!(f, "a weight as `{}`", self.name),
            FormalKind::Either => write!(f, "a value or a weight as `{}`", self.name),
            FormalKind::Literal => write!(f, "`{}=`", self.name),
        }
    }
}

impl Op {
    /// The operands in order.
    pub fn operands(&self) -> impl Iterator<Item = Formal> + use<> {
        self.operands.split_whitespace().map(Formal::parse)
    }

    /// Index of the operand that the op consumes and returns, if it writes a state.
    pub fn writes(&self) -> Option<usize> {
        self.operands().position(|f| f.kind == FormalKind::Consumed)
    }
}

impl Op {
    /// The type of the result.
    ///
    /// # Errors
    /// Why the op does not take these operands.
    pub fn infer(&self, sig: &Sig<'_>) -> Result<Type, String> {
        match &self.body {
            Body::Primitive { infer, .. } | Body::Fused { infer, .. } => infer(sig),
        }
    }

    /// Whether the op is cheap enough to be computed again by every reader, so that a shared value
    /// need not stand against a fusion.
    pub fn is_cheap(&self) -> bool {
        matches!(self.name, "round_act" | "split" | "rms_norm")
    }
}

impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        self.name == other.name
    }
}
impl Eq for Op {}
impl Hash for Op {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A primitive row: name, operands, doc, result type, generic meaning.
macro_rules! prim {
    ($name:literal, $operands:literal, $doc:literal, $infer:expr, $eval:ident) => {
        $crate::ops::Op {
            name: $name,
            operands: $operands,
            doc: $doc,
            body: $crate::ops::Body::Primitive { infer: $infer, eval32: $eval::<f32>, eval64: $eval::<f64> },
        }
    };
}
use prim;

/// A fused row: name, operands, doc, definition.
macro_rules! defined {
    ($name:literal, $operands:literal, $doc:literal, $definition:literal) => {
        $crate::ops::Op {
            name: $name,
            operands: $operands,
            doc: $doc,
            body: $crate::ops::Body::Fused {
                definition: $definition,
                infer: |sig| $crate::ops::define::infer($name, sig),
                eval32: |frame| $crate::ops::define::eval::<f32>($name, frame),
                eval64: |frame| $crate::ops::define::eval::<f64>($name, frame),
            },
        }
    };
}
use defined;

/// The rows, by subject.
pub static GROUPS: &[(&str, &[Op])] = &[
    ("Hyper-connections", hc::ROWS),
    ("Norms", norm::ROWS),
    ("Matrix products and rounding of their inputs", linear::ROWS),
    ("Rotary positions", rope::ROWS),
    ("Rows and states", rows::ROWS),
    ("Compressor", compress::ROWS),
    ("Lightning indexer", index::ROWS),
    ("Attention", attend::ROWS),
    ("Mixture of experts", moe::ROWS),
    ("Fused", fused::ROWS),
];

/// All rows.
pub fn ops() -> impl Iterator<Item = &'static Op> {
    GROUPS.iter().flat_map(|(_, rows)| rows.iter())
}

/// The row of that name.
pub fn op(name: &str) -> Option<&'static Op> {
    ops().find(|op| op.name == name)
}

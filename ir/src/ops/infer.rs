//! What a result type is inferred from, and the checks that many rows share.
use crate::{Dim, Lit, Scalar, StateKind, StateType, Sym, TensorType, Type};

/// The types and literals of a node's operands.
#[derive(Clone, Debug)]
pub struct Sig<'a> {
    /// In the order of the op's row.
    pub args: Vec<SigArg<'a>>,
}

/// One operand as inference sees it.
#[derive(Clone, Copy, Debug)]
pub enum SigArg<'a> {
    /// A value.
    Value(&'a Type),
    /// A weight.
    Weight(&'a TensorType),
    /// A literal.
    Lit(&'a Lit),
}

/// What inference answers: the result type, or why there is none.
pub(super) type Inferred = Result<Type, String>;

impl<'a> Sig<'a> {
    /// Operand `i`, a value or a weight.
    pub(super) fn tensor(&self, i: usize) -> Result<&'a TensorType, String> {
        match self.args[i] {
            SigArg::Value(ty) => {
                ty.tensor().ok_or_else(|| format!("operand {i}: expected a tensor, got {ty}"))
            }
            SigArg::Weight(ty) => Ok(ty),
            SigArg::Lit(lit) => Err(format!("operand {i}: expected a tensor, got {lit}")),
        }
    }

    /// Operand `i`, a tensor of element type `scalar`.
    pub(super) fn of(&self, i: usize, scalar: Scalar) -> Result<&'a TensorType, String> {
        let ty = self.tensor(i)?;
        if ty.scalar == scalar {
            return Ok(ty);
        }
        Err(format!("operand {i}: expected {scalar} elements, got {ty}"))
    }

    /// Operand `i`, an `f32` tensor of `rank` axes.
    pub(super) fn f32(&self, i: usize, rank: usize) -> Result<&'a [Dim], String> {
        let ty = self.of(i, Scalar::F32)?;
        rank_of(i, ty, rank)?;
        Ok(&ty.dims)
    }

    /// Operand `i`, a tensor that decodes to real numbers.
    pub(super) fn reals(&self, i: usize) -> Result<&'a TensorType, String> {
        let ty = self.tensor(i)?;
        if ty.scalar.is_real() {
            return Ok(ty);
        }
        Err(format!("operand {i}: expected real elements, got {ty}"))
    }

    /// Operand `i`, a weight of real numbers whose extents are `dims`.
    pub(super) fn weight(&self, i: usize, dims: &[u32]) -> Result<(), String> {
        let ty = self.reals(i)?;
        if ty.constants().as_deref() == Some(dims) {
            return Ok(());
        }
        Err(format!("operand {i}: expected extents {dims:?}, got {ty}"))
    }

    /// Extents of operand `i`, a weight of real numbers of `rank` axes.
    pub(super) fn extents(&self, i: usize, rank: usize) -> Result<Vec<u32>, String> {
        let ty = self.reals(i)?;
        rank_of(i, ty, rank)?;
        ty.constants().ok_or_else(|| format!("operand {i}: expected constant extents, got {ty}"))
    }

    /// Operand `i`, `i32[t]`: positions or token ids.
    pub(super) fn per_token(&self, i: usize) -> Result<(), String> {
        let ty = self.of(i, Scalar::I32)?;
        if ty.dims == [Dim::Sym(Sym::Tokens)] {
            return Ok(());
        }
        Err(format!("operand {i}: expected i32[t], got {ty}"))
    }

    /// Operand `i`, a state version whose kind is `kind` of its own span.
    pub(super) fn state(&self, i: usize, kind: fn(u32) -> StateKind) -> Result<&'a StateType, String> {
        let name = kind(0).to_string().replace('0', "N");
        match self.args[i] {
            SigArg::Value(Type::State(s)) if s.kind == kind(s.kind.span()) => Ok(s),
            SigArg::Value(ty) => Err(format!("operand {i}: expected state {name}, got {ty}")),
            _ => Err(format!("operand {i}: expected state {name}")),
        }
    }

    /// Literal `i`, a whole number of at least 1 that fits an extent.
    pub(super) fn count(&self, i: usize) -> Result<u32, String> {
        match self.args[i] {
            SigArg::Lit(Lit::Int(n)) if *n > 0 => {
                u32::try_from(*n).map_err(|_| format!("operand {i}: {n} is too large"))
            }
            SigArg::Lit(lit) => Err(format!("operand {i}: expected a whole number above 0, got {lit}")),
            _ => Err(format!("operand {i}: expected a literal")),
        }
    }

    /// Literal `i`, a finite number.
    pub(super) fn number(&self, i: usize) -> Result<f64, String> {
        match self.args[i] {
            SigArg::Lit(Lit::Int(n)) => Ok(*n as f64),
            SigArg::Lit(Lit::Real(x)) if x.is_finite() => Ok(*x),
            SigArg::Lit(lit) => Err(format!("operand {i}: expected a number, got {lit}")),
            _ => Err(format!("operand {i}: expected a literal")),
        }
    }

    /// Literal `i`, an element type out of `allowed`.
    pub(super) fn format(&self, i: usize, allowed: &[Scalar]) -> Result<Scalar, String> {
        let names: Vec<String> = allowed.iter().map(Scalar::to_string).collect();
        match self.args[i] {
            SigArg::Lit(lit) => {
                let scalar = allowed.iter().find(|s| s.to_string() == lit.to_string());
                scalar.copied().ok_or_else(|| format!("fmt: expected {}, got {lit}", names.join(", ")))
            }
            _ => Err(format!("operand {i}: expected a literal")),
        }
    }
}

/// Fails unless `ty`, of operand `i`, has `rank` axes.
pub(super) fn rank_of(i: usize, ty: &TensorType, rank: usize) -> Result<(), String> {
    if ty.dims.len() == rank {
        return Ok(());
    }
    Err(format!("operand {i}: expected {rank} axes, got {ty}"))
}

/// The constant extent of a dimension.
pub(super) fn constant(i: usize, dim: Dim) -> Result<u32, String> {
    dim.constant().ok_or_else(|| format!("operand {i}: expected a constant extent, got {dim}"))
}

/// Fails unless `got` equals `expected`; `what` names the thing.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, got: T) -> Result<(), String> {
    if expected == got {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, got {got:?}"))
}

/// An `f32` tensor type.
pub(super) fn f32(dims: impl IntoIterator<Item = Dim>) -> Type {
    Type::Tensor(TensorType::new(Scalar::F32, dims))
}

/// `dims` with the last one replaced.
pub(super) fn with_last(dims: &[Dim], last: u32) -> Vec<Dim> {
    let mut dims = dims.to_vec();
    *dims.last_mut().expect("a tensor has an axis") = Dim::Const(last);
    dims
}

/// The product of extents, if it is an extent too.
pub(super) fn extent(factors: &[u32]) -> Result<u32, String> {
    let product = factors.iter().try_fold(1u32, |all, n| all.checked_mul(*n));
    product.ok_or_else(|| format!("extents {factors:?}: the product is too large"))
}

//! Types that several functions of a model share, and the row formats of its class.
use super::builder::{A, Builder};
use crate::Config;
use ds4_ir::{Class, Dim, Scalar, StateKind, StateType, Sym, TensorType, Value};

pub(super) fn tokens() -> Dim {
    Dim::Sym(Sym::Tokens)
}

pub(super) fn closed(ratio: u32) -> Dim {
    Dim::Sym(Sym::Closed(ratio))
}

/// The types of one model in one class.
pub(super) struct Shapes {
    config: Config,
    packed: bool,
}

impl Shapes {
    pub(super) fn new(config: &Config, class: Class) -> Shapes {
        Shapes { config: config.clone(), packed: class != Class::Exact }
    }

    /// Residual streams `f32[t, n, D]`.
    pub(super) fn streams(&self) -> TensorType {
        let c = &self.config;
        TensorType::new(Scalar::F32, [tokens(), Dim::Const(c.hc_mult), Dim::Const(c.hidden_size)])
    }

    /// Token ids or positions `i32[t]`.
    pub(super) fn ids(&self) -> TensorType {
        TensorType::new(Scalar::I32, [tokens()])
    }

    /// Rotary angles `f32[rows, r]`.
    pub(super) fn angles(&self, rows: Dim) -> TensorType {
        TensorType::new(Scalar::F32, [rows, Dim::Const(self.config.qk_rope_head_dim)])
    }

    fn row_scalar(&self) -> Scalar {
        let rope = u16::try_from(self.config.qk_rope_head_dim).expect("checked with the configuration");
        if self.packed { Scalar::Kv8 { rope } } else { Scalar::F32 }
    }

    fn index_scalar(&self) -> Scalar {
        if self.packed { Scalar::Idx4 } else { Scalar::F32 }
    }

    /// `fmt=` of index rows and queries.
    pub(super) fn index_format(&self) -> String {
        self.index_scalar().to_string()
    }

    /// `x` as rows of a key/value state.
    pub(super) fn to_row(&self, b: &mut Builder<'_>, name: &str, x: Value) -> Value {
        let fmt = if self.packed { "kv8" } else { "f32" };
        b.op(name, "to_row", [x.into(), A::Word(fmt), A::Int(self.config.qk_rope_head_dim)])
    }

    /// The sliding window.
    pub(super) fn ring(&self) -> StateType {
        let c = &self.config;
        let kind = StateKind::Ring(c.sliding_window);
        StateType { kind, scalar: self.row_scalar(), width: c.head_dim }
    }

    /// Compressed key/value entries.
    pub(super) fn entries(&self, ratio: u32) -> StateType {
        let kind = StateKind::Entries(ratio);
        StateType { kind, scalar: self.row_scalar(), width: self.config.head_dim }
    }

    /// Index keys.
    pub(super) fn index_entries(&self, ratio: u32) -> StateType {
        let kind = StateKind::Entries(ratio);
        StateType { kind, scalar: self.index_scalar(), width: self.config.index_head_dim }
    }

    /// `[k | gate + ape]` of the tokens that a compressor of entries of `width` still needs.
    pub(super) fn tail(&self, ratio: u32, width: u32) -> StateType {
        let row = 2 * Config::compressor_rows(ratio, width);
        StateType { kind: StateKind::Tail(ratio), scalar: Scalar::F32, width: row }
    }
}

//! What the symbols of shapes stand for in one step.
use crate::{Dim, Sym, TensorType};

/// The place of a step on its session's token timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bind {
    /// Absolute position of the first token.
    pub start: usize,
    /// `t`: number of tokens.
    pub tokens: usize,
    /// `w`: number of wanted positions.
    pub wanted: usize,
}

impl Bind {
    /// Value of a symbol: entries exist from their last token on (spec 2.5).
    pub fn sym(&self, sym: Sym) -> usize {
        let end = self.start + self.tokens;
        match sym {
            Sym::Tokens => self.tokens,
            Sym::Wanted => self.wanted,
            Sym::Entries(r) => end / r as usize,
            Sym::Closed(r) => end / r as usize - self.start / r as usize,
        }
    }

    /// Extents of a type in this step.
    pub fn dims(&self, ty: &TensorType) -> Vec<usize> {
        let dim = |d: &Dim| match *d {
            Dim::Const(n) => n as usize,
            Dim::Sym(s) => self.sym(s),
        };
        ty.dims.iter().map(dim).collect()
    }
}

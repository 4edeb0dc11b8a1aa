//! Types of values: tensors with symbolic shapes, states with a kind, session parameters.
use crate::Scalar;
use std::fmt;

/// A quantity that is known only when a step runs. Each has a maximum in the plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Sym {
    /// `t`: tokens in this step.
    Tokens,
    /// `w`: positions of this step whose logits are wanted.
    Wanted,
    /// `nR`: compressed entries of ratio R that exist after this step.
    Entries(u32),
    /// `mR`: compressed entries of ratio R that this step closes.
    Closed(u32),
}

impl Sym {
    /// Reads `t`, `w`, `n4`, `m128`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Sym> {
        let ratio = |digits: &str| match digits.parse() {
            Ok(r) if r > 0 && !digits.starts_with(['0', '+']) => Some(r),
            _ => None,
        };
        match text {
            "t" => Some(Sym::Tokens),
            "w" => Some(Sym::Wanted),
            _ if text.starts_with('n') => ratio(&text[1..]).map(Sym::Entries),
            _ if text.starts_with('m') => ratio(&text[1..]).map(Sym::Closed),
            _ => None,
        }
    }
}

impl fmt::Display for Sym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sym::Tokens => f.write_str("t"),
            Sym::Wanted => f.write_str("w"),
            Sym::Entries(r) => write!(f, "n{r}"),
            Sym::Closed(r) => write!(f, "m{r}"),
        }
    }
}

/// One extent of a shape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Dim {
    /// Known at compile time.
    Const(u32),
    /// Known when a step runs.
    Sym(Sym),
}

impl Dim {
    /// The constant, `None` for a symbol.
    pub fn constant(self) -> Option<u32> {
        match self {
            Dim::Const(n) => Some(n),
            Dim::Sym(_) => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Const(n) => write!(f, "{n}"),
            Dim::Sym(s) => write!(f, "{s}"),
        }
    }
}

/// Element type and shape. The last axis is the row; packed formats run along it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    /// Element type.
    pub scalar: Scalar,
    /// Extents, outermost first. A scalar number is `[1]`.
    pub dims: Vec<Dim>,
}

impl TensorType {
    /// A type with the given extents.
    pub fn new(scalar: Scalar, dims: impl IntoIterator<Item = Dim>) -> TensorType {
        TensorType { scalar, dims: dims.into_iter().collect() }
    }

    /// A type whose extents are all constants, as every weight has.
    pub fn fixed(scalar: Scalar, dims: &[u32]) -> TensorType {
        TensorType::new(scalar, dims.iter().map(|n| Dim::Const(*n)))
    }

    /// The extents if all are constants.
    pub fn constants(&self) -> Option<Vec<u32>> {
        self.dims.iter().map(|d| d.constant()).collect()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        write!(f, "{}[{}]", self.scalar, dims.join(", "))
    }
}

/// How a state is addressed by absolute position, what stays valid, what a token adds (spec 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum StateKind {
    /// The rows of the last `W` positions.
    Ring(u32),
    /// One row per `R` closed positions, all kept.
    Entries(u32),
    /// The rows a compressor of ratio `R` still needs: those of the open block and, for ratio 4,
    /// those of the block before it.
    Tail(u32),
}

/// How many tokens a session can take back without recomputing: every state kind keeps the rows
/// that a rewind this deep needs.
pub const REWIND_MAX: u32 = 8;

impl StateKind {
    /// The window or the ratio.
    pub fn span(self) -> u32 {
        match self {
            StateKind::Ring(n) | StateKind::Entries(n) | StateKind::Tail(n) => n,
        }
    }

    /// Whether the compressor of this tail pools over two blocks (spec 2.5: tied to ratio 4).
    pub fn overlaps(ratio: u32) -> bool {
        ratio == 4
    }

    /// Rows a session of at most `ctx` tokens allocates, spare rows for a rewind included.
    pub fn rows(self, ctx: u64) -> u64 {
        let spare = u64::from(REWIND_MAX);
        match self {
            StateKind::Ring(w) => u64::from(w) + spare,
            StateKind::Entries(r) => ctx.div_ceil(u64::from(r)),
            StateKind::Tail(r) if StateKind::overlaps(r) => 2 * u64::from(r) + spare,
            StateKind::Tail(r) => u64::from(r) + spare,
        }
    }

    /// The row indices, as absolute row numbers, that are needed to go on from `position` tokens.
    ///
    /// For rings and tails the row number is the token's position; for entries it is the entry's.
    pub fn valid(self, position: u64) -> std::ops::Range<u64> {
        match self {
            StateKind::Ring(w) => position.saturating_sub(u64::from(w) - 1)..position,
            StateKind::Entries(r) => 0..position / u64::from(r),
            StateKind::Tail(r) => {
                let open = position - position % u64::from(r);
                let before = if StateKind::overlaps(r) { u64::from(r) } else { 0 };
                open.saturating_sub(before)..position
            }
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateKind::Ring(n) => write!(f, "ring/{n}"),
            StateKind::Entries(n) => write!(f, "entries/{n}"),
            StateKind::Tail(n) => write!(f, "tail/{n}"),
        }
    }
}

/// A state: rows of one format, addressed by absolute position. Lives as long as its session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StateType {
    /// Addressing and validity.
    pub kind: StateKind,
    /// Element type of a row.
    pub scalar: Scalar,
    /// Elements of a row.
    pub width: u32,
}

impl fmt::Display for StateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state {} {}[{}]", self.kind, self.scalar, self.width)
    }
}

/// The type of a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    /// Computed in a step, dead after its last use.
    Tensor(TensorType),
    /// One version of a state. A version is consumed by at most one write.
    State(StateType),
    /// An operand set per session at run time; read like a tensor.
    Param(TensorType),
}

impl Type {
    /// The tensor type of a tensor or a parameter.
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) | Type::Param(t) => Some(t),
            Type::State(_) => None,
        }
    }

    /// The state type of a state version.
    pub fn state(&self) -> Option<&StateType> {
        match self {
            Type::State(s) => Some(s),
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(t) => write!(f, "{t}"),
            Type::State(s) => write!(f, "{s}"),
            Type::Param(t) => write!(f, "param {t}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_what_a_rewind_needs() {
        for kind in [StateKind::Ring(128), StateKind::Tail(4), StateKind::Tail(128), StateKind::Ring(32)] {
            let rows = kind.rows(1 << 20);
            for position in 0..2000u64 {
                for back in 0..=u64::from(REWIND_MAX).min(position) {
                    let needed = kind.valid(position - back);
                    // The slots needed after the rewind were not overwritten by later tokens.
                    assert!(
                        needed.is_empty() || position - needed.start <= rows,
                        "{kind} {position} -{back}"
                    );
                }
            }
        }
    }

    #[test]
    fn entries_exist_from_their_last_token_on() {
        assert_eq!(StateKind::Entries(4).valid(3), 0..0);
        assert_eq!(StateKind::Entries(4).valid(4), 0..1);
        assert_eq!(StateKind::Tail(4).valid(4), 0..4);
        assert_eq!(StateKind::Tail(4).valid(11), 4..11);
        assert_eq!(StateKind::Tail(128).valid(128), 128..128);
        assert_eq!(StateKind::Ring(128).valid(500), 373..500);
    }
}

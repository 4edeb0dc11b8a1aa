//! The plan of a module: where every value of a step lies in the arena, and what is launched.
//!
//! `passes` makes and checks it, the artifact carries it, the runtime allocates by it.
mod check;

use crate::{Dim, Module, StateType, Sym, TensorType};
pub use check::PlanCheckError;

/// Alignment of every address and of the arena itself, in bytes.
pub const ALIGN: u64 = 256;

/// Largest memory for the logits of one step, in bytes; bounds the wanted positions of a bucket.
const LOGITS_BYTES_MAX: u64 = 64 << 20;

/// The largest values that symbols take in a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maxima {
    /// `t`
    pub tokens: u32,
    /// `w`
    pub wanted: u32,
    /// Context in tokens; bounds `n` and `m`.
    pub ctx: u32,
}

impl Maxima {
    /// The maxima of the bucket of up to `tokens` tokens of a module.
    pub fn of(module: &Module, tokens: u32) -> Maxima {
        let row = u64::from(module.vocab.max(1)) * 4;
        let wanted = u32::try_from((LOGITS_BYTES_MAX / row).max(8)).unwrap_or(u32::MAX);
        Maxima { tokens, wanted: wanted.min(tokens), ctx: module.ctx }
    }

    /// The largest value of a symbol.
    pub fn sym(&self, sym: Sym) -> u64 {
        match sym {
            Sym::Tokens => u64::from(self.tokens),
            Sym::Wanted => u64::from(self.wanted),
            Sym::Entries(r) => u64::from(self.ctx.div_ceil(r)),
            Sym::Closed(r) => u64::from(self.tokens.div_ceil(r)),
        }
    }

    /// Bytes that a value of this type takes at most, a multiple of [`ALIGN`].
    ///
    /// `None` if that is no 64-bit number.
    pub fn bytes(&self, ty: &TensorType) -> Option<u64> {
        let extent = |d: &Dim| match *d {
            Dim::Const(n) => u64::from(n),
            Dim::Sym(s) => self.sym(s),
        };
        let (last, outer) = ty.dims.split_last()?;
        let rows = outer.iter().try_fold(1u64, |all, d| all.checked_mul(extent(d)))?;
        let width = usize::try_from(extent(last)).ok().filter(|w| *w < 1 << 48)?;
        let bytes = rows.checked_mul(ty.scalar.row_bytes(width) as u64)?;
        bytes.max(1).checked_next_multiple_of(ALIGN)
    }
}

/// Bytes of a state in a session of at most `ctx` tokens.
pub fn state_bytes(ty: &StateType, ctx: u32) -> u64 {
    ty.kind.rows(u64::from(ctx)) * ty.scalar.row_bytes(ty.width as usize) as u64
}

/// Where the values of one function lie, relative to the function's part of the arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FuncPlan {
    /// Name of the function.
    pub func: String,
    /// Per value of the function: its address, `None` for what the call binds and for states.
    pub addresses: Vec<Option<u64>>,
    /// Per value of the function: address and bytes of what its kernel needs beside operands and
    /// result.
    pub scratch: Vec<Option<(u64, u64)>>,
    /// Bytes of the function's part.
    pub bytes: u64,
}

/// Where the values of one graph lie in the arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphPlan {
    /// Name of the graph.
    pub graph: String,
    /// Per value of the graph.
    pub addresses: Vec<u64>,
    /// Per call: the address at which the called function's part begins.
    pub parts: Vec<u64>,
}

/// The plan for steps of up to a number of tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Largest values of the symbols.
    pub maxima: Maxima,
    /// Size of the arena.
    pub arena_bytes: u64,
    /// In the order of [`Module::graphs`].
    pub graphs: Vec<GraphPlan>,
    /// In the order of [`Module::funcs`].
    pub funcs: Vec<FuncPlan>,
}

/// What a function runs, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchList {
    /// Name of the function.
    pub func: String,
    /// Names of the values that are computed; views of other values are not among them. What stands
    /// in one `launch { }` block, and what [`Func::waves`](crate::Func::waves) puts into one wave, may
    /// run at once: addresses and scratch allow it.
    pub launches: Vec<String>,
}

/// The plan of a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// In the order of [`Module::funcs`].
    pub launches: Vec<LaunchList>,
    /// In ascending order of tokens.
    pub buckets: Vec<Bucket>,
}

impl Plan {
    /// Replays every bucket on labelled memory, wave by wave: every operand must still hold the value
    /// it names, no result and no scratch may lie outside the arena or on anything else that its wave
    /// touches, and a state is read and written in the version that is current.
    ///
    /// It shares no code with whoever placed the values. The runtime relies on it for memory safety.
    ///
    /// # Errors
    /// The first operand that would not be whole, or a part of the plan that does not fit the module.
    pub fn check(&self, module: &Module) -> Result<(), PlanCheckError> {
        check::check(module, self)
    }
}

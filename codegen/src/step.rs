//! The step buffer: the values of a step that differ from one step to the next.
//!
//! An array of `i32`, the same for every launch of a step. Geometry and text depend on maxima only;
//! a kernel reads here how much of its grid there is to do.

/// Absolute position of the first token.
pub const START: usize = 0;
/// Number of tokens.
pub const TOKENS: usize = 1;
/// Number of positions whose logits are wanted.
pub const WANTED: usize = 2;
/// Number of elements.
pub const LEN: usize = 4;

/// The contents for a step.
///
/// # Panics
/// If a number is no `i32`; contexts are smaller.
pub fn values(bind: &ds4_ir::Bind) -> [i32; LEN] {
    let number = |n: usize| i32::try_from(n).expect("positions fit an i32");
    let mut step = [0; LEN];
    step[START] = number(bind.start);
    step[TOKENS] = number(bind.tokens);
    step[WANTED] = number(bind.wanted);
    step
}

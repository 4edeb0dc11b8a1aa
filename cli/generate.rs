//! What a generation is asked for, and what it tells about itself.
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Number of tokens and the time they took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Tokens.
    pub tokens: usize,
    /// Time.
    pub time: Duration,
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.tokens as f64 / self.time.as_secs_f64().max(1e-9);
        write!(f, "{} tokens, {rate:.1} tokens/s", self.tokens)
    }
}

/// How fast a generation was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speed {
    /// What of the prompt was computed.
    pub prefill: Pace,
    /// The answer.
    pub decode: Pace,
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prefill: {}; decode: {}", self.prefill, self.decode)
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The model ended its answer.
    Eos,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The cancel flag or the listener said so.
    Cancelled,
}

/// What to generate.
pub struct Generation<'a> {
    /// All tokens before the answer; not empty.
    pub prompt: &'a [u32],
    /// Most tokens to generate.
    pub n: usize,
    /// Tokens that end the answer.
    pub eos: &'a [u32],
    /// Stops the work when set.
    pub cancel: &'a AtomicBool,
}

//! The loop that every command with text stands on: prefill, then one token after the other.
use crate::progress;
use anyhow::Result;
use ds4_runtime::{Error, Sampler, Session, Want};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tokens of a prefill step: as many as the plan allows.
pub const CHUNK: usize = 512;

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
    /// The prompt.
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
    /// Tokens to append first; not empty.
    pub prompt: &'a [u32],
    /// Most tokens to generate.
    pub n: usize,
    /// Tokens that end the answer.
    pub eos: &'a [u32],
    /// Stops the work when set.
    pub cancel: &'a AtomicBool,
}

/// Appends the prompt and what the model answers to the session; `listen` hears every token of the
/// answer, the final end token included, and says whether to go on.
///
/// # Errors
/// Those of [`Session::advance`] but for cancelling, which is a [`Stop`].
pub fn generate(
    session: &mut Session,
    what: &Generation<'_>,
    sampler: &mut Sampler,
    listen: &mut dyn FnMut(u32) -> Result<bool>,
) -> Result<(Stop, Speed)> {
    let mut speed = Speed::default();
    let start = Instant::now();
    let bar = progress::bar("prefill", what.prompt.len() as u64);
    let mut shown = |done| bar.set_position(done as u64);
    let prefilled = session.advance(what.prompt, Want::Last, CHUNK, what.cancel, &mut shown);
    bar.finish_and_clear();
    let mut logits = match prefilled {
        Ok(logits) => logits,
        Err(Error::Cancelled) => return Ok((Stop::Cancelled, speed)),
        Err(error) => return Err(error.into()),
    };
    speed.prefill = Pace { tokens: what.prompt.len(), time: start.elapsed() };
    let start = Instant::now();
    let stop = loop {
        speed.decode.time = start.elapsed();
        if speed.decode.tokens == what.n {
            break Stop::Length;
        }
        if what.cancel.load(Ordering::Relaxed) {
            break Stop::Cancelled;
        }
        let token = sampler.next(&logits);
        speed.decode.tokens += 1;
        if !listen(token)? {
            break Stop::Cancelled;
        }
        if what.eos.contains(&token) {
            break Stop::Eos;
        }
        if session.position() == u64::from(session.engine().module().ctx) {
            break Stop::Context;
        }
        logits = match session.advance(&[token], Want::Last, 1, what.cancel, &mut |_| ()) {
            Ok(logits) => logits,
            Err(Error::Cancelled) => break Stop::Cancelled,
            Err(error) => return Err(error.into()),
        };
    };
    speed.decode.time = start.elapsed();
    Ok((stop, speed))
}

//! The measurements: prompts one by one; decoding in turn with a raw read of the same bytes.
use super::result::{Bench, Decode, Part, Prefill, Waves, median};
use crate::timeline::CHUNK;
use anyhow::{Result, bail};
use ds4_passes::{Machine, Target, report};
use ds4_runtime::{Engine, Error, RawRead, Session, Want};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Fewest and most pairs of a raw read and a run of tokens.
const PAIRS: std::ops::RangeInclusive<usize> = 5..=8;
/// Runs of a prompt, fewer if they would take longer than [`PROMPT_SECONDS`].
const PROMPT_RUNS: usize = 5;
/// Seconds after which a prompt is not run again.
const PROMPT_SECONDS: f64 = 10.0;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Lengths of prompts in tokens.
    pub prefill: Vec<usize>,
    /// Tokens to decode at each context; none if 0.
    pub decode: usize,
    /// Tokens that the session holds before.
    pub contexts: Vec<u32>,
    /// Whether the states of a context are computed, not filled with random rows.
    pub prefilled: bool,
    /// Whether to keep the times of waves.
    pub waves: bool,
}

/// How the tokens of a context are measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pairs {
    count: usize,
    /// Tokens of a pair.
    tokens: usize,
}

impl Wanted {
    fn pairs(&self) -> Pairs {
        let count = self.decode.clamp(*PAIRS.start(), *PAIRS.end());
        Pairs { count, tokens: self.decode.div_ceil(count) }
    }

    /// Tokens that are run at a context, the one that warms up included.
    pub fn decoded(&self) -> usize {
        let Pairs { count, tokens } = self.pairs();
        if self.decode == 0 { 0 } else { count * tokens + 1 }
    }
}

/// What runs the engine's steps.
fn runner(engine: &Engine) -> String {
    #[cfg(feature = "gpu")]
    if let Some(info) = engine.device() {
        return info.to_string();
    }
    format!("{} threads", engine.threads())
}

/// Measures an engine; on a device without a raw read to compare with. `tell` is told what is being measured.
///
/// # Errors
/// Not enough memory or context, or Ctrl-C.
pub fn measure(
    engine: &Engine,
    wanted: &Wanted,
    machine: Option<&Machine>,
    cancel: &AtomicBool,
    tell: &mut dyn FnMut(String),
) -> Result<Bench> {
    let module = engine.module();
    let title = format!("{}, class {}, {}", module.name, module.class, runner(engine));
    let mut bench = Bench { title, threads: engine.threads(), ..Bench::default() };
    let mut run = Run { session: engine.session()?, ids: Ids::new(module.vocab), cancel };
    for tokens in &wanted.prefill {
        tell(format!("prefill of {tokens} tokens"));
        run.session.keep_times(wanted.waves);
        let (tok_s, runs) = run.prefill(*tokens)?;
        // A prompt is computed in steps of so many tokens.
        let step = u32::try_from((*tokens).min(CHUNK)).expect("a step fits 32 bits");
        let seconds = machine.and_then(|m| report::int8_seconds(module, Target::Cpu, m, step));
        let int8_share = seconds.map(|s| s / f64::from(step) * tok_s);
        bench.prefill.push(Prefill { tokens: *tokens, tok_s, int8_share });
        if wanted.waves {
            bench.waves.push(run.waves(Part::Prefill(*tokens), runs * tokens));
        }
    }
    if wanted.decode > 0 {
        // The states of the longest context, and a token there, before the peak is read.
        if let Some(longest) = wanted.contexts.iter().max() {
            tell(format!("a token at context {longest}"));
            run.go_to(*longest, false)?;
            run.decode(1)?;
        }
    }
    bench.peak_bytes = ds4_runtime::peak_bytes().unwrap_or(0);
    if wanted.decode == 0 || wanted.contexts.is_empty() {
        return Ok(bench);
    }
    // A device reads its own memory; the raw read is of the processor's.
    let mut raw = (engine.threads() > 0).then(|| RawRead::new(engine));
    if let Some(raw) = &mut raw {
        tell("reading the weights".to_string());
        raw.touch_all();
        (bench.token_bytes, bench.source_bytes) = (raw.bytes(), raw.source_bytes());
    }
    let bytes = (bench.token_bytes as f64, bench.source_bytes as f64);
    let mut rates = Vec::new();
    for ctx in &wanted.contexts {
        let predicted_tok_s =
            machine.and_then(|m| report::decode_tokens_s(module, Target::Cpu, m, (*ctx).max(1)));
        tell(format!("filling the states of {ctx} tokens"));
        run.go_to(*ctx, wanted.prefilled)?;
        run.session.keep_times(wanted.waves);
        let mut told = |i| tell(format!("context {ctx}: pair {i}"));
        let pairs = run.pairs(wanted.pairs(), raw.as_mut(), &mut told)?;
        if wanted.waves {
            bench.waves.push(run.waves(Part::Decode(*ctx), wanted.decoded()));
        }
        let share = |p: &Pair| Some(p.read? / p.token * bytes.1 / bytes.0);
        let shares: Option<Vec<f64>> = pairs.iter().map(share).collect();
        bench.decode.push(Decode {
            ctx: *ctx,
            tok_s: median(pairs.iter().map(|p| 1.0 / p.token).collect()),
            limit_share: shares.map(median),
            predicted_tok_s,
        });
        rates.extend(pairs.iter().filter_map(|p| Some(bytes.0 / p.read? / 1e9)));
    }
    bench.read_gbs = raw.map(|_| median(rates));
    Ok(bench)
}

/// Seconds of a raw read and of a token after it.
struct Pair {
    read: Option<f64>,
    token: f64,
}

/// A session that is measured.
struct Run<'a> {
    session: Session,
    ids: Ids,
    cancel: &'a AtomicBool,
}

impl Run<'_> {
    /// The times that were kept over so many tokens.
    fn waves(&self, part: Part, tokens: usize) -> Waves {
        Waves { part, tokens, times: self.session.times() }
    }

    /// Tokens per second of a prompt, and how often it ran.
    fn prefill(&mut self, tokens: usize) -> Result<(f64, usize)> {
        let ids: Vec<u32> = (0..tokens).map(|_| self.ids.next()).collect();
        let (start, mut seconds) = (Instant::now(), Vec::new());
        while seconds.len() < PROMPT_RUNS
            && (seconds.is_empty() || start.elapsed().as_secs_f64() < PROMPT_SECONDS)
        {
            self.session.reset();
            let start = Instant::now();
            self.session.advance(&ids, Want::Last, CHUNK, self.cancel, &mut |_| ())?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let runs = seconds.len();
        Ok((tokens as f64 / median(seconds), runs))
    }

    /// Brings the session to `ctx` tokens.
    fn go_to(&mut self, ctx: u32, prefilled: bool) -> Result<()> {
        if !prefilled {
            self.session.fill_random(u64::from(ctx), 1)?;
            return Ok(());
        }
        self.session.reset();
        let ids: Vec<u32> = (0..ctx).map(|_| self.ids.next()).collect();
        if !ids.is_empty() {
            self.session.advance(&ids, Want::Last, CHUNK, self.cancel, &mut |_| ())?;
        }
        Ok(())
    }

    /// Seconds per token of decoding `tokens` tokens.
    fn decode(&mut self, tokens: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..tokens {
            let id = self.ids.next();
            self.session.advance(&[id], Want::Last, 1, self.cancel, &mut |_| ())?;
        }
        Ok(start.elapsed().as_secs_f64() / tokens as f64)
    }

    fn pairs(
        &mut self,
        pairs: Pairs,
        mut raw: Option<&mut RawRead<'_>>,
        tell: &mut dyn FnMut(usize),
    ) -> Result<Vec<Pair>> {
        self.decode(1)?;
        let mut found = Vec::new();
        for i in 0..pairs.count {
            tell(i + 1);
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled.into());
            }
            let read = raw.as_mut().map(|raw| raw.pass().best());
            found.push(Pair { read, token: self.decode(pairs.tokens)? });
        }
        Ok(found)
    }
}

/// Token ids that every bench of a vocabulary uses, spread over it.
struct Ids {
    state: u64,
    vocab: u64,
}

impl Ids {
    fn new(vocab: u32) -> Ids {
        Ids { state: 12345, vocab: u64::from(vocab) }
    }

    fn next(&mut self) -> u32 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) % self.vocab) as u32
    }
}

/// The contexts and prompts of `wanted` that a context of `ctx` tokens holds; `given` says which of them
/// were asked for and must fit.
///
/// # Errors
/// One that was asked for and does not fit.
pub fn fitting(wanted: &mut Wanted, ctx: u32, given: (bool, bool)) -> Result<()> {
    let decoded = wanted.decoded() as u64;
    let fits = |n: u64| n <= u64::from(ctx);
    if let Some(long) = wanted.prefill.iter().find(|n| given.0 && !fits(**n as u64)) {
        bail!("--prefill {long}: expected at most {ctx} tokens, the longest context of the model");
    }
    if let Some(long) = wanted.contexts.iter().find(|n| given.1 && !fits(u64::from(**n) + decoded)) {
        bail!("--ctx {long}: expected at most {ctx} tokens with the {decoded} decoded, the longest context");
    }
    wanted.prefill.retain(|n| fits(*n as u64));
    wanted.contexts.retain(|n| fits(u64::from(*n) + decoded));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(decode: usize) -> Wanted {
        Wanted { prefill: vec![32, 512], decode, contexts: vec![64, 4096], prefilled: false, waves: false }
    }

    #[test]
    fn there_are_at_least_five_pairs_and_all_tokens_are_in_them() {
        for decode in [1, 4, 5, 7, 32, 33, 100] {
            let Pairs { count, tokens } = wanted(decode).pairs();
            assert!(count >= 5 && count * tokens >= decode, "{decode}: {count} of {tokens}");
        }
        assert_eq!(wanted(32).decoded(), 33);
        assert_eq!(wanted(0).decoded(), 0);
    }

    #[test]
    fn what_was_asked_for_must_fit_and_what_was_not_is_left_out() {
        let mut free = wanted(32);
        fitting(&mut free, 256, (false, false)).unwrap();
        assert_eq!((free.prefill, free.contexts), (vec![32], vec![64]));
        assert!(fitting(&mut wanted(32), 256, (true, false)).is_err());
        assert!(fitting(&mut wanted(32), 4096, (false, true)).is_err());
        fitting(&mut wanted(32), 4129, (true, true)).unwrap();
    }

    #[test]
    fn ids_are_tokens() {
        let mut ids = Ids::new(10);
        let drawn: std::collections::BTreeSet<u32> = (0..200).map(|_| ids.next()).collect();
        assert_eq!(drawn, (0..10).collect());
    }
}

//! A session: one token timeline with its states.
use crate::body::{Body, HostBody, Turn, param_len};
use crate::times::{Times, WaveTime};
use crate::{Engine, Error, Result};
use ds4_ir::{REWIND_MAX, Scalar};
use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

/// Of which positions the logits are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Of the last token given.
    Last,
    /// Of every token given.
    All,
}

/// Tokens given to a model one after the other, and what the model remembers of them.
///
/// The bits of every result depend on the tokens alone: not on how they are split into calls, not on
/// the number of threads.
pub struct Session {
    engine: Engine,
    pub(crate) body: Box<dyn Body>,
    /// What went wrong while states went in or out, for those who started it.
    pub(crate) fault: RefCell<Option<Error>>,
    times: Option<Times>,
    position: u64,
    /// One past the last position that any step has written to the states.
    written: u64,
}

impl Session {
    pub(crate) fn new(engine: Engine) -> Result<Session> {
        #[cfg(feature = "gpu")]
        if let crate::engine::Backend::Device(backend) = &engine.shared.backend {
            let body = Box::new(crate::device::DeviceBody::new(&engine, backend)?);
            return Ok(Session::with(engine, body));
        }
        let body = Box::new(HostBody::new(engine.clone())?);
        Ok(Session::with(engine, body))
    }

    fn with(engine: Engine, body: Box<dyn Body>) -> Session {
        Session { engine, body, fault: RefCell::default(), times: None, position: 0, written: 0 }
    }

    /// Number of tokens the session holds.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The engine it runs on.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Longest chunk in tokens that one step can take with these logits wanted.
    fn chunk_max(&self, want: Want) -> usize {
        let last = self.engine.plan().buckets.last().expect("a plan has a bucket");
        let tokens = match want {
            Want::Last => last.maxima.tokens,
            Want::All => last.maxima.wanted.min(last.maxima.tokens),
        };
        tokens as usize
    }

    /// Appends `ids` and answers logits `[w, vocab]`, row after row: of the last token, or of each.
    ///
    /// Works in steps of at most `chunk` tokens (and what the plan allows). `cancel` is looked at
    /// between launches; `progress` is told the number of tokens done after each step.
    ///
    /// # Errors
    /// An id out of the vocabulary, more tokens than the context holds, memory, or
    /// [`Error::Cancelled`]; the session then holds the tokens of the steps that were finished.
    pub fn advance(
        &mut self,
        ids: &[u32],
        want: Want,
        chunk: usize,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        self.advance_into(ids, want, chunk, cancel, progress, &mut logits)?;
        Ok(logits)
    }

    /// As [`Session::advance`], but the logits go to the end of `logits`. After the first step of a
    /// size nothing is allocated but what `logits` lacks.
    ///
    /// # Errors
    /// As [`Session::advance`].
    pub fn advance_into(
        &mut self,
        ids: &[u32],
        want: Want,
        chunk: usize,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        let module = self.engine.module();
        let (vocab, ctx) = (module.vocab, module.ctx);
        if let Some(id) = ids.iter().find(|id| **id >= vocab) {
            return Err(Error::Token { id: *id, vocab });
        }
        if self.position + ids.len() as u64 > u64::from(ctx) {
            return Err(Error::Context { ctx, position: self.position, more: ids.len() });
        }
        let step = chunk.clamp(1, self.chunk_max(want));
        let mut done = 0;
        for part in ids.chunks(step) {
            done += part.len();
            // Each step computes the logits of its last token at least; those of inner steps are
            // dropped, the head being a small part of a step.
            let first = if want == Want::All { 0 } else { part.len() - 1 };
            self.step(part, first, cancel)?;
            if want == Want::All || done == ids.len() {
                self.body.logits(self.bucket(part.len()), part.len() - first, logits)?;
            }
            progress(done);
        }
        Ok(())
    }

    /// Runs one step of `ids`; logits are computed from token `first` on.
    fn step(&mut self, ids: &[u32], first: usize, cancel: &AtomicBool) -> Result<()> {
        let bucket = self.bucket(ids.len());
        self.body.reserve(bucket)?;
        let end = self.position + ids.len() as u64;
        // A longer step could overwrite more rows of rings and tails than a rewind repairs. Entries
        // only grow, and at the start there is nothing to lose.
        let keeps = self.written.max(end) - self.position > u64::from(REWIND_MAX);
        if keeps {
            self.body.keep(self.position == 0)?;
        }
        let start = usize::try_from(self.position).expect("positions fit the context");
        let ran = self.body.run(&Turn { bucket, ids, start, first }, cancel, self.times.as_mut());
        match ran {
            Ok(()) => {
                self.position = end;
                self.written = self.written.max(end);
            }
            Err(_) if keeps => self.body.put_back()?,
            // A short step has only written rows that a rewind may lose.
            Err(_) => self.written = self.written.max(end),
        }
        ran
    }

    /// Index of the smallest bucket that takes `tokens` tokens.
    fn bucket(&self, tokens: usize) -> usize {
        let buckets = &self.engine.shared.plan.buckets;
        let fits = buckets.iter().position(|b| b.maxima.tokens as usize >= tokens);
        fits.expect("a step is no longer than the largest bucket")
    }

    /// Takes back the last `back` tokens. Costs nothing: states are addressed by position.
    ///
    /// # Errors
    /// More tokens than the states keep: at most 8 below the highest position ever reached, counting
    /// from a reset.
    pub fn rewind(&mut self, back: u64) -> Result<()> {
        let kept = u64::from(REWIND_MAX).saturating_sub(self.written - self.position);
        let max = kept.min(self.position);
        if back > max {
            return Err(Error::Rewind { max, back });
        }
        self.position -= back;
        Ok(())
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.position = 0;
        self.written = 0;
    }

    /// Says that the states are those after `position` tokens and hold no spare rows for a rewind.
    pub(crate) fn set_restored(&mut self, position: u64) {
        self.position = position;
        self.written = if position == 0 { 0 } else { position + u64::from(REWIND_MAX) };
    }

    /// The parameters' bytes, in the module's order.
    pub(crate) fn param_bytes(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.engine.module().params.len()).map(|i| self.body.param(i))
    }

    /// Begins to keep the times of waves anew, or stops keeping them.
    pub fn keep_times(&mut self, keep: bool) {
        self.times = keep.then(Times::default);
    }

    /// The times since [`Session::keep_times`], the longest first.
    pub fn times(&self) -> Vec<WaveTime> {
        self.times.as_ref().map(Times::sorted).unwrap_or_default()
    }

    /// Sets a parameter of the module by name.
    ///
    /// # Errors
    /// No such parameter, another number of elements, or what a device reports.
    pub fn set_param(&mut self, name: &str, elements: &[f32]) -> Result<()> {
        let params = &self.engine.module().params;
        let at = params.iter().position(|p| p.name == name);
        let at = at.ok_or_else(|| Error::Invalid(format!("{name}: the module has no such parameter")))?;
        let expected = param_len(&params[at].ty);
        if expected != elements.len() || params[at].ty.scalar != Scalar::F32 {
            let ty = &params[at].ty;
            return Err(Error::Invalid(format!("{name}: expected {ty}, got {} elements", elements.len())));
        }
        let bytes: Vec<u8> = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.body.set_param(at, &bytes)
    }
}

//! A session with its tokens: brought to a prompt by the shortest way, then on from there.
use crate::generate::{Generation, Pace, Speed, Stop};
use crate::keep::{Keeper, warn};
use crate::progress;
use anyhow::Result;
use ds4_runtime::{Error, Sampler, Session, Want};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Tokens of a prefill step, and the distance of the boundaries at which states are kept.
pub const CHUNK: usize = 512;

/// A session, its tokens, and where they are kept.
pub struct Timeline {
    session: Session,
    tokens: Vec<u32>,
    /// Of the token after the last, empty if they are not known.
    logits: Vec<f32>,
    /// Absent if nothing is kept.
    pub keeper: Option<Keeper>,
    /// What computing a token took lately, in seconds.
    pace: f32,
}

impl Timeline {
    /// A timeline at position 0.
    pub fn new(session: Session, keeper: Option<Keeper>) -> Timeline {
        Timeline { session, tokens: Vec::new(), logits: Vec::new(), keeper, pace: 0.0 }
    }

    /// The tokens that the session holds.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Brings the session to what the store holds of a conversation that goes on.
    pub fn bring_back(&mut self, tokens: &[u32]) {
        if !tokens.is_empty() {
            self.bring(tokens);
        }
    }

    /// Brings the session to a prefix of `prompt`, the longest that it or the store holds.
    fn bring(&mut self, prompt: &[u32]) {
        let same = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        if same == prompt.len() && same == self.tokens.len() && !self.logits.is_empty() {
            return;
        }
        // The last token is computed anew: its logits are wanted.
        let same = same.min(prompt.len() - 1);
        let back = self.tokens.len() - same;
        self.logits.clear();
        if same > 0 && self.session.rewind(back as u64).is_ok() {
            self.tokens.truncate(same);
            return;
        }
        self.session.reset();
        self.tokens.clear();
        // What does not fit is refused by the session.
        let fits = prompt.len() <= self.session.engine().module().ctx as usize;
        let Some(keeper) = self.keeper.as_ref().filter(|_| fits) else { return };
        let restored = keeper.restore(&mut self.session, prompt);
        let kept = usize::try_from(restored.tokens).expect("no more than were asked for");
        self.tokens.extend_from_slice(&prompt[..kept]);
        self.logits = restored.logits;
    }

    /// Appends tokens whose logits are wanted afterwards.
    fn append(&mut self, ids: &[u32], what: &Generation<'_>) -> Result<(), Error> {
        let start = Instant::now();
        self.logits = self.session.advance(ids, Want::Last, ids.len(), what.cancel, &mut |_| ())?;
        self.tokens.extend_from_slice(ids);
        self.pace = start.elapsed().as_secs_f32() / ids.len() as f32;
        Ok(())
    }

    /// Hands the states of this position to the store.
    pub fn save(&self) {
        if let Some(keeper) = &self.keeper
            && !self.logits.is_empty()
        {
            keeper.save(&self.session, &self.tokens, &self.logits, self.pace);
        }
    }

    /// Computes `prompt`, then what the model answers; `listen` hears every token of the answer, the
    /// final end token included, and says whether to go on.
    ///
    /// # Errors
    /// Those of [`Session::advance`] but for cancelling, which is a [`Stop`], and of the journal.
    pub fn answer(
        &mut self,
        what: &Generation<'_>,
        sampler: &mut Sampler,
        listen: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<(Stop, Speed)> {
        assert!(!what.prompt.is_empty(), "a prompt has a token");
        let mut speed = Speed::default();
        let before = self.tokens.iter().zip(what.prompt).take_while(|(a, b)| a == b).count();
        self.bring(what.prompt);
        if let Some(keeper) = &mut self.keeper {
            keeper.record(&self.session, what.prompt, before)?;
        }
        if !self.prefill(what, &mut speed)? {
            return Ok((Stop::Cancelled, speed));
        }
        let start = Instant::now();
        let stop = self.decode(what, sampler, &mut speed, listen);
        speed.decode.time = start.elapsed();
        self.save();
        // What went wrong beside is told now, not when all is over.
        self.keeper.iter().for_each(|keeper| warn(&keeper.store));
        Ok((stop?, speed))
    }

    /// Computes the rest of the prompt in steps that end at multiples of [`CHUNK`]; whether it was
    /// not cancelled.
    fn prefill(&mut self, what: &Generation<'_>, speed: &mut Speed) -> Result<bool> {
        let (start, from) = (Instant::now(), self.tokens.len());
        let bar = progress::bar("prefill", (what.prompt.len() - from) as u64);
        while self.tokens.len() < what.prompt.len() {
            let at = self.tokens.len();
            let end = (at - at % CHUNK + CHUNK).min(what.prompt.len());
            match self.append(&what.prompt[at..end], what) {
                Ok(()) => {}
                Err(Error::Cancelled) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            bar.set_position((end - from) as u64);
            self.save();
        }
        bar.finish_and_clear();
        speed.prefill = Pace { tokens: what.prompt.len() - from, time: start.elapsed() };
        Ok(true)
    }

    fn decode(
        &mut self,
        what: &Generation<'_>,
        sampler: &mut Sampler,
        speed: &mut Speed,
        listen: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<Stop> {
        loop {
            if speed.decode.tokens == what.n {
                return Ok(Stop::Length);
            }
            if what.cancel.load(Ordering::Relaxed) {
                return Ok(Stop::Cancelled);
            }
            let token = sampler.next(&self.logits);
            speed.decode.tokens += 1;
            if let Some(keeper) = &mut self.keeper {
                // With the system before it is shown: the death of the process loses no shown token.
                keeper.append(token)?;
            }
            if !listen(token)? {
                return Ok(Stop::Cancelled);
            }
            let ends = what.eos.contains(&token);
            if self.session.position() == u64::from(self.session.engine().module().ctx) {
                return Ok(if ends { Stop::Eos } else { Stop::Context });
            }
            match self.append(&[token], what) {
                Ok(()) => {}
                Err(Error::Cancelled) => return Ok(Stop::Cancelled),
                Err(error) => return Err(error.into()),
            }
            if ends {
                return Ok(Stop::Eos);
            }
            if self.tokens.len().is_multiple_of(CHUNK) {
                self.save();
            }
        }
    }
}

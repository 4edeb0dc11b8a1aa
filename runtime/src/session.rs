//! A session: one token timeline with its states.
use crate::memory::{Memory, Region, data};
use crate::step::{self, Extents, Ground, Held, Param};
use crate::{Engine, Error, Result};
use ds4_ir::view::Data;
use ds4_ir::{Bind, REWIND_MAX, Scalar, StateKind};
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
    pub(crate) states: Vec<Held>,
    params: Vec<Param>,
    arena: Option<Memory>,
    /// Extents of a program's types in the step that runs.
    extents: Vec<Extents>,
    /// Where rings and tails are kept while a long step runs.
    backup: Vec<u8>,
    position: u64,
    /// One past the last position that any step has written to the states.
    written: u64,
}

impl Session {
    pub(crate) fn new(engine: Engine) -> Result<Session> {
        let module = engine.module();
        let short = |what: &str, bytes: u64| Error::Invalid(format!("{what}: no memory for {bytes} bytes"));
        let mut states = Vec::new();
        for decl in &module.states {
            let bytes = ds4_ir::plan::state_bytes(&decl.ty, module.ctx);
            let memory = Memory::new(bytes).ok_or_else(|| short(&decl.name, bytes))?;
            let capacity = decl.ty.kind.rows(u64::from(module.ctx)) as usize;
            states.push(Held { ty: decl.ty, capacity, memory });
        }
        let mut params = Vec::new();
        for decl in &module.params {
            let bytes = param_len(&decl.ty) as u64 * 4;
            params.push(Param { memory: Memory::new(bytes).ok_or_else(|| short(&decl.name, bytes))? });
        }
        let types = engine.shared.cpu.programs.iter().map(|p| p.types.len()).max().unwrap_or(0);
        let extents = Vec::with_capacity(types);
        Ok(Session { engine, states, params, arena: None, extents, backup: vec![], position: 0, written: 0 })
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
                self.read_logits(part.len(), part.len() - first, logits);
            }
            progress(done);
        }
        Ok(())
    }

    /// Runs one step of `ids`; logits are computed from token `first` on.
    fn step(&mut self, ids: &[u32], first: usize, cancel: &AtomicBool) -> Result<()> {
        let at = self.bucket(ids.len());
        self.reserve(self.engine.shared.plan.buckets[at].arena_bytes)?;
        let backed_up = self.back_up(ids.len());
        let ran = self.run(at, ids, first, cancel);
        let end = self.position + ids.len() as u64;
        match ran {
            Ok(()) => {
                self.position = end;
                self.written = self.written.max(end);
            }
            Err(_) if backed_up => self.put_back(),
            // A short step has only written rows that a rewind may lose.
            Err(_) => self.written = self.written.max(end),
        }
        ran
    }

    /// Runs the program of bucket `at` on `ids`.
    fn run(&mut self, at: usize, ids: &[u32], first: usize, cancel: &AtomicBool) -> Result<()> {
        let shared = &*self.engine.shared;
        let arena = self.arena.as_mut().expect("reserved");
        let start = usize::try_from(self.position).expect("positions fit the context");
        let bind = Bind { start, tokens: ids.len(), wanted: ids.len() - first };
        let addresses = &shared.plan.buckets[at].graphs[shared.main].addresses;
        let as_i32 = |n: usize| i32::try_from(n).expect("ids and positions fit an i32");
        write_ints(arena, addresses[0], ids.iter().map(|id| as_i32(*id as usize)));
        write_ints(arena, addresses[1], (start..start + ids.len()).map(as_i32));
        write_ints(arena, addresses[2], (first..ids.len()).map(as_i32));
        let program = &shared.cpu.programs[at];
        self.extents.clear();
        self.extents.extend(program.types.iter().map(|ty| Extents::of(ty, &bind)));
        let ground = Ground {
            weights: &shared.weights,
            arena: Region::of(arena.bytes_mut()),
            states: &self.states,
            params: &self.params,
            extents: &self.extents,
        };
        step::run(program, &ground, &bind, &mut shared.cpu.pool.turn(), cancel)
    }

    /// Index of the smallest bucket that takes `tokens` tokens.
    fn bucket(&self, tokens: usize) -> usize {
        let buckets = &self.engine.shared.plan.buckets;
        let fits = buckets.iter().position(|b| b.maxima.tokens as usize >= tokens);
        fits.expect("a step is no longer than the largest bucket")
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        if self.arena.as_ref().is_some_and(|m| m.bytes().len() as u64 >= bytes) {
            return Ok(());
        }
        let memory = Memory::new(bytes);
        let memory = memory.ok_or_else(|| Error::Invalid(format!("arena: no memory for {bytes} bytes")))?;
        self.arena = Some(memory);
        Ok(())
    }

    fn read_logits(&self, tokens: usize, rows: usize, logits: &mut Vec<f32>) {
        let shared = &self.engine.shared;
        let graph = &shared.module.graphs[shared.main];
        let at = shared.plan.buckets[self.bucket(tokens)].graphs[shared.main].addresses[graph.results[0]];
        let arena = self.arena.as_ref().expect("a step has run");
        match data(Scalar::F32, &arena.bytes()[at as usize..], rows, shared.module.vocab as usize) {
            Data::Real(x) => logits.extend_from_slice(x),
            _ => unreachable!("f32 data are real"),
        }
    }

    /// Keeps the rings and tails if a step of `tokens` tokens could overwrite more of them than what a
    /// rewind repairs; says whether it did. Entries only grow, so they need no copy.
    fn back_up(&mut self, tokens: usize) -> bool {
        if self.written.max(self.position + tokens as u64) - self.position <= u64::from(REWIND_MAX) {
            return false;
        }
        self.backup.clear();
        // At the start there is nothing to lose.
        if self.position > 0 {
            forgetful(&mut self.states).for_each(|s| self.backup.extend_from_slice(s.memory.bytes()));
        }
        true
    }

    /// Undoes what a step has done since [`Session::back_up`].
    fn put_back(&mut self) {
        let mut kept = &self.backup[..];
        if kept.is_empty() {
            return;
        }
        for state in forgetful(&mut self.states) {
            let to = state.memory.bytes_mut();
            let (own, rest) = kept.split_at(to.len());
            to.copy_from_slice(own);
            kept = rest;
        }
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
        self.params.iter().map(|p| p.memory.bytes())
    }

    /// Sets a parameter of the module by name.
    ///
    /// # Errors
    /// No such parameter, or another number of elements.
    pub fn set_param(&mut self, name: &str, elements: &[f32]) -> Result<()> {
        let params = &self.engine.module().params;
        let at = params.iter().position(|p| p.name == name);
        let at = at.ok_or_else(|| Error::Invalid(format!("{name}: the module has no such parameter")))?;
        let expected = param_len(&params[at].ty);
        if expected != elements.len() || params[at].ty.scalar != Scalar::F32 {
            let ty = &params[at].ty;
            return Err(Error::Invalid(format!("{name}: expected {ty}, got {} elements", elements.len())));
        }
        let bytes = self.params[at].memory.bytes_mut();
        for (to, x) in bytes.chunks_exact_mut(4).zip(elements) {
            to.copy_from_slice(&x.to_le_bytes());
        }
        Ok(())
    }
}

/// The states that overwrite old rows with new ones.
fn forgetful(states: &mut [Held]) -> impl Iterator<Item = &mut Held> {
    states.iter_mut().filter(|s| !matches!(s.ty.kind, StateKind::Entries(_)))
}

fn param_len(ty: &ds4_ir::TensorType) -> usize {
    ty.constants().map_or(0, |dims| dims.iter().map(|d| *d as usize).product())
}

fn write_ints(arena: &mut Memory, at: u64, values: impl Iterator<Item = i32>) {
    let bytes = &mut arena.bytes_mut()[at as usize..];
    for (to, n) in bytes.chunks_exact_mut(4).zip(values) {
        to.copy_from_slice(&n.to_le_bytes());
    }
}

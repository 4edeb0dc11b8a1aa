//! What a session remembers and computes with: states, parameters, arena. On the processor or on a
//! device; the session above it knows only positions.
use crate::memory::{Memory, Region, data};
use crate::step::{self, Extents, Ground, Held, Param};
use crate::times::Times;
use crate::{Engine, Error, Result};
use ds4_ir::view::{Data, state_slot};
use ds4_ir::{Bind, Module, Scalar, StateKind, StateType, TensorType};
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// One step: some tokens at a place of the timeline.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// Index of the bucket.
    pub(crate) bucket: usize,
    /// The tokens.
    pub(crate) ids: &'a [u32],
    /// Position of the first.
    pub(crate) start: usize,
    /// Logits are computed from this token on.
    pub(crate) first: usize,
}

impl Turn<'_> {
    /// What the symbols stand for.
    pub(crate) fn bind(&self) -> Bind {
        Bind { start: self.start, tokens: self.ids.len(), wanted: self.ids.len() - self.first }
    }

    /// The inputs of graph `main`: ids, positions, wanted tokens.
    pub(crate) fn inputs(&self) -> [impl Iterator<Item = i32> + '_; 3] {
        let as_i32 = |n: usize| i32::try_from(n).expect("ids and positions fit an i32");
        let (start, tokens, first) = (self.start, self.ids.len(), self.first);
        [0, 1, 2].map(|input| {
            let from = if input == 2 { first } else { 0 };
            (from..tokens).map(move |i| match input {
                0 => as_i32(self.ids[i] as usize),
                1 => as_i32(start + i),
                _ => as_i32(i),
            })
        })
    }
}

/// The memory of a session, and running a step in it.
pub(crate) trait Body: Send {
    /// Makes room for steps of a bucket.
    ///
    /// # Errors
    /// Not enough memory.
    fn reserve(&mut self, bucket: usize) -> Result<()>;

    /// Runs a step of graph `main`. On the processor `times` is told how long each wave took.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or what a device reports; states then hold part of the step.
    fn run(&mut self, turn: &Turn<'_>, cancel: &AtomicBool, times: Option<&mut Times>) -> Result<()>;

    /// Appends the logits of the step that has just run, `rows` rows.
    ///
    /// # Errors
    /// What a device reports.
    fn logits(&self, bucket: usize, rows: usize, logits: &mut Vec<f32>) -> Result<()>;

    /// Keeps the states that overwrite old rows with new ones, or with `nothing` only that there is
    /// nothing to lose.
    ///
    /// # Errors
    /// What a device reports.
    fn keep(&mut self, nothing: bool) -> Result<()>;

    /// Puts back what was kept last.
    ///
    /// # Errors
    /// What a device reports.
    fn put_back(&mut self) -> Result<()>;

    /// Appends rows of a state, by absolute number.
    ///
    /// # Errors
    /// What a device reports.
    fn read_rows(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) -> Result<()>;

    /// Replaces rows of a state.
    ///
    /// # Errors
    /// What a device reports.
    fn write_rows(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) -> Result<()>;

    /// The bytes of a parameter.
    fn param(&self, index: usize) -> &[u8];

    /// Replaces the bytes of a parameter.
    ///
    /// # Errors
    /// What a device reports.
    fn set_param(&mut self, index: usize, bytes: &[u8]) -> Result<()>;
}

/// Number of elements of a parameter.
pub(crate) fn param_len(ty: &TensorType) -> usize {
    ty.constants().map_or(0, |dims| dims.iter().map(|d| *d as usize).product())
}

/// Whether a state overwrites old rows with new ones.
pub(crate) fn forgets(ty: &StateType) -> bool {
    !matches!(ty.kind, StateKind::Entries(_))
}

/// Rows that a session allocates.
pub(crate) fn capacity(ty: &StateType, module: &Module) -> usize {
    ty.kind.rows(u64::from(module.ctx)) as usize
}

/// The byte ranges of rows one by one.
pub(crate) fn row_ranges(
    ty: StateType,
    capacity: usize,
    rows: Range<u64>,
) -> impl Iterator<Item = Range<usize>> {
    let size = ty.scalar.row_bytes(ty.width as usize);
    rows.map(move |row| {
        let slot = state_slot(ty.kind, capacity, usize::try_from(row).expect("rows fit memory"));
        slot * size..(slot + 1) * size
    })
}

/// The memory of a session on the processor.
pub(crate) struct HostBody {
    engine: Engine,
    states: Vec<Held>,
    params: Vec<Param>,
    arena: Option<Memory>,
    /// Extents of a program's types in the step that runs.
    extents: Vec<Extents>,
    /// Where rings and tails are kept while a long step runs.
    backup: Vec<u8>,
}

impl HostBody {
    /// Memory for the states and parameters of a session.
    ///
    /// # Errors
    /// The system has not as much.
    pub(crate) fn new(engine: Engine) -> Result<HostBody> {
        let module = engine.module();
        let short = |what: &str, bytes: u64| Error::Invalid(format!("{what}: no memory for {bytes} bytes"));
        let mut states = Vec::new();
        for decl in &module.states {
            let bytes = ds4_ir::plan::state_bytes(&decl.ty, module.ctx);
            let memory = Memory::new(bytes).ok_or_else(|| short(&decl.name, bytes))?;
            states.push(Held { ty: decl.ty, capacity: capacity(&decl.ty, module), memory });
        }
        let mut params = Vec::new();
        for decl in &module.params {
            let bytes = param_len(&decl.ty) as u64 * 4;
            params.push(Param { memory: Memory::new(bytes).ok_or_else(|| short(&decl.name, bytes))? });
        }
        let types = engine.shared.cpu().programs.iter().map(|p| p.types.len()).max().unwrap_or(0);
        let extents = Vec::with_capacity(types);
        Ok(HostBody { engine, states, params, arena: None, extents, backup: Vec::new() })
    }
}

impl Body for HostBody {
    fn reserve(&mut self, bucket: usize) -> Result<()> {
        let bytes = self.engine.shared.plan.buckets[bucket].arena_bytes;
        if self.arena.as_ref().is_some_and(|m| m.bytes().len() as u64 >= bytes) {
            return Ok(());
        }
        let memory = Memory::new(bytes);
        let memory = memory.ok_or_else(|| Error::Invalid(format!("arena: no memory for {bytes} bytes")))?;
        self.arena = Some(memory);
        Ok(())
    }

    fn run(&mut self, turn: &Turn<'_>, cancel: &AtomicBool, times: Option<&mut Times>) -> Result<()> {
        let shared = &*self.engine.shared;
        let arena = self.arena.as_mut().expect("reserved");
        let bind = turn.bind();
        let addresses = &shared.plan.buckets[turn.bucket].graphs[shared.main].addresses;
        for (at, numbers) in addresses.iter().zip(turn.inputs()) {
            let bytes = &mut arena.bytes_mut()[*at as usize..];
            for (to, n) in bytes.chunks_exact_mut(4).zip(numbers) {
                to.copy_from_slice(&n.to_le_bytes());
            }
        }
        let program = &shared.cpu().programs[turn.bucket];
        self.extents.clear();
        self.extents.extend(program.types.iter().map(|ty| Extents::of(ty, &bind)));
        let ground = Ground {
            weights: &shared.weights,
            arena: Region::of(arena.bytes_mut()),
            states: &self.states,
            params: &self.params,
            extents: &self.extents,
        };
        step::run(program, &ground, &bind, &mut shared.cpu().pool.turn(), cancel, times)
    }

    fn logits(&self, bucket: usize, rows: usize, logits: &mut Vec<f32>) -> Result<()> {
        let shared = &self.engine.shared;
        let graph = &shared.module.graphs[shared.main];
        let at = shared.plan.buckets[bucket].graphs[shared.main].addresses[graph.results[0]];
        let arena = self.arena.as_ref().expect("a step has run");
        match data(Scalar::F32, &arena.bytes()[at as usize..], rows, shared.module.vocab as usize) {
            Data::Real(x) => logits.extend_from_slice(x),
            _ => unreachable!("f32 data are real"),
        }
        Ok(())
    }

    fn keep(&mut self, nothing: bool) -> Result<()> {
        self.backup.clear();
        if !nothing {
            let kept = self.states.iter().filter(|s| forgets(&s.ty));
            kept.for_each(|s| self.backup.extend_from_slice(s.memory.bytes()));
        }
        Ok(())
    }

    fn put_back(&mut self) -> Result<()> {
        let mut kept = &self.backup[..];
        if kept.is_empty() {
            return Ok(());
        }
        for state in self.states.iter_mut().filter(|s| forgets(&s.ty)) {
            let to = state.memory.bytes_mut();
            let (own, rest) = kept.split_at(to.len());
            to.copy_from_slice(own);
            kept = rest;
        }
        Ok(())
    }

    fn read_rows(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        let held = &self.states[state];
        let bytes = held.memory.bytes();
        row_ranges(held.ty, held.capacity, rows).for_each(|range| out.extend_from_slice(&bytes[range]));
        Ok(())
    }

    fn write_rows(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) -> Result<()> {
        let held = &mut self.states[state];
        let size = held.ty.scalar.row_bytes(held.ty.width as usize);
        let memory = held.memory.bytes_mut();
        for (place, row) in row_ranges(held.ty, held.capacity, rows).zip(bytes.chunks_exact(size)) {
            memory[place].copy_from_slice(row);
        }
        Ok(())
    }

    fn param(&self, index: usize) -> &[u8] {
        self.params[index].memory.bytes()
    }

    fn set_param(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        self.params[index].memory.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

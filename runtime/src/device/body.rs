//! A session's memory on a device, and running steps there.
use super::backend::{Argument, Backend, Planned};
use super::{DeviceMemory, Launch, Place, Recording, record};
use crate::body::{Body, Turn, capacity, forgets, param_len, row_ranges};
use crate::times::Times;
use crate::{Engine, Error, Result};
use ds4_ir::plan::state_bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Numbers of the step buffer: start, tokens, wanted, and one to fill it up.
const STEP_LEN: usize = 4;

/// States, parameters, arena and step buffer of one session. All of it is allocated at the start.
pub(crate) struct DeviceBody {
    engine: Engine,
    backend: Arc<Backend>,
    states: Vec<DeviceMemory>,
    params: Vec<DeviceMemory>,
    /// The parameters' bytes, which the session's identity is made of.
    param_bytes: Vec<Vec<u8>>,
    arena: DeviceMemory,
    step: DeviceMemory,
    /// Per bucket, made when it is first used.
    recordings: Vec<Option<Recording>>,
    backup: Vec<u8>,
}

impl DeviceBody {
    /// Allocates everything a session needs.
    ///
    /// # Errors
    /// The device has not as much memory free; nothing is allocated then.
    pub(crate) fn new(engine: &Engine, backend: &Arc<Backend>) -> Result<DeviceBody> {
        let (module, plan, device) = (engine.module(), engine.plan(), &backend.device);
        let arena_bytes = plan.buckets.iter().map(|b| b.arena_bytes).max().unwrap_or(0);
        let sizes: Vec<u64> = module.states.iter().map(|s| state_bytes(&s.ty, module.ctx)).collect();
        let (states_bytes, free) = (sizes.iter().sum::<u64>(), device.memory_free()?);
        let needed = states_bytes.saturating_add(arena_bytes);
        if needed > free {
            let info = device.info();
            return Err(Error::Device(format!(
                "{info}: a session of {} tokens needs {needed} bytes ({states_bytes} of states, {arena_bytes} \
                 of arena), {free} are free",
                module.ctx
            )));
        }
        let state = |(decl, bytes): (&ds4_ir::module::Decl<ds4_ir::StateType>, &u64)| {
            DeviceMemory::new(device, &decl.name, *bytes)
        };
        let states = module.states.iter().zip(&sizes).map(state).collect::<Result<Vec<_>>>()?;
        let param_bytes: Vec<Vec<u8>> =
            module.params.iter().map(|p| vec![0; (param_len(&p.ty) * 4).max(4)]).collect();
        let mut params = Vec::new();
        for (decl, bytes) in module.params.iter().zip(&param_bytes) {
            let memory = DeviceMemory::new(device, &decl.name, bytes.len() as u64)?;
            memory.upload(0, bytes)?;
            params.push(memory);
        }
        let arena = DeviceMemory::new(device, "arena", arena_bytes)?;
        let step = DeviceMemory::new(device, "step buffer", (STEP_LEN * 4) as u64)?;
        let recordings = plan.buckets.iter().map(|_| None).collect();
        let (engine, backend) = (engine.clone(), backend.clone());
        Ok(DeviceBody {
            engine,
            backend,
            states,
            params,
            param_bytes,
            arena,
            step,
            recordings,
            backup: vec![],
        })
    }

    fn place(&self, argument: Argument) -> Place {
        match argument {
            Argument::Step => self.step.place(0),
            Argument::Arena(at) => self.arena.place(at),
            Argument::State(i) => self.states[i].place(0),
            Argument::Param(i) => self.params[i].place(0),
            Argument::Weights(memory, at) => self.backend.weights[memory].place(at),
            Argument::Tables(at) => self.backend.tables.place(at),
            Argument::Constants(at) => self.backend.constants.place(at),
        }
    }

    fn launch(&self, planned: &Planned) -> Launch {
        Launch {
            kernel: planned.kernel,
            grid: planned.grid,
            block: planned.block,
            shared_bytes: planned.shared_bytes,
            arguments: planned.arguments.iter().map(|a| self.place(*a)).collect(),
        }
    }

    /// The states that a long step could destroy, with their bytes.
    fn forgetful(&self) -> impl Iterator<Item = (&DeviceMemory, usize)> {
        let decls = &self.engine.module().states;
        let pairs = self.states.iter().zip(decls).filter(|(_, d)| forgets(&d.ty));
        pairs.map(|(memory, _)| (memory, usize::try_from(memory.bytes()).expect("states fit memory")))
    }
}

impl Body for DeviceBody {
    fn reserve(&mut self, bucket: usize) -> Result<()> {
        if self.recordings[bucket].is_none() {
            let launches = self.backend.programs[bucket].iter().map(|p| self.launch(p)).collect();
            self.recordings[bucket] = Some(record(&self.backend.device, launches)?);
        }
        Ok(())
    }

    fn run(&mut self, turn: &Turn<'_>, cancel: &AtomicBool, _times: Option<&mut Times>) -> Result<()> {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let shared = &*self.engine.shared;
        let addresses = &shared.plan.buckets[turn.bucket].graphs[shared.main].addresses;
        for (at, numbers) in addresses.iter().zip(turn.inputs()) {
            let bytes: Vec<u8> = numbers.flat_map(i32::to_le_bytes).collect();
            self.arena.upload(*at, &bytes)?;
        }
        let bind = turn.bind();
        let numbers = [bind.start, bind.tokens, bind.wanted, 0];
        let number = |n: usize| i32::try_from(n).expect("positions fit an i32").to_le_bytes();
        self.step.upload(0, &numbers.map(number).concat())?;
        self.recordings[turn.bucket].as_ref().expect("reserved").run()
    }

    fn logits(&self, bucket: usize, rows: usize, logits: &mut Vec<f32>) -> Result<()> {
        let shared = &self.engine.shared;
        let graph = &shared.module.graphs[shared.main];
        let at = shared.plan.buckets[bucket].graphs[shared.main].addresses[graph.results[0]];
        let mut bytes = vec![0; rows * shared.module.vocab as usize * 4];
        self.arena.download(at, &mut bytes)?;
        logits.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))));
        Ok(())
    }

    fn keep(&mut self, nothing: bool) -> Result<()> {
        let mut backup = std::mem::take(&mut self.backup);
        backup.clear();
        for (memory, bytes) in self.forgetful().filter(|_| !nothing) {
            let from = backup.len();
            backup.resize(from + bytes, 0);
            memory.download(0, &mut backup[from..])?;
        }
        self.backup = backup;
        Ok(())
    }

    fn put_back(&mut self) -> Result<()> {
        let mut kept = &self.backup[..];
        if kept.is_empty() {
            return Ok(());
        }
        for (memory, bytes) in self.forgetful() {
            let (own, rest) = kept.split_at(bytes);
            memory.upload(0, own)?;
            kept = rest;
        }
        Ok(())
    }

    fn read_rows(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        for range in self.runs(state, rows) {
            let from = out.len();
            out.resize(from + range.len(), 0);
            self.states[state].download(range.start as u64, &mut out[from..])?;
        }
        Ok(())
    }

    fn write_rows(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for range in self.runs(state, rows) {
            let (own, more) = rest.split_at(range.len());
            self.states[state].upload(range.start as u64, own)?;
            rest = more;
        }
        Ok(())
    }

    fn param(&self, index: usize) -> &[u8] {
        &self.param_bytes[index]
    }

    fn set_param(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        self.param_bytes[index][..bytes.len()].copy_from_slice(bytes);
        self.params[index].upload(0, bytes)
    }
}

impl DeviceBody {
    /// The rows as few byte ranges: neighbours are moved in one copy.
    fn runs(&self, state: usize, rows: Range<u64>) -> Vec<Range<usize>> {
        let module = self.engine.module();
        let ty = module.states[state].ty;
        let mut runs: Vec<Range<usize>> = Vec::new();
        for range in row_ranges(ty, capacity(&ty, module), rows) {
            match runs.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => runs.push(range),
            }
        }
        runs
    }
}

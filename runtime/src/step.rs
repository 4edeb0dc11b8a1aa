//! Runs one program: wave after wave, a cancel flag looked at between them. Nothing is allocated.
use crate::cpu::{Place, SharedFrame};
use crate::memory::{self, Memory, Region, rows_of};
use crate::pool::Turn;
use crate::program::{Launch, OPERANDS_MAX, Program, Source, Target, WAVE_MAX};
use crate::times::Times;
use crate::weights::Weights;
use crate::{Error, Result};
use ds4_ir::view::{Operand, State, Tensor};
use ds4_ir::{Bind, Dim, StateType, TensorType, WeightSource};
use std::sync::atomic::{AtomicBool, Ordering};

/// A state of a session.
pub(crate) struct Held {
    pub(crate) ty: StateType,
    pub(crate) capacity: usize,
    pub(crate) memory: Memory,
}

/// A parameter of a session.
pub(crate) struct Param {
    pub(crate) memory: Memory,
}

/// What a program runs on.
pub(crate) struct Ground<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) arena: Region<'a>,
    /// No one else uses their memory during the step.
    pub(crate) states: &'a [Held],
    pub(crate) params: &'a [Param],
    /// Extents of the program's types in this step.
    pub(crate) extents: &'a [Extents],
}

/// Extents of a value in a step; no tensor of the IR has more axes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extents {
    dims: [usize; 4],
    rank: usize,
}

impl Extents {
    /// Those of `ty`.
    pub(crate) fn of(ty: &TensorType, bind: &Bind) -> Extents {
        let mut dims = [0; 4];
        for (to, dim) in dims.iter_mut().zip(&ty.dims) {
            *to = match *dim {
                Dim::Const(n) => n as usize,
                Dim::Sym(s) => bind.sym(s),
            };
        }
        Extents { dims, rank: ty.dims.len() }
    }

    fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

/// Runs every launch; `times` is told how long each wave takes.
///
/// # Errors
/// [`Error::Cancelled`] between two waves; states then hold part of the step.
pub(crate) fn run(
    program: &Program,
    ground: &Ground<'_>,
    bind: &Bind,
    turn: &mut Turn<'_>,
    cancel: &AtomicBool,
    mut times: Option<&mut Times>,
) -> Result<()> {
    for wave in program.waves() {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        match &mut times {
            Some(times) => times.add(wave, || run_wave(program, ground, bind, turn, wave)),
            None => run_wave(program, ground, bind, turn, wave),
        }
    }
    Ok(())
}

/// Runs launches that may run at once, phase by phase together.
fn run_wave(program: &Program, ground: &Ground<'_>, bind: &Bind, turn: &mut Turn<'_>, wave: &[Launch]) {
    let mut operands = [Operand::Consumed; OPERANDS_MAX];
    let sources = wave.iter().flat_map(|launch| &launch.operands);
    operands.iter_mut().zip(sources).for_each(|(to, from)| *to = ground.operand(program, from));
    let mut at = 0;
    let threads = turn.threads();
    let frames: [Option<SharedFrame<'_>>; WAVE_MAX] = std::array::from_fn(|i| {
        let launch = wave.get(i)?;
        let own = at..at + launch.operands.len();
        at = own.end;
        let (start, bytes) = launch.scratch;
        let scratch = ground.arena.part(start as usize, bytes as usize);
        Some(SharedFrame {
            operands: &operands[own],
            place: ground.place(program, &launch.target),
            scratch,
            bind,
            threads,
        })
    });
    let frame = |i: usize| frames[i].as_ref().expect("a launch has a frame");
    let phases = wave.iter().map(|launch| launch.kernel.phases()).max().unwrap_or(0);
    for phase in 0..phases {
        // Where the tasks of each launch end in the common numbering.
        let mut ends = [0; WAVE_MAX];
        let mut total = 0;
        for (i, launch) in wave.iter().enumerate() {
            total += if phase < launch.kernel.phases() { launch.kernel.tasks(phase, frame(i)) } else { 0 };
            ends[i] = total;
        }
        turn.run(total, &|task, worker| {
            let i = ends.iter().position(|end| task < *end).expect("a task of a launch");
            let first = if i == 0 { 0 } else { ends[i - 1] };
            wave[i].kernel.run(phase, task - first, frame(i), worker);
        });
    }
}

impl<'a> Ground<'a> {
    /// The arena from `at` on, as many bytes as a value of these extents takes.
    fn value(&self, at: u64, ty: &TensorType, dims: &[usize]) -> Region<'a> {
        let (rows, width) = rows_of(dims);
        let at = usize::try_from(at).expect("addresses fit the arena");
        self.arena.part(at, rows * ty.scalar.row_bytes(width))
    }

    fn operand(&self, program: &'a Program, source: &'a Source) -> Operand<'a, f32> {
        match source {
            Source::Arena(at, ty) => {
                let (ty, dims) = (&program.types[*ty], self.extents[*ty].dims());
                let region = self.value(*at, ty, dims);
                // SAFETY: the plan's check has proven that no result and no scratch of this wave
                // overlaps an operand, so nothing writes these bytes while they are borrowed.
                let bytes = unsafe { region.slice(0, region.len()) };
                self.tensor(ty, dims, bytes)
            }
            Source::Param(index, ty) => {
                let (ty, dims) = (&program.types[*ty], self.extents[*ty].dims());
                self.tensor(ty, dims, self.params[*index].memory.bytes())
            }
            Source::State(index) => {
                let Held { ty, capacity, memory } = &self.states[*index];
                // No launch of the wave updates the state (verified: a consumed version is not read),
                // so nothing writes these bytes while they are borrowed.
                let data = memory::data(ty.scalar, memory.bytes(), *capacity, ty.width as usize);
                Operand::State(State { ty: *ty, capacity: *capacity, data })
            }
            Source::Consumed => Operand::Consumed,
            Source::Weight(index) => Operand::Weight(self.weights.weight(*index)),
            Source::Packed(index) => Operand::Weight(self.weights.packed(*index)),
            Source::Lit(lit) => Operand::Lit(lit),
        }
    }

    fn tensor(&self, ty: &'a TensorType, dims: &'a [usize], bytes: &'a [u8]) -> Operand<'a, f32> {
        let (rows, width) = rows_of(dims);
        let data = memory::data(ty.scalar, bytes, rows, width);
        Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims, data })
    }

    fn place(&self, program: &Program, target: &Target) -> Place<'a> {
        match target {
            Target::Arena(at, ty) => {
                let (ty, dims) = (&program.types[*ty], self.extents[*ty].dims());
                Place::Tensor { scalar: ty.scalar, dims, memory: self.value(*at, ty, dims) }
            }
            Target::State(index) => {
                let Held { ty, capacity, memory } = &self.states[*index];
                // SAFETY: the session lends its states to this step alone, and no operand of the wave is
                // a version of this one.
                Place::State { ty: *ty, capacity: *capacity, memory: unsafe { memory.shared() } }
            }
        }
    }
}

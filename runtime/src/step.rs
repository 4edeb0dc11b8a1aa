//! Runs one program: launches in order, a cancel flag looked at between them.
use crate::memory::{self, Memory, rows_of};
use crate::program::{OPERANDS_MAX, Program, Source, Target};
use crate::weights::Weights;
use crate::{Error, Result};
use ds4_ir::view::{Frame, Operand, Out, State, StateMut, Tensor};
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
pub(crate) struct Place<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) arena: &'a mut Memory,
    pub(crate) states: &'a mut [Held],
    pub(crate) params: &'a [Param],
}

/// Extents of one operand in this step; no tensor of the IR has more axes.
type Extents = ([usize; 4], usize);

fn extents(ty: &TensorType, bind: &Bind) -> Extents {
    let mut dims = [0; 4];
    for (to, dim) in dims.iter_mut().zip(&ty.dims) {
        *to = match *dim {
            Dim::Const(n) => n as usize,
            Dim::Sym(s) => bind.sym(s),
        };
    }
    (dims, ty.dims.len())
}

/// Runs every launch.
///
/// # Errors
/// [`Error::Cancelled`] between two launches; states then hold part of the step.
pub(crate) fn run(program: &Program, place: &mut Place<'_>, bind: &Bind, cancel: &AtomicBool) -> Result<()> {
    for launch in &program.launches {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let mut dims: [Extents; OPERANDS_MAX] = [([0; 4], 0); OPERANDS_MAX];
        for (d, operand) in dims.iter_mut().zip(&launch.operands) {
            if let Source::Arena(_, ty) | Source::Param(_, ty) = operand {
                *d = extents(ty, bind);
            }
        }
        let arena = place.arena.bytes_mut();
        let (start, size) = (arena.as_mut_ptr(), arena.len());
        let region = |at: u64| {
            let at = usize::try_from(at).expect("addresses fit the arena");
            assert!(at <= size, "address {at:#x} in an arena of {size} bytes");
            (at, size - at)
        };
        let states = place.states.as_mut_ptr();
        let operand = |i: usize| -> Operand<'_, f32> {
            let (dims, rank) = &dims[i];
            let dims = &dims[..*rank];
            match &launch.operands[i] {
                Source::Arena(at, ty) => {
                    let (at, len) = region(*at);
                    // SAFETY: the range lies inside the arena. The plan's check has proven that the
                    // result of this launch overlaps no operand, so nothing writes these elements
                    // while they are borrowed; `memory::data` takes only the operand's own bytes.
                    let bytes = unsafe { std::slice::from_raw_parts(start.add(at), len) };
                    let (rows, width) = rows_of(dims);
                    Operand::Tensor(Tensor {
                        ty,
                        scalar: ty.scalar,
                        dims,
                        data: memory::data(ty.scalar, bytes, rows, width),
                    })
                }
                Source::Param(index, ty) => {
                    let (rows, width) = rows_of(dims);
                    let data = memory::data(ty.scalar, place.params[*index].memory.bytes(), rows, width);
                    Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims, data })
                }
                Source::State(index) => {
                    // SAFETY: the index lies inside the slice, and a launch never reads the state
                    // that it updates (verified: a consumed version is not read).
                    let held = unsafe { &*states.add(*index) };
                    let width = held.ty.width as usize;
                    let data = memory::data(held.ty.scalar, held.memory.bytes(), held.capacity, width);
                    Operand::State(State { ty: held.ty, capacity: held.capacity, data })
                }
                Source::Consumed => Operand::Consumed,
                Source::Weight(index) => Operand::Weight(place.weights.weight(*index)),
                Source::Lit(lit) => Operand::Lit(lit),
            }
        };
        let mut operands = [Operand::Consumed; OPERANDS_MAX];
        let count = launch.operands.len();
        operands[..count].iter_mut().enumerate().for_each(|(i, o)| *o = operand(i));
        let out_dims;
        let out = match &launch.target {
            Target::Arena(at, ty) => {
                out_dims = extents(ty, bind);
                let dims = &out_dims.0[..out_dims.1];
                let (rows, width) = rows_of(dims);
                let (at, len) = region(*at);
                let len = len.min(rows * ty.scalar.row_bytes(width));
                // SAFETY: inside the arena, and disjoint from all operands as said above.
                let bytes = unsafe { std::slice::from_raw_parts_mut(start.add(at), len) };
                Out::Tensor { scalar: ty.scalar, dims, data: memory::data_mut(ty.scalar, bytes, rows, width) }
            }
            Target::State(index) => {
                assert!(*index < place.states.len(), "state {index}");
                // SAFETY: inside the slice, and no operand of this launch is this state.
                let held = unsafe { &mut *states.add(*index) };
                let width = held.ty.width as usize;
                let data = memory::data_mut(held.ty.scalar, held.memory.bytes_mut(), held.capacity, width);
                Out::State(StateMut { ty: held.ty, capacity: held.capacity, data })
            }
        };
        let (at, bytes) = launch.scratch;
        let (at, len) = region(at);
        let bytes = usize::try_from(bytes).expect("scratch fits the arena");
        assert!(bytes <= len, "scratch of {bytes} bytes at {at:#x} in an arena of {size} bytes");
        // SAFETY: inside the arena; the plan's check has proven that scratch overlaps neither operands
        // nor result.
        let scratch = unsafe { std::slice::from_raw_parts_mut(start.add(at), bytes) };
        launch.launcher.run(&mut Frame { operands: &operands[..count], out, bind, scratch });
    }
    Ok(())
}

//! How an op runs on the processor: phases in turn, each of tasks that may run at once.
use super::Kernel;
use super::Products;
use super::frame::SharedFrame;
use ds4_ir::ops::SigArg;
use ds4_ir::plan::Maxima;
use ds4_ir::{Lit, Op, Type};

/// Runs the launches of one node. The phases of a launch follow each other; the tasks of a phase run in
/// any order, on any thread, and beside the tasks of other launches of the wave.
pub(crate) trait OpKernel: Send + Sync {
    /// Bytes of scratch that a launch touches at most; the rule that the plan's target has for the op.
    fn scratch_bytes(&self) -> u64 {
        0
    }

    /// Bytes of a thread's own buffer that a task touches at most. The buffer's content is not kept.
    fn worker_bytes(&self) -> usize {
        0
    }

    /// Number of phases.
    fn phases(&self) -> usize {
        1
    }

    /// Number of tasks of a phase; those of the phases before are done.
    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize;

    /// Runs one task.
    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]);
}

/// A node that gets a kernel: op, types, largest sizes.
pub(crate) struct Site<'a> {
    /// The op.
    pub(crate) op: &'static Op,
    /// Types of its operands, and its literals.
    pub(crate) args: &'a [SigArg<'a>],
    /// Type of its result.
    pub(crate) ty: &'a Type,
    /// Largest sizes of a step.
    pub(crate) maxima: &'a Maxima,
    /// The kernels of its products.
    pub(crate) products: &'a Products<'a>,
}

impl Site<'_> {
    /// Operand `i`, a whole literal.
    pub(crate) fn int(&self, i: usize) -> usize {
        match self.args[i] {
            SigArg::Lit(Lit::Int(n)) => usize::try_from(*n).expect("a literal of this op is not negative"),
            _ => panic!("operand {i} of `{}` is no whole number", self.op.name),
        }
    }

    /// Operand `i`, a literal number.
    pub(crate) fn real(&self, i: usize) -> f32 {
        match self.args[i] {
            SigArg::Lit(Lit::Real(x)) => *x as f32,
            SigArg::Lit(Lit::Int(n)) => *n as f32,
            _ => panic!("operand {i} of `{}` is no number", self.op.name),
        }
    }
}

/// A function over the whole launch, as one task.
pub(crate) struct Whole(pub(crate) Kernel);

impl OpKernel for Whole {
    fn tasks(&self, _: usize, _: &SharedFrame<'_>) -> usize {
        1
    }

    fn run(&self, _: usize, _: usize, f: &SharedFrame<'_>, _: &mut [u8]) {
        // SAFETY: the launch is this one task.
        (self.0)(&mut unsafe { f.whole() });
    }
}

/// Runs a kernel alone, phase by phase, as a step runs those of a wave.
#[cfg(test)]
pub(crate) fn launch(kernel: &dyn OpKernel, f: &SharedFrame<'_>, turn: &mut crate::pool::Turn<'_>) {
    for phase in 0..kernel.phases() {
        turn.run(kernel.tasks(phase, f), &|task, worker| kernel.run(phase, task, f, worker));
    }
}

//! `push ring! rows pos` and `append entries! rows pos`: rows of this step into a state (spec 3.1).
//!
//! One block per row, which it copies word by word. Of rows that a ring would forget within the
//! step only the last are written, so that no two blocks write the same memory.
use super::common::{Rows, THREADS};
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::StateKind;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::rows,
    crate::{emit, step},
    cubecl::prelude::*,
};

pub(crate) const PUSH: Kernel = Kernel {
    op: "push",
    launches,
    cases: &[
        Case {
            header: "%ring: state ring/8 f32[40], %rows: f32[t, 40], %pos: i32[t]",
            node: "push %ring, %rows, %pos : state ring/8 f32[40]",
            steps: &[0..1, 1..8, 8..30, 30..32],
        },
        Case {
            header: "%ring: state ring/4 kv8r16[80], %rows: kv8r16[t, 80], %pos: i32[t]",
            node: "push %ring, %rows, %pos : state ring/4 kv8r16[80]",
            steps: &[0..3, 3..16],
        },
    ],
    tolerance: 0.0,
};

pub(crate) const APPEND: Kernel = Kernel {
    op: "append",
    launches,
    cases: &[
        Case {
            header: "%e: state entries/4 f32[40], %rows: f32[m4, 40], %pos: i32[t]",
            node: "append %e, %rows, %pos : state entries/4 f32[40]",
            steps: &[0..3, 3..4, 4..16],
        },
        Case {
            header: "%e: state entries/4 idx4[64], %rows: idx4[m4, 64], %pos: i32[t]",
            node: "append %e, %rows, %pos : state entries/4 idx4[64]",
            steps: &[0..7, 7..8],
        },
    ],
    tolerance: 0.0,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    slots: Slots,
    /// Words of a row.
    words: u32,
}

/// Where the rows of a step lie in a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Slots {
    /// A token's row at its position, modulo so many rows.
    Cyclic(u32),
    /// An entry at its number, of blocks of so many tokens.
    Entries(u32),
}

impl Slots {
    /// Those of a state in sessions of the bucket.
    pub(crate) fn of(kind: StateKind, maxima: &Maxima) -> Slots {
        match kind {
            StateKind::Entries(ratio) => Slots::Entries(ratio),
            kind => {
                let rows = kind.rows(u64::from(maxima.ctx));
                Slots::Cyclic(u32::try_from(rows).expect("rings and tails are short"))
            }
        }
    }
}

fn launches(site: &Site<'_>, maxima: &Maxima, _target: &Target) -> Option<Vec<Launch>> {
    let rows = site.value(1);
    let bytes = rows.scalar.row_bytes(rows.dims[1].constant()? as usize);
    let words = u32::try_from(bytes / 4).ok().filter(|_| bytes.is_multiple_of(4))?;
    let slots = Slots::of(site.state(0).kind, maxima);
    let spec = Spec { rows: Rows::of(&rows.dims[..1]), slots, words };
    Some(vec![Launch {
        block: [THREADS, 1, 1],
        grid: [spec.rows.max(maxima), 1, 1],
        bindings: vec![Binding::Step, Binding::Value(1), Binding::Out],
        text: Arc::new(spec),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        match self.slots {
            Slots::Cyclic(_) => "push",
            Slots::Entries(_) => "append",
        }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&push::Push::new(set, dev, lang, b0, b1, b2, self.rows, self.slots, self.words))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn push(
    step: &[i32],
    from: &[u32],
    state: &mut [u32],
    #[comptime] n_rows: Rows,
    #[comptime] slots: Slots,
    #[comptime] words: u32,
) {
    let row = CUBE_POS_X as usize;
    let end = rows(step, n_rows);
    if row >= end || !is_kept(row, end, slots) {
        terminate!();
    }
    let words = comptime!(words as usize);
    let to = slot(step, row, slots) * words;
    for i in range_stepped(UNIT_POS as usize, words, CUBE_DIM as usize) {
        state[to + i] = from[row * words + i];
    }
}

/// Whether row `row` of `end` is still in the state after the step.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn is_kept(row: usize, end: usize, #[comptime] slots: Slots) -> bool {
    match comptime!(slots) {
        Slots::Cyclic(capacity) => row + comptime!(capacity as usize) >= end,
        Slots::Entries(_) => true.runtime(),
    }
}

/// Where row `row` of the step lies, in rows of the state.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn slot(step: &[i32], row: usize, #[comptime] slots: Slots) -> usize {
    let start = step[step::START] as usize;
    match comptime!(slots) {
        Slots::Cyclic(capacity) => (start + row) % comptime!(capacity as usize),
        Slots::Entries(ratio) => start / comptime!(ratio as usize) + row,
    }
}

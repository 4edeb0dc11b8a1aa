//! Routes grouped by expert, for products that read an expert's matrix once per block of its routes.
//!
//! ```text
//! words  0                  1 ..                              then
//!        number of blocks   expert, first, end of each block  routes, those of an expert one after the other
//! ```
//! One block of threads, one thread per expert: it counts its routes and later writes them, both in their order.
use crate::kernels::common::Rows;
use crate::{Binding, Launch, Target, Text};
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {crate::emit, crate::kernels::common::rows, cubecl::prelude::*};

/// Lists of a step as texts are specialised on them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Lists {
    /// Tokens with routes, and how many each has.
    pub(super) tokens: Rows,
    pub(super) slots: u32,
    /// Experts there are.
    experts: u32,
    /// Routes of a block at most.
    pub(super) block: u32,
    /// Routes and blocks of a step at most.
    routes: u32,
    blocks: u32,
}

/// Most routes that shared memory is to hold.
const ROUTES_MAX: u32 = 6144;

impl Lists {
    /// The lists of a bucket. `None` if there are too many routes or experts for one block of threads.
    pub(super) fn new(
        tokens: Rows,
        slots: u32,
        experts: u32,
        block: u32,
        maxima: &Maxima,
        target: &Target,
    ) -> Option<Lists> {
        let routes = tokens.max(maxima) * slots;
        let blocks = experts.min(routes) + routes / block;
        let fits = routes <= ROUTES_MAX && experts <= target.threads_max;
        fits.then_some(Lists { tokens, slots, experts, block, routes, blocks })
    }

    /// The launch that writes them from byte `offset` of scratch on, where operand `routes` has the routes; and where
    /// they then are.
    pub(super) fn launch(self, routes: usize, offset: u64, target: &Target) -> (Launch, Binding) {
        let bytes = u64::from(self.first_route() + self.routes) * 4;
        let scratch = Binding::Scratch { offset, bytes };
        let launch = Launch {
            block: [self.experts.next_multiple_of(target.subgroup), 1, 1],
            grid: [1, 1, 1],
            bindings: vec![Binding::Step, Binding::Value(routes), scratch.clone()],
            text: Arc::new(self),
        };
        (launch, scratch)
    }

    /// Blocks of routes that a step may have.
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The word of the first route.
    pub(super) fn first_route(&self) -> u32 {
        1 + 3 * self.blocks
    }
}

impl Text for Lists {
    fn name(&self) -> &'static str {
        "expert_lists"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let threads = self.experts.next_multiple_of(at.target.subgroup);
        CubeKernel::define(&expert_lists::ExpertLists::new(set, dev, lang, b0, b1, b2, *self, threads))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn expert_lists(
    step: &[i32],
    routes: &[u32],
    out: &mut [u32],
    #[comptime] s: Lists,
    #[comptime] threads: u32,
) {
    let end = rows(step, comptime!(s.tokens)) * comptime!(s.slots as usize);
    let groups = (end + 3) / 4;
    let mut chosen = Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(s.routes.div_ceil(4) as usize));
    for g in range_stepped(UNIT_POS as usize, groups, comptime!(threads as usize)) {
        let mut group = Vector::<u32, Const<4>>::new(u32::MAX);
        #[unroll]
        for i in 0..4usize {
            if 4 * g + i < end {
                group.insert(i, routes[2 * (4 * g + i)]);
            }
        }
        chosen[g] = group;
    }
    sync_cube();
    let expert = UNIT_POS;
    let mut count = 0u32;
    for g in 0..groups {
        let group = chosen[g];
        #[unroll]
        for i in 0..4usize {
            count += select(group.extract(i) == expert, 1u32, 0u32);
        }
    }
    let mut counts = Shared::<[u32]>::new_slice(comptime!(threads as usize));
    counts[UNIT_POS as usize] = count;
    sync_cube();
    let size = comptime!(s.block);
    let mut routes_before = 0u32;
    let mut blocks_before = 0u32;
    for below in 0..UNIT_POS {
        let of_expert = counts[below as usize];
        routes_before += of_expert;
        blocks_before += (of_expert + comptime!(size - 1)) / size;
    }
    let blocks = (count + comptime!(size - 1)) / size;
    if expert == comptime!(s.experts - 1) {
        out[0] = blocks_before + blocks;
    }
    for block in 0..blocks {
        let at = (1u32 + 3u32 * (blocks_before + block)) as usize;
        out[at] = expert;
        out[at + 1] = routes_before + block * size;
        out[at + 2] = routes_before + min((block + 1) * size, count);
    }
    let mut at = routes_before as usize + comptime!(s.first_route() as usize);
    for g in 0..groups {
        let group = chosen[g];
        #[unroll]
        for i in 0..4usize {
            if group.extract(i) == expert {
                out[at] = u32::cast_from(4 * g + i);
                at += 1;
            }
        }
    }
}

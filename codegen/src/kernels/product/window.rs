//! Bytes of a matrix on their way through shared memory.
use super::Product;
use crate::kernels::common::{SECTOR, Stretch, quads, singles};
use cubecl::prelude::*;

/// Where the rows of a subgroup wait: per row a stretch of [`Product::pitch`] groups of 16 bytes, which begins
/// with the sector that holds the first byte.
#[derive(CubeType)]
pub(crate) struct Window {
    groups: Shared<[Vector<u32, Const<4>>]>,
}

#[cube]
impl Window {
    /// The window of a matrix of `p`.
    pub(crate) fn new(#[comptime] p: Product) -> Window {
        Window::of_groups(comptime!(p.window()))
    }

    /// A window of so many groups of 16 bytes.
    pub(crate) fn of_groups(#[comptime] groups: u32) -> Window {
        Window { groups: Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(groups as usize)) }
    }

    /// The window as words.
    pub(super) fn words(&self) -> &[u32] {
        singles(self.groups.as_slice())
    }
}

/// The first byte of row `r` of this subgroup in the window, where it lies at `byte` of the matrix's buffer.
#[cube]
pub(super) fn waiting(byte: usize, #[comptime] r: usize, #[comptime] p: Product) -> usize {
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    let (each, pitch) = comptime!((p.each as usize, p.pitch() as usize));
    (subgroup * each + r) * comptime!(16 * pitch) + byte % comptime!(SECTOR as usize)
}

/// Brings `length` bytes of each row of the subgroup that is below `rows` to the window, from byte `first[r]` of
/// the buffer on.
///
/// All lanes of the subgroup call it. Lanes load neighbouring groups of 16 bytes, all of them before the first
/// is stored.
#[cube]
pub(super) fn fill(
    bytes: &[u32],
    window: &mut Window,
    first: &Array<usize>,
    length: usize,
    rows: usize,
    #[comptime] p: Product,
) {
    let (each, pitch, lanes) = comptime!((p.each as usize, p.pitch() as usize, p.lanes as usize));
    let turns = comptime!(pitch.div_ceil(lanes));
    let lane = UNIT_POS_PLANE as usize;
    let from = quads(bytes);
    // Single words stay in registers, where an array of groups would not.
    let mut held = Array::<u32>::new(comptime!(4 * each * turns));
    #[unroll]
    for r in 0..each {
        let stretch = Stretch::new(first[r], length);
        #[unroll]
        for turn in 0..turns {
            let at = stretch.sector + lane + comptime!(turn * lanes);
            if r < rows && stretch.holds(at) {
                let group = from[at];
                #[unroll]
                for i in 0..4usize {
                    held[comptime!(4 * (r * turns + turn) + i)] = group.extract(i);
                }
            }
        }
    }
    // The lanes are done with the chunk before.
    sync_plane();
    let subgroup = (UNIT_POS / comptime!(p.lanes)) as usize;
    #[unroll]
    for r in 0..each {
        let stretch = Stretch::new(first[r], length);
        #[unroll]
        for turn in 0..turns {
            let place = lane + comptime!(turn * lanes);
            if r < rows && stretch.holds(stretch.sector + place) {
                let mut group = Vector::<u32, Const<4>>::new(0u32);
                #[unroll]
                for i in 0..4usize {
                    group.insert(i, held[comptime!(4 * (r * turns + turn) + i)]);
                }
                window.groups[(subgroup * each + r) * pitch + place] = group;
            }
        }
    }
    sync_plane();
}

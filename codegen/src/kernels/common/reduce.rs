//! Sums over all threads of a block.
use cubecl::prelude::*;

/// The sum of `x` over the block, the same in every thread. All threads call it; `partial` holds one
/// number per subgroup and is free again after the next barrier.
#[cube]
pub(crate) fn block_sum(x: f32, partial: &mut Shared<[f32]>, #[comptime] subgroups: u32) -> f32 {
    let sum = plane_sum(x);
    if comptime!(subgroups == 1) {
        sum
    } else {
        let subgroup = UNIT_POS / PLANE_DIM;
        if UNIT_POS_PLANE == 0 {
            partial[subgroup as usize] = sum;
        }
        sync_cube();
        let mut total = 0.0f32;
        #[unroll]
        for i in 0..subgroups {
            total += partial[i as usize];
        }
        total
    }
}

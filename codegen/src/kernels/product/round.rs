//! Rounding of staged inputs to the format of a matmul's input and back (spec 6.2, 4.4).
use super::{Product, staging::position};
use crate::kernels::common::{e4m3_code, e4m3_value, e8m0_value, nearest, pow2_ceil};
use cubecl::prelude::*;
use ds4_ir::Scalar;
use half::f16;

/// Lanes that round a group together: every subgroup is a multiple.
const TEAM: u32 = 32;

/// Rounds the tiles of all inputs. All threads of the block call it.
#[cube]
pub(super) fn round_tiles(shared: &mut Shared<[f32]>, #[comptime] p: Product) {
    let group = comptime!(p.group as usize);
    let each = comptime!(group / TEAM as usize);
    let teams = comptime!((p.threads() / TEAM) as usize);
    let per_input = comptime!(p.tile as usize / group);
    let groups = comptime!(p.tokens as usize * per_input);
    let lane = (UNIT_POS % TEAM) as usize;
    let team = (UNIT_POS / TEAM) as usize;
    // Every team takes as many turns, so that all lanes meet in the exchanges.
    for turn in 0..comptime!(groups.div_ceil(teams)) {
        let index = turn * teams + team;
        // A team without a group in the last turn touches none: another may be writing it.
        let busy = index < groups;
        let slot = index / per_input;
        let first = index % per_input * group + lane;
        let mut values = Array::<f32>::new(each);
        #[unroll]
        for i in 0..each {
            values[i] = 0.0f32;
            if busy {
                values[i] = shared[position(slot, first + comptime!(i * TEAM as usize), p)];
            }
        }
        round_group(&mut values, lane, each, p.round);
        if busy {
            #[unroll]
            for i in 0..each {
                shared[position(slot, first + comptime!(i * TEAM as usize), p)] = values[i];
            }
        }
    }
}

/// Rounds a group that a team holds, element `lane + 32·i` in `values[i]` of each lane.
#[cube]
fn round_group(values: &mut Array<f32>, lane: usize, #[comptime] each: usize, #[comptime] to: Scalar) {
    if comptime!(to == Scalar::F16) {
        values[0] = f32::cast_from(f16::cast_from(values[0]));
    } else if comptime!(to == Scalar::Bf16) {
        values[0] = round_bf16(values[0]);
    } else {
        let mut top = 0u32;
        #[unroll]
        for i in 0..each {
            top = max(top, u32::reinterpret(values[i]) & 0x7fff_ffffu32);
        }
        let top = team_max(top, TEAM);
        let finite = top < 0x7f80_0000u32;
        let amax = f32::reinterpret(top);
        let nan = f32::reinterpret(0x7fc0_0000u32);
        if comptime!(to == Scalar::E4m3x128) {
            let scale = e8m0_value(pow2_ceil(max(amax, 1e-4f32) * comptime!((1.0 / 448.0_f64) as f32)));
            #[unroll]
            for i in 0..each {
                let scaled = clamp(values[i] / scale, -448.0f32, 448.0f32);
                values[i] = select(finite, e4m3_value(e4m3_code(scaled)) * scale, nan);
            }
        } else if comptime!(to == Scalar::Q8_0) {
            let code = f16::cast_from(amax / 127.0f32);
            let d = f32::cast_from(code);
            let normal = d > 0.0f32 && d < f32::INFINITY;
            let scaled = select(normal, values[0] / d, 0.0f32);
            let q = nearest(clamp(scaled, -127.0f32, 127.0f32));
            values[0] = select(finite, d * q, nan);
        } else {
            // The first element of the largest magnitude decides the sign of the scale.
            let mut first = 0xffff_ffffu32;
            #[unroll]
            for i in 0..each {
                let index = u32::cast_from(lane) + comptime!(i as u32 * TEAM);
                let bits = u32::reinterpret(values[i]);
                let key = (index << 1u32) | (bits >> 31u32);
                first = select((bits & 0x7fff_ffffu32) == top, min(first, key), first);
            }
            let sign = (team_min(first, TEAM) & 1u32) << 31u32;
            let inverse = -127.0f32 / f32::reinterpret(top | sign);
            let there = (u32::reinterpret(inverse) & 0x7fff_ffffu32) < 0x7f80_0000u32;
            #[unroll]
            for i in 0..each {
                let q = nearest(clamp(inverse * values[i], -128.0f32, 127.0f32));
                let value = select(there, q * (1.0f32 / inverse), 0.0f32);
                values[i] = select(finite, value, nan);
            }
        }
    }
}

/// The nearest bfloat16, ties to even.
#[cube]
pub(crate) fn round_bf16(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    let up = bits + 0x7fffu32 + ((bits >> 16u32) & 1u32);
    let finite = (bits & 0x7fff_ffffu32) <= 0x7f80_0000u32;
    f32::reinterpret(select(finite, up, bits | 0x0040_0000u32) & 0xffff_0000u32)
}

/// The largest over the lanes of a team, a power of two of them.
#[cube]
pub(super) fn team_max(x: u32, #[comptime] lanes: u32) -> u32 {
    let mut top = x;
    #[unroll]
    for bit in 0..comptime!(lanes.ilog2()) {
        top = max(top, plane_shuffle_xor(top, comptime!(1 << bit)));
    }
    top
}

/// The smallest over the lanes of a team.
#[cube]
pub(super) fn team_min(x: u32, #[comptime] lanes: u32) -> u32 {
    let mut least = x;
    #[unroll]
    for bit in 0..comptime!(lanes.ilog2()) {
        least = min(least, plane_shuffle_xor(least, comptime!(1 << bit)));
    }
    least
}

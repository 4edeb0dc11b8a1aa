//! A row in shared memory as codes and scales, bit for bit what [`ds4_ir::formats`] writes.
//!
//! First the largest magnitude of every part of eight elements, then of every group, then each thread
//! writes pairs of bytes.
use crate::kernels::common::{e2m1_code, e4m3_code, e8m0_value, nearest, pow2_ceil};
use cubecl::prelude::*;
use ds4_ir::{E4M3_GROUP, IDX4_GROUP, KV8_GROUP, Scalar};
use half::f16;

/// Elements of a part.
const PART: usize = 8;
const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITY: u32 = 0x7f80_0000;

/// What a format does with a row, and where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Form {
    to: Scalar,
    /// Elements that become codes; those behind are rotary channels in bf16.
    codes: usize,
    /// Elements that share a scale.
    group: usize,
    /// Pairs of bytes of a row.
    halves: usize,
}

fn form(to: Scalar, width: u32) -> Form {
    let width = width as usize;
    let (rope, group) = match to {
        Scalar::Kv8 { rope } => (usize::from(rope), KV8_GROUP),
        Scalar::E4m3x128 => (0, E4M3_GROUP),
        Scalar::Idx4 => (0, IDX4_GROUP),
        Scalar::F16 | Scalar::Bf16 => (0, PART),
        to => (0, to.block()),
    };
    Form { to, codes: width - rope, group, halves: to.row_bytes(width) / 2 }
}

/// Writes the row from pair of bytes `at` on. All threads of the block call it, behind a barrier.
#[cube]
pub(super) fn encode(
    values: &Shared<[f32]>,
    out: &mut [u16],
    at: usize,
    #[comptime] width: u32,
    #[comptime] to: Scalar,
) {
    let f = comptime!(form(to, width));
    let parts = comptime!(f.codes.div_ceil(PART));
    let groups = comptime!(f.codes.div_ceil(f.group));
    let mut part_tops = Shared::<[u32]>::new_slice(parts);
    let mut tops = Shared::<[u32]>::new_slice(groups);
    if comptime!(!matches!(to, Scalar::F16 | Scalar::Bf16)) {
        for j in range_stepped(UNIT_POS as usize, parts, CUBE_DIM as usize) {
            let mut top = 0u32;
            for c in j * PART..min(j * PART + PART, f.codes) {
                top = max(top, u32::reinterpret(values[c]) & MAGNITUDE);
            }
            part_tops[j] = top;
        }
        sync_cube();
        for g in range_stepped(UNIT_POS as usize, groups, CUBE_DIM as usize) {
            let first = g * comptime!(f.group / PART);
            let mut top = 0u32;
            for j in first..min(first + comptime!(f.group / PART), parts) {
                top = max(top, part_tops[j]);
            }
            if comptime!(to == Scalar::Q8K) {
                top |= sign_of_first(values, g, top, f);
            }
            tops[g] = top;
        }
        sync_cube();
    }
    for i in range_stepped(UNIT_POS as usize, comptime!(f.halves), CUBE_DIM as usize) {
        out[at + i] = u16::cast_from(pair_of(values, &tops, i, f));
    }
}

/// The sign bit of the first element of the group that has magnitude `top`.
#[cube]
fn sign_of_first(values: &Shared<[f32]>, group: usize, top: u32, #[comptime] f: Form) -> u32 {
    let mut sign = 0u32;
    let mut open = true;
    let first = group * comptime!(f.group);
    for c in first..min(first + comptime!(f.group), f.codes) {
        let bits = u32::reinterpret(values[c]);
        if open && (bits & MAGNITUDE) == top {
            sign = bits & 0x8000_0000u32;
            open = false;
        }
    }
    sign
}

/// Pair of bytes `i` of the row.
#[cube]
fn pair_of(values: &Shared<[f32]>, tops: &Shared<[u32]>, i: usize, #[comptime] f: Form) -> u32 {
    if comptime!(f.to == Scalar::F16) {
        u32::cast_from(u16::reinterpret(f16::cast_from(values[i])))
    } else if comptime!(f.to == Scalar::Bf16) {
        bf16_code(values[i])
    } else if comptime!(f.to == Scalar::Q8_0) {
        q8_0(values, tops, i, f)
    } else if comptime!(f.to == Scalar::Q8K) {
        q8_k(values, tops, i, f)
    } else if comptime!(f.to == Scalar::Idx4) {
        let codes = comptime!(f.codes / 4);
        if i < codes {
            let mut bits = 0u32;
            #[unroll]
            for j in 0..4usize {
                let code = scaled_code(values[4 * i + j], tops[4 * i / comptime!(f.group)], f);
                bits |= code << comptime!(4 * j as u32);
            }
            bits
        } else {
            scale_pair(tops, 2 * (i - codes), f)
        }
    } else {
        let codes = comptime!(f.codes / 2);
        let rope = comptime!(if let Scalar::Kv8 { rope } = f.to { usize::from(rope) } else { 0 });
        if i < codes {
            let top = tops[2 * i / comptime!(f.group)];
            scaled_code(values[2 * i], top, f) | (scaled_code(values[2 * i + 1], top, f) << 8u32)
        } else if i < comptime!(codes + rope) {
            bf16_code(values[comptime!(f.codes - codes) + i])
        } else {
            scale_pair(tops, 2 * (i - comptime!(codes + rope)), f)
        }
    }
}

/// The E8M0 codes of groups `g` and `g + 1`, 0 behind the last.
#[cube]
fn scale_pair(tops: &Shared<[u32]>, g: usize, #[comptime] f: Form) -> u32 {
    let groups = comptime!(f.codes.div_ceil(f.group));
    let mut bits = 0u32;
    #[unroll]
    for j in 0..2usize {
        if g + j < groups {
            bits |= scale_code(tops[g + j], f) << comptime!(8 * j as u32);
        }
    }
    bits
}

/// The E8M0 code of a group with largest magnitude `top`; 255 if it holds a NaN or an infinity.
#[cube]
fn scale_code(top: u32, #[comptime] f: Form) -> u32 {
    let (least, inverse) = comptime!(if f.to == Scalar::Idx4 {
        (6.0 * f32::MIN_POSITIVE, (1.0 / 6.0_f64) as f32)
    } else {
        (1e-4f32, (1.0 / 448.0_f64) as f32)
    });
    let code = pow2_ceil(max(f32::reinterpret(top), least) * inverse);
    select(top < INFINITY, code, 255u32)
}

/// The code of `x` in a group with largest magnitude `top`.
#[cube]
fn scaled_code(x: f32, top: u32, #[comptime] f: Form) -> u32 {
    let finite = top < INFINITY;
    // A finite stand-in keeps the arithmetic defined where the result is not used.
    let scaled = select(finite, x, 0.0f32) / e8m0_value(select(finite, scale_code(top, f), 127u32));
    let code = if comptime!(f.to == Scalar::Idx4) {
        e2m1_code(clamp(scaled, -6.0f32, 6.0f32))
    } else {
        e4m3_code(clamp(scaled, -448.0f32, 448.0f32))
    };
    select(finite, code, 0u32)
}

#[cube]
fn q8_0(values: &Shared<[f32]>, tops: &Shared<[u32]>, i: usize, #[comptime] f: Form) -> u32 {
    let (block, place) = (i / 17, i % 17);
    let top = tops[block];
    let code = f16::cast_from(f32::reinterpret(top) / 127.0f32);
    let d = f32::cast_from(code);
    let mut bits = select(top < INFINITY, u32::cast_from(u16::reinterpret(code)), 0x7e00u32);
    if place > 0 {
        let normal = top < INFINITY && d > 0.0f32 && d < f32::INFINITY;
        let first = block * 32 + 2 * (place - 1);
        bits = 0u32;
        #[unroll]
        for j in 0..2usize {
            if normal && first + j < comptime!(f.codes) {
                let q = nearest(clamp(values[first + j] / d, -127.0f32, 127.0f32));
                bits |= byte(q) << comptime!(8 * j as u32);
            }
        }
    }
    bits
}

#[cube]
fn q8_k(values: &Shared<[f32]>, tops: &Shared<[u32]>, i: usize, #[comptime] f: Form) -> u32 {
    let (block, place) = (i / 146, i % 146);
    let top = tops[block];
    let inverse = -127.0f32 / f32::reinterpret(top);
    let finite = (top & MAGNITUDE) < INFINITY;
    let there = finite && (u32::reinterpret(inverse) & MAGNITUDE) < INFINITY;
    let mut bits = 0u32;
    if place < 2 {
        let d = select(there, u32::reinterpret(1.0f32 / inverse), 0u32);
        let d = select(finite, d, 0x7fc0_0000u32);
        bits = (d >> (16 * place as u32)) & 0xffffu32;
    } else if there && place < 130 {
        let first = block * 256 + 2 * (place - 2);
        #[unroll]
        for j in 0..2usize {
            bits |= byte(q8_k_code(values, first + j, inverse, f)) << comptime!(8 * j as u32);
        }
    } else if there {
        let first = block * 256 + 16 * (place - 130);
        let mut sum = 0.0f32;
        for j in 0..16usize {
            sum += q8_k_code(values, first + j, inverse, f);
        }
        bits = u32::reinterpret(i32::cast_from(sum)) & 0xffffu32;
    }
    bits
}

#[cube]
fn q8_k_code(values: &Shared<[f32]>, c: usize, inverse: f32, #[comptime] f: Form) -> f32 {
    let mut code = 0.0f32;
    if c < comptime!(f.codes) {
        code = nearest(clamp(inverse * values[c], -128.0f32, 127.0f32));
    }
    code
}

/// The low byte of a whole number.
#[cube]
fn byte(q: f32) -> u32 {
    u32::reinterpret(i32::cast_from(q)) & 0xffu32
}

#[cube]
fn bf16_code(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    let up = (bits + 0x7fffu32 + ((bits >> 16u32) & 1u32)) >> 16u32;
    let upper = bits >> 16u32;
    let nan = select((upper & 0x7fu32) == 0u32, upper | 0x40u32, upper);
    select((bits & MAGNITUDE) > INFINITY, nan, up)
}

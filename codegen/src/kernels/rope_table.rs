//! `rope_table pos dims= base= factor= orig= fast= slow=`: cos and sin of each pair's angle at each
//! position (spec 2.2).
//!
//! One thread per pair and position. The angle is the position times a frequency that the text holds,
//! rounded to single precision; it is reduced in whole numbers and needs no function of the device.
use super::common::Rows;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::ops::frequency;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {super::common::rows, crate::emit, cubecl::prelude::*};

const THREADS: u32 = 64;

pub(crate) const KERNEL: Kernel = Kernel {
    op: "rope_table",
    launches,
    cases: &[
        Case {
            header: "%pos: i32[t]",
            node: "rope_table %pos, dims=16, base=10000.0, factor=1.0, orig=1.0, fast=1.0, slow=1.0 : f32[t, 16]",
            steps: &[0..5, 62..64, 1_000_000..1_000_070],
        },
        Case {
            header: "%pos: i32[t]",
            node: "rope_table %pos, dims=64, base=160000.0, factor=16.0, orig=65536.0, fast=32.0, slow=1.0 : f32[t, 64]",
            steps: &[0..1, 100..103, 262_100..262_144],
        },
    ],
    tolerance: 5e-7,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    /// Bits of the frequency of each pair.
    frequencies: Vec<u32>,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _: &Target) -> Option<Vec<Launch>> {
    let (dims, base) = (site.int(1), site.real(2));
    let yarn = [site.real(3), site.real(4), site.real(5), site.real(6)];
    let pairs = dims / 2;
    let bits = |i| frequency(i, dims as usize, base, yarn).to_bits();
    let frequencies = (0..pairs as usize).map(bits).collect();
    let rows = Rows::of(&site.value(0).dims);
    Some(vec![Launch {
        block: [THREADS, 1, 1],
        grid: [(rows.max(maxima) * pairs).div_ceil(THREADS), 1, 1],
        bindings: vec![Binding::Step, Binding::Value(0), Binding::Out],
        text: Arc::new(Spec { rows, frequencies }),
    }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "rope_table"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let frequencies = self.frequencies.clone();
        CubeKernel::define(&rope_table::RopeTable::new(set, dev, lang, b0, b1, b2, self.rows, frequencies))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn rope_table(
    step: &[i32],
    pos: &[i32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] frequencies: Vec<u32>,
) {
    let pairs = comptime!(frequencies.len());
    let at = ABSOLUTE_POS_X as usize;
    let (row, pair) = (at / pairs, at % pairs);
    if row < rows(step, n_rows) {
        let mut frequency = 0u32;
        #[unroll]
        for i in 0..pairs {
            frequency = select(pair == i, comptime!(frequencies[i]), frequency);
        }
        let angle = f32::cast_from(pos[row]) * f32::reinterpret(frequency);
        let (quadrant, rest) = reduced(angle);
        let square = rest * rest;
        let sin = sin_of(rest, square);
        let cos = cos_of(square);
        let swap = (quadrant & 1u32) == 1u32;
        let minus_sin = (quadrant & 2u32) << 30u32;
        let minus_cos = ((quadrant + 1u32) & 2u32) << 30u32;
        out[2 * at] = f32::reinterpret(u32::reinterpret(select(swap, sin, cos)) ^ minus_cos);
        out[2 * at + 1] = f32::reinterpret(u32::reinterpret(select(swap, cos, sin)) ^ minus_sin);
    }
}

/// The quarter turn nearest to an angle of 0 to 2^24, and what is left of the angle, at most π/4.
///
/// 1/2π as a binary fraction of 64 digits times the angle's digits is exact to 2^-32 of a turn.
#[cfg(feature = "gpu")]
#[cube]
fn reduced(angle: f32) -> (u32, f32) {
    let bits = u32::reinterpret(angle);
    let digits = u64::cast_from((bits & 0x7f_ffffu32) | 0x80_0000u32);
    let high = digits * 0x28be_60dbu64 + ((digits * 0x9391_054au64) >> 32u64);
    // Small angles are left as they are: their digits lie below the fraction's.
    let small = angle < 0.785_398_2f32;
    let shift = select(small, 0u32, 150u32 - (bits >> 23u32));
    let turns = u32::cast_from(high >> u64::cast_from(shift));
    let quadrant = (turns + 0x2000_0000u32) >> 30u32;
    let left = i32::reinterpret(turns - (quadrant << 30u32));
    let rest = f32::cast_from(left) * comptime!((std::f64::consts::TAU / 4_294_967_296.0) as f32);
    (select(small, 0u32, quadrant & 3u32), select(small, angle, rest))
}

/// sin(x) for |x| up to π/4.
#[cfg(feature = "gpu")]
#[cube]
fn sin_of(x: f32, square: f32) -> f32 {
    let tail = fma(fma(-1.951_529_6e-4f32, square, 8.332_161e-3f32), square, -0.166_666_55f32);
    fma(x * square, tail, x)
}

/// cos(x) of x², |x| up to π/4.
#[cfg(feature = "gpu")]
#[cube]
fn cos_of(square: f32) -> f32 {
    let tail = fma(fma(2.443_315_7e-5f32, square, -1.388_731_6e-3f32), square, 4.166_664_6e-2f32);
    fma(square * square, tail, 1.0f32 - 0.5f32 * square)
}

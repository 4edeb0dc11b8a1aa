//! Rotary positions.
use crate::case::{Case, case, i, r};
use std::f64::consts::TAU;

/// cos and sin of each angle.
fn turns(angles: &[f64]) -> Vec<f64> {
    angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect()
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // Base 4, two pairs: frequencies 1 and 4^-1/2.
        case(
            "rope_table",
            "%pos: i32[t]",
            "%y = rope_table %pos, dims=4, base=4.0, factor=1.0, orig=1.0, fast=1.0, slow=1.0 : f32[t, 4]",
        )
        .step(0..3, [], r(turns(&[0., 0., 1., 0.5, 2., 1.]))),
        // YaRN: the correction is 2·log2(orig / (turns·2π)) pairs, 0 for 2 turns and 3.5 → 4 for 0.6, so
        // pair i is i/4 of the way to a frequency halved.
        case(
            "rope_table",
            "%pos: i32[t]",
            &format!(
                "%y = rope_table %pos, dims=8, base=4.0, factor=2.0, orig={:?}, fast=2.0, slow=0.6 : f32[t, 8]",
                2. * TAU
            ),
        )
        .step(8..9, [], r(turns(&[8., 8. * 0.5f64.sqrt() * 0.875, 3., 8. * 0.125f64.sqrt() * 0.625])))
        .within(1e-6),
        // The tokens at 3 and 7 are the last of their blocks.
        case("closed_pos", "%pos: i32[t]", "%y = closed_pos %pos, ratio=4 : i32[m4]").step(2..9, [], i([0, 4])),
        case("closed_pos", "%pos: i32[t]", "%y = closed_pos %pos, ratio=4 : i32[m4]")
            .step(4..7, [], i([]))
            .step(7..8, [], i([4])),
        // A quarter turn of the last two channels; the first two stay.
        case("rope", "%x: f32[t, 4], %a: f32[t, 2]", "%y = rope %x, %a : f32[t, 4]").step(
            0..1,
            [r([1., 2., 3., 4.]), r([0., 1.])],
            r([1., 2., -4., 3.]),
        ),
        // Two heads of a token turn alike, tokens each by their own angle; pairs are neighbours.
        case("rope", "%x: f32[t, 2, 2], %a: f32[t, 2]", "%y = rope %x, %a : f32[t, 2, 2]").step(
            0..2,
            [r([1., 2., 3., 4., 5., 0., 0., 10.]), r([0., 1., 0.6, 0.8])],
            r([-2., 1., -4., 3., 3., 4., -8., 6.]),
        ),
        case("unrope", "%x: f32[t, 4], %a: f32[t, 2]", "%y = unrope %x, %a : f32[t, 4]").step(
            0..1,
            [r([1., 2., -4., 3.]), r([0., 1.])],
            r([1., 2., 3., 4.]),
        ),
        // Two pairs: the table holds cos, sin, cos, sin.
        case("unrope", "%x: f32[t, 4], %a: f32[t, 4]", "%y = unrope %x, %a : f32[t, 4]").step(
            0..1,
            [r([1., 2., 3., 4.]), r([0.6, 0.8, 1., 0.])],
            r([2.2, 0.4, 3., 4.]),
        ),
    ]
}

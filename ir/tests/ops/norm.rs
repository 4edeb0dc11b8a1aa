//! Norms. The RMS of (1, 7) is 5.
use crate::case::{Case, case, r};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("rms_norm", "%x: f32[t, 2], @w: f32[2]", "%y = rms_norm %x, @w, eps=0 : f32[t, 2]")
            .weight("w", [10., 5.])
            .step(0..2, [r([1., 7., -7., 1.])], r([2., 7., -14., 1.])),
        // mean(x²) + eps = 1 + 3.
        case("rms_norm", "%x: f32[t, 2], @w: bf16[2]", "%y = rms_norm %x, @w, eps=3 : f32[t, 2]")
            .weight("w", [1., -4.])
            .step(0..2, [r([1., 1., 0., 0.])], r([0.5, -2., 0., 0.])),
        case("head_norm", "%x: f32[t, 2, 2]", "%y = head_norm %x, eps=0 : f32[t, 2, 2]").step(
            0..1,
            [r([1., 7., 3., -3.])],
            r([0.2, 1.4, 1., -1.]),
        ),
        case("head_norm", "%x: f32[t, 1]", "%y = head_norm %x, eps=3.0 : f32[t, 1]").step(
            0..2,
            [r([-1., 0.])],
            r([-0.5, 0.]),
        ),
        // (1 + 49 + 25 + 25) / 4 = 25 over both streams.
        case("flat_norm", "%x: f32[t, 2, 2]", "%y = flat_norm %x, eps=0 : f32[t, 4]").step(
            0..1,
            [r([1., 7., 5., -5.])],
            r([0.2, 1.4, 1., -1.]),
        ),
        case("flat_norm", "%x: f32[t, 2, 2]", "%y = flat_norm %x, eps=12 : f32[t, 4]").step(
            0..2,
            [r([2., 2., 2., 2., 0., 0., 0., 0.])],
            r([0.5, 0.5, 0.5, 0.5, 0., 0., 0., 0.]),
        ),
    ]
}

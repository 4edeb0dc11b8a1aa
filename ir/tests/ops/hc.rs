//! Hyper-connections.
use crate::case::{Case, case, r};

fn ln(x: f64) -> f64 {
    x.ln()
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("streams", "%x: f32[t, 2]", "%y = streams %x, n=3 : f32[t, 3, 2]").step(
            0..2,
            [r([1., 2., 3., 4.])],
            r([1., 2., 1., 2., 1., 2., 3., 4., 3., 4., 3., 4.]),
        ),
        case("streams", "%x: f32[t, 2]", "%y = streams %x, n=1 : f32[t, 1, 2]").step(
            0..1,
            [r([1., 2.])],
            r([1., 2.]),
        ),
        case("stream_add", "%h: f32[t, 2, 2], %y: f32[t, 2]", "%z = stream_add %h, %y : f32[t, 2, 2]").step(
            0..2,
            [r([1., 2., 3., 4., 5., 6., 7., 8.]), r([10., 20., 100., 200.])],
            r([11., 22., 13., 24., 105., 206., 107., 208.]),
        ),
        case("stream_add", "%h: f32[t, 1, 2], %y: f32[t, 2]", "%z = stream_add %h, %y : f32[t, 1, 2]").step(
            0..1,
            [r([1., 2.]), r([-1., 0.5])],
            r([0., 2.5]),
        ),
        // One stream: sigmoid(ln 3) = 3/4; the 1x1 matrix is 1 + eps, then divided by itself + eps.
        gates(1, 1, 0.5, [1., 1., 1.], vec![ln(3.), 0., 0.]).step(
            0..1,
            [r([0., ln(3.), 7.])],
            r([1.25, 1.5, 0.75]),
        ),
        gates(1, 2, 0.5, [1., 1., 1.], vec![0., 0., 0.]).step(
            0..1,
            [r([0., 0., -3.])],
            // 3/4 over 3/4 + 1/2 is 3/5; 3/5 over 3/5 + 1/2 is 6/11.
            r([1., 1., 6. / 11.]),
        ),
        // Two streams. Rows [1/4 3/4] and [1/2 1/2] after the softmax, then columns of sum one: were the
        // matrix the other way round, the first column would be [1/4 3/4] over their sum.
        gates(2, 1, 0., [2., -1., 1.], vec![0., 0., 0., ln(3.), 0., 0., 0., 0.]).step(
            0..1,
            [r([ln(3.) / 2., 0., ln(3.), ln(3.), 0., ln(3.), 0., 0.])],
            r([0.75, 0.5, 0.5, 1.0, 1. / 3., 3. / 5., 2. / 3., 2. / 5.]),
        ),
        gates(2, 2, 0., [1., 1., 1.], vec![0.; 8]).step(
            0..1,
            [r([0., 0., 0., 0., 0., ln(3.), 0., 0.])],
            // Rows 5/14 9/14 and 5/8 3/8, whose columns sum to 55/56 and 57/56.
            r([0.5, 0.5, 1., 1., 4. / 11., 12. / 19., 7. / 11., 7. / 19.]),
        ),
        case(
            "hc_head_gates",
            "%m: f32[w, 2], @s: f32[1], @b: f32[2]",
            "%g = hc_head_gates %m, @s, @b, eps=0.25 : f32[w, 2]",
        )
        .weight("s", [2.])
        .weight("b", [-ln(3.), 0.])
        .step(0..1, [r([ln(3.), 0.])], r([1., 0.75])),
        case(
            "hc_head_gates",
            "%m: f32[t, 2], @s: f32[1], @b: f32[2]",
            "%g = hc_head_gates %m, @s, @b, eps=0 : f32[t, 2]",
        )
        .weight("s", [-1.])
        .weight("b", [0., ln(3.)])
        .step(0..2, [r([0., 0., ln(3.), ln(3.)])], r([0.5, 0.75, 0.25, 0.5])),
        case("hc_pre", "%h: f32[t, 2, 2], %g: f32[t, 2]", "%x = hc_pre %h, %g : f32[t, 2]").step(
            0..1,
            [r([1., 2., 3., 4.]), r([0.5, 2.])],
            r([6.5, 9.]),
        ),
        // The first two of eight gates count.
        case("hc_pre", "%h: f32[t, 2, 1], %g: f32[t, 8]", "%x = hc_pre %h, %g : f32[t, 1]").step(
            0..2,
            [r([1., 2., 3., 4.]), r([1., 10., 9., 9., 9., 9., 9., 9., -1., 1., 9., 9., 9., 9., 9., 9.])],
            r([21., 1.]),
        ),
        // The first index of the matrix is the stream that is read: 1·h0 + 3·h1 for stream 0.
        case(
            "hc_post",
            "%h: f32[t, 2, 2], %y: f32[t, 2], %g: f32[t, 8]",
            "%z = hc_post %h, %y, %g : f32[t, 2, 2]",
        )
        .step(
            0..1,
            [r([1., 2., 3., 4.]), r([10., 20.]), r([9., 9., 0.5, 2., 1., 2., 3., 4.])],
            r([15., 24., 34., 60.]),
        ),
        case(
            "hc_post",
            "%h: f32[t, 1, 1], %y: f32[t, 1], %g: f32[t, 3]",
            "%z = hc_post %h, %y, %g : f32[t, 1, 1]",
        )
        .step(0..2, [r([1., 2.]), r([5., 6.]), r([9., 2., 3., 9., 0., 1.])], r([13., 2.])),
    ]
}

/// `hc_gates` of `n` streams.
fn gates(n: usize, iters: usize, eps: f64, scale: [f64; 3], base: Vec<f64>) -> Case {
    let m = n * n + 2 * n;
    let header = format!("%m: f32[t, {m}], @s: f32[3], @b: f32[{m}]");
    let line = format!("%g = hc_gates %m, @s, @b, iters={iters}, eps={eps:?} : f32[t, {m}]");
    case("hc_gates", &header, &line).weight("s", scale).weight("b", base)
}

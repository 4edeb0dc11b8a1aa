//! Mixture of experts.
use crate::case::{Case, case, i, r, routes};

/// silu(x)
fn silu(x: f64) -> f64 {
    x / (1. + (-x).exp())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = routers();
    cases.extend(experts());
    cases
}

fn routers() -> Vec<Case> {
    let score = |n: usize| {
        let (header, line) = (format!("%x: f32[t, {n}]"), format!("%y = router_scores %x : f32[t, {n}]"));
        case("router_scores", &header, &line)
    };
    let select = |k: usize, scale: f64| {
        let line = format!("%y = select_experts %s, %b, k={k}, scale={scale:?} : route[t, {k}]");
        case("select_experts", "%s: f32[t, 3], %b: f32[t, 3]", &line)
    };
    let hash = |ty: &str| {
        let header = format!("%s: f32[t, 3], @table: {ty}[2, 2], %ids: i32[t]");
        case("hash_experts", &header, "%y = hash_experts %s, @table, %ids, scale=2.5 : route[t, 2]")
            .weight("table", [2., 0., 1., 2.])
    };
    vec![
        // softplus(ln(e^n - 1)) = n.
        score(2).step(0..1, [r([(4f64.exp() - 1.).ln(), (1f64.exp() - 1.).ln()])], r([2., 1.])),
        score(3).step(0..1, [r([400., -800., 0.])], r([20., 0., 2f64.ln().sqrt()])),
        // Chosen by the biased scores 5 and 4, weighted by the scores 1 and 2 alone.
        select(2, 1.5).step(0..1, [r([1., 3., 2.]), r([5., 0., 4.])], routes([(0, 0.5), (2, 1.)])),
        // A tie goes to the lower index, for each token on its own; the largest comes first.
        select(2, 1.).step(
            0..2,
            [r([1., 1., 6., 3., 5., 1.]), r([2., 2., 2., 0., 7., 9.])],
            routes([(0, 0.5), (1, 0.5), (2, 1. / 6.), (1, 5. / 6.)]),
        ),
        // In the order of the table: experts 1 and 2 of scores 3 and 2, then 2 and 0.
        hash("i32").step(0..1, [r([1., 3., 2.]), i([1])], routes([(1, 1.5), (2, 1.)])),
        hash("i64").step(
            0..2,
            [r([1., 3., 4., 1., 1., 1.]), i([0, 1])],
            routes([(2, 2.), (0, 0.5), (1, 1.25), (2, 1.25)]),
        ),
    ]
}

fn experts() -> Vec<Case> {
    let ln3 = 3f64.ln();
    let swiglu = |clamp: f64| {
        let line = format!("%y = swiglu %g, %u, clamp={clamp:?} : f32[t, 3]");
        case("swiglu", "%g: f32[t, 3], %u: f32[t, 3]", &line)
    };
    vec![
        // Every route sees the token's row: expert 1 is (1, 1), expert 0 is (10, 100).
        case(
            "expert_matmul",
            "%x: f32[t, 2], @w: f32[2, 1, 2], %r: route[t, 2]",
            "%y = expert_matmul %x, @w, %r : f32[t, 2, 1]",
        )
        .weight("w", [10., 100., 1., 1.])
        .step(
            0..2,
            [r([1., 2., 3., 4.]), routes([(1, 0.5), (0, 0.5), (0, 1.), (0, 1.)])],
            r([3., 210., 430., 430.]),
        ),
        // Every route has a row of its own; expert 1 is never chosen.
        case(
            "expert_matmul",
            "%x: f32[t, 2, 1], @w: bf16[3, 2, 1], %r: route[t, 2]",
            "%y = expert_matmul %x, @w, %r : f32[t, 2, 2]",
        )
        .weight("w", [1., 2., 3., 4., 5., 6.])
        .step(0..1, [r([1., 10.]), routes([(2, 0.5), (0, 0.5)])], r([5., 6., 10., 20.])),
        // silu(0) = 0 and silu(ln 3) = 3/4 · ln 3; a clamp of 0 clips nothing.
        swiglu(0.).step(0..1, [r([0., ln3, -20.]), r([5., 4., -20.])], r([0., 3. * ln3, -20. * silu(-20.)])),
        // The gate is cut from above only, the other factor on both sides.
        swiglu(1.).step(
            0..1,
            [r([5., -5., ln3]), r([0.5, -3., 4.])],
            r([silu(1.) / 2., -silu(-5.), silu(1.)]),
        ),
        case("route_scale", "%x: f32[t, 2, 2], %r: route[t, 2]", "%y = route_scale %x, %r : f32[t, 2, 2]")
            .step(0..1, [r([1., 2., 3., 4.]), routes([(7, 0.5), (0, 2.)])], r([0.5, 1., 6., 8.])),
        case("route_scale", "%x: f32[t, 1, 2], %r: route[t, 1]", "%y = route_scale %x, %r : f32[t, 1, 2]")
            .step(0..2, [r([1., 2., 3., 4.]), routes([(1, 0.), (1, -1.)])], r([0., 0., -3., -4.])),
        case("expert_sum", "%x: f32[t, 3, 2]", "%y = expert_sum %x : f32[t, 2]").step(
            0..1,
            [r([1., 10., 2., 20., 3., 30.])],
            r([6., 60.]),
        ),
        case("expert_sum", "%x: f32[t, 1, 2]", "%y = expert_sum %x : f32[t, 2]").step(
            0..2,
            [r([1., 10., 2., 20.])],
            r([1., 10., 2., 20.]),
        ),
    ]
}

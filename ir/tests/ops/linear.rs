//! Matrix products and the rounding of their inputs.
use crate::case::{Case, case, r};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = products();
    cases.extend(roundings());
    cases
}

fn products() -> Vec<Case> {
    vec![
        case("matmul", "%x: f32[t, 2], @w: f32[3, 2]", "%y = matmul %x, @w : f32[t, 3]")
            .weight("w", [3., 4., 5., 6., 7., 8.])
            .step(0..2, [r([1., 2., 0., -1.])], r([11., 17., 23., -4., -6., -8.])),
        // Nine columns, one more than the eight partial sums; 1 + 2^-8 is 1 in bf16.
        case(
            "matmul",
            "%x: f32[t, 9], @w: bf16[1, 9]",
            "%b = round_act %x, fmt=bf16 : bf16[t, 9]\n%y = matmul %b, @w : f32[t, 1]",
        )
        .weight("w", [1., 1., 1., 1., 1., 1., 1., 1., 10.])
        .step(0..1, [r([1.00390625, 1., 1., 1., 1., 1., 1., 1., 2.])], r([28.])),
        // Two groups: rows 0 and 1 see (1, 2), rows 2 and 3 see (3, 4).
        case(
            "grouped_matmul",
            "%x: f32[t, 4], @w: f32[4, 2]",
            "%y = grouped_matmul %x, @w, groups=2 : f32[t, 4]",
        )
        .weight("w", [1., 0., 0., 1., 1., 1., 1., -1.])
        .step(0..1, [r([1., 2., 3., 4.])], r([1., 2., 7., -1.])),
        // Three heads in one group, and two tokens.
        case(
            "grouped_matmul",
            "%x: f32[t, 3, 1], @w: f32[2, 3]",
            "%y = grouped_matmul %x, @w, groups=1 : f32[t, 2]",
        )
        .weight("w", [1., 10., 100., 1., 1., 1.])
        .step(0..2, [r([1., 2., 3., 4., 5., 6.])], r([321., 6., 654., 15.])),
        case("split", "%x: f32[t, 4]", "%y = split %x, parts=2 : f32[t, 2, 2]").step(
            0..1,
            [r([1., 2., 3., 4.])],
            r([1., 2., 3., 4.]),
        ),
        // The second axis of the parts is what head_norm divides by.
        case(
            "split",
            "%x: f32[t, 4]",
            "%h = split %x, parts=4 : f32[t, 4, 1]\n%y = head_norm %h, eps=0 : f32[t, 4, 1]",
        )
        .step(0..1, [r([5., -2., 3., -4.])], r([1., -1., 1., -1.])),
        case("add", "%x: f32[t, 2], %y: f32[t, 2]", "%z = add %x, %y : f32[t, 2]").step(
            0..2,
            [r([1., 2., 3., 4.]), r([10., 20., 30., -4.])],
            r([11., 22., 33., 0.]),
        ),
        case("add", "%x: f32[t, 2], @y: bf16[2]", "%z = add %x, @y : f32[t, 2]")
            .weight("y", [0.5, -2.])
            .step(0..2, [r([1., 2., 3., 4.])], r([1.5, 0., 3.5, 2.])),
    ]
}

fn roundings() -> Vec<Case> {
    let round = |fmt: &str, width: usize| {
        let (header, line) =
            (format!("%x: f32[t, {width}]"), format!("%y = round_act %x, fmt={fmt} : {fmt}[t, {width}]"));
        case("round_act", &header, &line)
    };
    vec![
        // The scale of a group up to 448 is 1. Between 16 and 32 the codes are 2 apart and 17 and 19 lie
        // in the middle; between 1/4 and 1/2 they are 1/32 apart, from 256 on 32.
        round("e4m3x128", 5).step(0..1, [r([300., 17., 19., -0.3, 0.])], r([288., 16., 20., -0.3125, 0.])),
        // A group of its own from element 128 on: there the scale is 2.
        round("e4m3x128", 130).step(
            0..1,
            [r([vec![1.; 128], vec![600., 33.]].concat())],
            r([vec![1.; 128], vec![576., 32.]].concat()),
        ),
        // Ties to even: 1 + 2^-8 goes down, 1 + 3·2^-8 up.
        round("bf16", 2).step(0..1, [r([1.00390625, 1.01171875])], r([1., 1.015625])),
        // Scale 127 / 127; the block is short.
        round("q8_0", 3).step(0..1, [r([127., 1.4, -0.6])], r([127., 1., -1.])),
        round("f32", 2).step(0..1, [r([0.1f32.into(), -3.])], r([0.1f32.into(), -3.])),
    ]
}

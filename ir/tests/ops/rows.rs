//! Rows and states.
use crate::case::{Case, case, i, r};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = rows();
    cases.extend(states());
    cases
}

fn rows() -> Vec<Case> {
    vec![
        case("embed_rows", "@e: f32[3, 2], %ids: i32[t]", "%y = embed_rows @e, %ids : f32[t, 2]")
            .weight("e", [1., 2., 3., 4., 5., 6.])
            .step(0..3, [i([2, 0, 2])], r([5., 6., 1., 2., 5., 6.])),
        case("embed_rows", "@e: bf16[2, 3], %ids: i32[t]", "%y = embed_rows @e, %ids : f32[t, 3]")
            .weight("e", [1., 2., 3., -4., 0.5, 6.])
            .step(5..6, [i([1])], r([-4., 0.5, 6.])),
        case("take_rows", "%x: f32[t, 2], %want: i32[w]", "%y = take_rows %x, %want : f32[w, 2]").step(
            0..3,
            [r([1., 2., 3., 4., 5., 6.]), i([2, 0])],
            r([5., 6., 1., 2.]),
        ),
        case("take_rows", "%x: f32[t, 2, 1], %want: i32[w]", "%y = take_rows %x, %want : f32[w, 2, 1]")
            .step(0..2, [r([1., 2., 3., 4.]), i([1])], r([3., 4.]))
            .step(2..4, [r([1., 2., 3., 4.]), i([])], r([])),
        // Three channels as e4m3 with scale 1, two as bf16.
        case("to_row", "%x: f32[t, 5]", "%y = to_row %x, fmt=kv8, dims=2 : kv8r2[t, 5]").step(
            0..1,
            [r([300., 17., 19., 1.00390625, -3.])],
            r([288., 16., 20., 1., -3.]),
        ),
        case("to_row", "%x: f32[t, 3]", "%y = to_row %x, fmt=f32, dims=2 : f32[t, 3]").step(
            0..1,
            [r([300., 17., 0.1f32.into()])],
            r([300., 17., 0.1f32.into()]),
        ),
        // (6 2 0 0) turns into (4 2 4 2), which e2m1 has; (7 0 0 0) into four times 3.5, a tie of 3 and 4
        // that goes to the even code; (20 0 0 0) into 10, whose scale is 2 and whose 5 is a tie of 4 and 6.
        case("to_index", "%x: f32[t, 4]", "%y = to_index %x, fmt=idx4 : idx4[t, 4]").step(
            0..3,
            [r([6., 2., 0., 0., 7., 0., 0., 0., 20., 0., 0., 0.])],
            r([4., 2., 4., 2., 4., 4., 4., 4., 8., 8., 8., 8.]),
        ),
        // Unrounded rows are not transformed and may have any width.
        case("to_index", "%x: f32[t, 3]", "%y = to_index %x, fmt=f32 : f32[t, 3]").step(
            0..1,
            [r([6., 2., 0.3f32.into()])],
            r([6., 2., 0.3f32.into()]),
        ),
    ]
}

fn states() -> Vec<Case> {
    let ring = || {
        let header = "%raw0: state ring/2 f32[1], %x: f32[t, 1], %pos: i32[t]";
        case("push", header, "%raw1 = push %raw0, %x, %pos : state ring/2 f32[1]")
    };
    let append = |more: &str| {
        let header = format!("%e0: state entries/2 f32[1], %c: f32[m2, 1], {more}%pos: i32[t]");
        (header, "%e1 = append %e0, %c, %pos : state entries/2 f32[1]")
    };
    let gathered = || {
        let (header, line) = append("%idx: i32[t, 3], ");
        case("gather_rows", &header, &format!("{line}\n%y = gather_rows %e1, %idx : f32[t, 3, 1]"))
    };
    let appended = || {
        let (header, line) = append("");
        case("append", &header, line)
    };
    vec![
        // A ring of 2 has 10 rows, 8 of them spare: the row of position 10 lies where that of 0 lay.
        ring().go(0..2, [r([1., 2.])]).go(9..12, [r([3., 4., 5.])]).row("raw0", 9, [3.]).row("raw0", 0, [4.]),
        ring().go(0..2, [r([1., 2.])]).go(2..3, [r([3.])]).row("raw0", 0, [1.]).row("raw0", 2, [3.]),
        // Positions 1 and 3 close entries 0 and 1.
        appended().go(1..4, [r([5., 6.])]).row("e0", 0, [5.]).row("e0", 1, [6.]),
        // A step that closes nothing leaves the entries as they are.
        appended()
            .go(0..2, [r([5.])])
            .go(2..3, [r([])])
            .go(3..4, [r([7.])])
            .row("e0", 0, [5.])
            .row("e0", 1, [7.])
            .row("e0", 2, [0.]),
        gathered().step(3..4, [r([6.]), i([1, -1, 0])], r([6., 0., 0.])),
        gathered().go(0..2, [r([5.]), i([-1; 6])]).step(
            2..4,
            [r([6.]), i([0, 1, -1, 1, 1, 0])],
            r([5., 6., 0., 6., 6., 5.]),
        ),
    ]
}

//! The compressor and the indexer.
use crate::case::{Case, case, i, r};

const INF: f64 = f64::INFINITY;

/// `compress_pool` and the push that follows, `width` channels an entry.
fn pool(op: &'static str, ratio: usize, lanes: usize) -> Case {
    let (half, row) = (lanes, 2 * lanes);
    let header = format!(
        "%tail0: state tail/{ratio} f32[{row}], %k: f32[t, {half}], %g: f32[t, {half}], @ape: f32[{ratio}, {half}], %pos: i32[t]"
    );
    let lines = format!(
        "%c = compress_pool %tail0, %k, %g, @ape, %pos : f32[m{ratio}, 1]\n\
         %tail1 = compress_push %tail0, %k, %g, @ape, %pos : state tail/{ratio} f32[{row}]"
    );
    case(op, &header, &lines)
}

pub(crate) fn cases() -> Vec<Case> {
    let ln3 = 3f64.ln();
    let mut cases = vec![
        // Weights 1 and 3 of 4; then ape lifts the first token of each block threefold.
        pool("compress_pool", 2, 1)
            .weight("ape", [0., 0.])
            .step(0..2, [r([1., 5.]), r([0., ln3])], r([4.]))
            .step(2..5, [r([8., 4., 100.]), r([7., 7., 7.])], r([6.])),
        pool("compress_pool", 2, 1).weight("ape", [ln3, 0.]).step(
            0..4,
            [r([1., 5., 2., 6.]), r([0., 0., 5., 5.])],
            r([2., 3.]),
        ),
        // Overlapping blocks: block 0 pools lane B of its own tokens alone, block 1 lane A of block 0 and
        // lane B of its own: (10 + 20 + 30 + 40 + 0 + 4 + 8 + 8) / 8. Three steps, so the tail is read.
        pool("compress_pool", 4, 2)
            .weight("ape", [0.; 8])
            .step(0..3, [r([10., 1., 20., 2., 30., 3.]), r([0.; 6])], r([]))
            .step(3..5, [r([40., 6., 99., 0.]), r([0.; 4])], r([3.]))
            .step(5..8, [r([99., 4., 99., 8., 99., 8.]), r([0.; 6])], r([15.])),
        // The lanes have gates of their own: lane A of the token at 0 counts three times as much as each of
        // the other seven of weight one, (3·10 + 7·0) / 10, and lane B of block 0 is untouched by it.
        pool("compress_pool", 4, 2).weight("ape", [ln3, 0., 0., 0., 0., 0., 0., 0.]).step(
            0..8,
            [r([10., 4., 0., 4., 0., 4., 0., 4., 9., 0., 9., 0., 9., 0., 9., 0.]), r([0.; 16])],
            r([4., 3.]),
        ),
        // Rows are [k | gate + ape], ape by the place in the block.
        pool("compress_push", 2, 1)
            .weight("ape", [10., 20.])
            .go(0..3, [r([1., 2., 3.]), r([4., 5., 6.])])
            .row("tail0", 0, [1., 14.])
            .row("tail0", 1, [2., 25.])
            .row("tail0", 2, [3., 16.]),
        // A tail of ratio 4 has 16 rows: position 17 takes the place of 1.
        pool("compress_push", 4, 2)
            .weight("ape", [0., 0., 10., 20., 0., 0., 0., 0.])
            .go(0..2, [r([1., 2., 3., 4.]), r([5., 6., 7., 8.])])
            .go(17..18, [r([0.5, 1.5]), r([1., 2.])])
            .row("tail0", 0, [1., 2., 5., 6.])
            .row("tail0", 1, [0.5, 1.5, 11., 22.]),
    ];
    cases.extend(indexer());
    cases
}

fn indexer() -> Vec<Case> {
    let scores = || {
        let header =
            "%q: f32[t, 2, 2], %w: f32[t, 2], %c: f32[m2, 2], %pos: i32[t], %e0: state entries/2 f32[2]";
        let lines = "%e1 = append %e0, %c, %pos : state entries/2 f32[2]\n\
                     %y = index_scores %q, %w, %e1, %pos : f32[t, n2]";
        case("index_scores", header, lines)
    };
    let top = |k: usize, n: usize| {
        let (header, line) = (format!("%s: f32[t, {n}]"), format!("%y = topk %s, k={k} : i32[t, {k}]"));
        case("topk", &header, &line)
    };
    // Heads (1, 0) of weight 1 and (0, -1) of weight 1/2; entry (2, 4) gives relu(2) + relu(-4)/2 = 2,
    // entry (-3, -5) relu(-3) + relu(5)/2 = 2.5; both over sqrt(2 channels · 2 heads).
    let (q, w) = ([1., 0., 0., -1.], [1., 0.5]);
    vec![
        scores().step(
            0..4,
            [r(q.repeat(4)), r(w.repeat(4)), r([2., 4., -3., -5.])],
            r([-INF, -INF, 1., -INF, 1., -INF, 1., 1.25]),
        ),
        // A weight below zero makes a score below zero; the entry of an earlier step is still there.
        scores().go(0..2, [r(q.repeat(2)), r(w.repeat(2)), r([2., 4.])]).step(
            2..4,
            [r(q.repeat(2)), r([-1., 0.5, 1., -3.]), r([-3., -5.])],
            r([-1., -INF, 1., -7.5]),
        ),
        // Ties to the lower index, answers in ascending order.
        top(2, 4).step(0..2, [r([3., 1., 3., 2., 1., 2., 2., 2.])], i([0, 2, 1, 2])),
        // -0 ties with 0; -∞ never counts, and what lacks is -1.
        top(1, 2).step(0..2, [r([-0., 0., 0., -0.])], i([0, 0])),
        top(3, 3).step(0..2, [r([-INF, 1., -INF, -INF, -INF, -INF])], i([1, -1, -1, -1, -1, -1])),
    ]
}

//! Attention. A query of 0 gives every key the weight 1, a sink of 0 counts as one more.
use crate::case::{Case, X, case, i, r};

/// A window of 2, one channel per head.
fn window(op: &'static str, heads: usize, inputs: &str, states: &str, lines: &str) -> Case {
    let header = format!(
        "%q: f32[t, {heads}, 1], %row: f32[t, 1], {inputs}%pos: i32[t], %raw0: state ring/2 f32[1], {states}@sinks: f32[{heads}]"
    );
    case(op, &header, &format!("{lines}\n%raw1 = push %raw0, %row, %pos : state ring/2 f32[1]"))
}

fn plain(heads: usize) -> Case {
    let line = format!("%y = attend_window %q, %raw0, %row, @sinks, %pos : f32[t, {heads}, 1]");
    window("attend_window", heads, "", "", &line)
}

fn selected() -> Case {
    let line = "%y = attend_selected %q, %raw0, %row, %sel, %idx, @sinks, %pos : f32[t, 1, 1]";
    window("attend_selected", 1, "%sel: f32[t, 2, 1], %idx: i32[t, 2], ", "", line)
}

fn entries() -> Case {
    let lines = "%e1 = append %e0, %c, %pos : state entries/2 f32[1]\n\
                 %y = attend_entries %q, %raw0, %row, %e1, @sinks, %pos : f32[t, 1, 1]";
    window("attend_entries", 1, "%c: f32[m2, 1], ", "%e0: state entries/2 f32[1], ", lines)
}

fn zeros(n: usize) -> X {
    r(vec![0.; n])
}

pub(crate) fn cases() -> Vec<Case> {
    let ln = f64::ln;
    vec![
        // 3/2, (3 + 6)/3, and 6 and 9 of the window of 2; then 9 is read from the ring.
        plain(1)
            .weight("sinks", [0.])
            .step(0..3, [zeros(3), r([3., 6., 9.])], r([1.5, 3., 5.]))
            .step(3..4, [zeros(1), r([12.])], r([7.]))
            .go(4..11, [zeros(7), r([0., 0., 0., 0., 0., 0., 30.])])
            // The ring has 10 rows: that of position 10 has taken the place of position 0.
            .step(11..12, [zeros(1), r([60.])], r([30.])),
        // Keys 1 and 2 weigh 2 and 4, the sink 3: (2·1 + 4·2) / 9. The sink of the second head is e^-∞.
        plain(2).weight("sinks", [ln(3.), f64::NEG_INFINITY]).go(0..1, [zeros(2), r([1.])]).step(
            1..2,
            [r([ln(2.), ln(2.)]), r([2.])],
            r([10. / 9., 10. / 6.]),
        ),
        // Four channels: q · k is halved, so the key weighs 2 against a sink of 1.
        case(
            "attend_window",
            "%q: f32[t, 1, 4], %row: f32[t, 4], %pos: i32[t], %raw: state ring/2 f32[4], @sinks: f32[1]",
            "%y = attend_window %q, %raw, %row, @sinks, %pos : f32[t, 1, 4]",
        )
        .weight("sinks", [0.])
        .step(0..1, [r([2. * ln(2.), 0., 0., 0.]), r([1., 3., 6., 9.])], r([2. / 3., 2., 4., 6.])),
        // Own key 3 and one selected row; the row of the padded index does not count.
        selected().weight("sinks", [0.]).step(0..1, [zeros(1), r([3.]), r([9., 100.]), i([5, -1])], r([4.])),
        // Each token has its own selection, behind the window: (1 + 3) / 3 and (1 + 5 + 2 + 12) / 5.
        selected().weight("sinks", [0.]).step(
            0..2,
            [zeros(2), r([1., 5.]), r([7., 3., 2., 12.]), i([-1, 0, 0, 1])],
            r([4. / 3., 4.]),
        ),
        // A token sees an entry from the entry's last token on.
        entries().weight("sinks", [0.]).step(
            0..4,
            [zeros(4), r([2., 4., 6., 8.]), r([10., 20.])],
            r([1., 4., 5., 44. / 5.]),
        ),
        // The entry of an earlier step: (4 + 6 + 10) / 4, then (6 + 8 + 10 + 20) / 5 and weights by q.
        entries()
            .weight("sinks", [0.])
            .go(0..2, [zeros(2), r([2., 4.]), r([10.])])
            .step(2..3, [zeros(1), r([6.]), r([])], r([5.]))
            .step(3..4, [zeros(1), r([8.]), r([20.])], r([44. / 5.])),
    ]
}

//! All forms of attention against `eval`, bit for bit.
use super::Attend;
use crate::cpu::case::{Case, case, noise};
use crate::cpu::product::isas;

fn header(heads: usize, width: usize, row: &str, more: &str) -> String {
    format!(
        "%q: f32[t, {heads}, {width}], %row: {row}[t, {width}], %pos: i32[t], %table: f32[t, 2], \
         %ring: state ring/128 {row}[{width}], @sinks: f32[{heads}]{more}"
    )
}

fn check(case: &Case) {
    for isa in isas() {
        case.check_kernel(&|site| Box::new(Attend::new(site).expect("a kernel").on(*isa)));
    }
}

/// Heads, width and row format: odd sizes, one block of channels, several.
const SHAPES: [(usize, usize, &str); 5] =
    [(6, 512, "kv8r64"), (3, 24, "kv8r8"), (5, 130, "kv8r66"), (4, 6, "f32"), (7, 72, "f32")];

#[test]
fn window() {
    for (heads, width, row) in SHAPES {
        for (start, tokens) in [(0, 1), (0, 7), (126, 3), (128, 1), (300, 9)] {
            let of = |op: &str, table: &str| {
                let line =
                    format!("%y = {op} %q, %ring, %row, @sinks, %pos{table} : f32[t, {heads}, {width}]");
                case(&header(heads, width, row, ""), &line, start, tokens)
            };
            check(&of("swa_attend", ", %table"));
            check(&of("attend_window", ""));
        }
    }
}

#[test]
fn all_entries() {
    for (heads, width, row) in SHAPES {
        for (start, tokens) in [(0, 2), (1, 1), (513, 1), (515, 3), (640, 10)] {
            let more = format!(", %entries: state entries/4 {row}[{width}]");
            let of = |op: &str, table: &str| {
                let line = format!(
                    "%y = {op} %q, %ring, %row, %entries, @sinks, %pos{table} : f32[t, {heads}, {width}]"
                );
                case(&header(heads, width, row, &more), &line, start, tokens).scaled("q", 4.0)
            };
            check(&of("hca_attend", ", %table"));
            check(&of("attend_entries", ""));
        }
    }
}

#[test]
fn selected_entries() {
    for (heads, width, row) in SHAPES {
        for (start, tokens) in [(0, 1), (513, 1), (515, 3), (640, 10)] {
            let k = 33;
            let mut seed = 5;
            let mut number = |i: usize| if i % 9 == 4 { -1 } else { (noise(&mut seed).abs() * 100.0) as i32 };
            let idx: Vec<i32> = (0..k * tokens).map(&mut number).collect();
            let more = format!(
                ", %entries: state entries/4 {row}[{width}], %idx: i32[t, {k}], %sel: {row}[t, {k}, {width}]"
            );
            let of = |op: &str, rows: &str, table: &str| {
                let line = format!(
                    "%y = {op} %q, %ring, %row, {rows}, %idx, @sinks, %pos{table} : f32[t, {heads}, {width}]"
                );
                let ctx = if start == 0 { 512 } else { start };
                let case = case(&header(heads, width, row, &more), &line, ctx, tokens);
                case.ints("idx", idx.iter().copied())
            };
            check(&of("csa_attend", "%entries", ", %table"));
            check(&of("attend_selected", "%sel", ""));
        }
    }
}

#[test]
fn scores_that_are_no_numbers() {
    let line = "%y = swa_attend %q, %ring, %row, @sinks, %pos, %table : f32[t, 4, 72]";
    let case = case(&header(4, 72, "f32", ""), line, 20, 2);
    check(&case.scaled("q", 1e38).scaled("ring", 1e3));
}

//! Selections against `eval`, which sorts interpreted scores.
use super::IndexSelect;
use crate::cpu::case::{Case, case};
use crate::cpu::product::{Isa, isas};

fn select(heads: usize, width: usize, fmt: &str, k: usize, start: usize, tokens: usize) -> Case {
    let header = format!(
        "%q: {fmt}[t, {heads}, {width}], %weights: f32[t, {heads}], %pos: i32[t], \
         %keys: state entries/4 {fmt}[{width}]"
    );
    let line = format!("%y = index_select %q, %weights, %keys, %pos, k={k} : i32[t, {k}]");
    case(&header, &line, start, tokens)
}

fn check(case: &Case) {
    for isa in isas().iter().chain([&Isa::Neon]) {
        case.check_kernel(&|site| Box::new(IndexSelect::new(site).expect("a kernel").on(*isa)));
    }
}

#[test]
fn selections() {
    for (heads, width, fmt) in
        [(64, 128, "idx4"), (3, 128, "idx4"), (67, 128, "idx4"), (2, 32, "idx4"), (5, 24, "f32")]
    {
        for (start, tokens, k) in
            [(0, 1, 3), (0, 9, 2), (3, 1, 512), (507, 2, 64), (1023, 1, 512), (1027, 7, 129), (2300, 12, 512)]
        {
            check(&select(heads, width, fmt, k, start, tokens));
        }
    }
}

#[test]
fn scales_far_apart_and_bytes_that_no_encoder_makes() {
    for seed in 1..6 {
        let case = || select(5, 128, "idx4", 40, 511, 2).seeded(seed);
        check(&case().raw("keys"));
        check(&case().raw("q"));
        check(&case().scaled("keys", 1e-36).scaled("q", 1e-30));
        check(&case().scaled("keys", 1e30).scaled("q", 1e8));
        check(&case().spread("keys").scaled("q", 3.0));
        check(&case().spread("q").spread("keys"));
    }
}

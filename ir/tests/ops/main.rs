//! Hand-computed cases: at least two for every op, each in both precisions of the interpreter.
//!
//! Numbers are chosen so that the result can be worked out on paper: weights of `ln 2` and `ln 3` make
//! rational softmaxes, rows such as (1, 7) have an RMS of 5.
mod attend;
mod case;
mod compress;
mod hc;
mod linear;
mod moe;
mod norm;
mod rope;
mod rows;

use case::Case;
use ds4_ir::ops::ops;

fn cases() -> Vec<Case> {
    let groups = [
        attend::cases(),
        compress::cases(),
        hc::cases(),
        linear::cases(),
        moe::cases(),
        norm::cases(),
        rope::cases(),
        rows::cases(),
    ];
    groups.into_iter().flatten().collect()
}

#[test]
fn results_are_those_worked_out_by_hand() {
    let failures: Vec<String> =
        cases().iter().flat_map(|c| [c.check::<f32>(), c.check::<f64>()]).flatten().collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Fused ops have no meaning of their own: they are what their definitions say.
#[test]
fn every_primitive_op_has_two_cases() {
    let cases = cases();
    for op in ops().filter(|op| op.definition().is_none()) {
        let n = cases.iter().filter(|c| c.op == op.name).count();
        assert!(n >= 2, "`{}` has {n} hand-computed cases, expected at least 2", op.name);
    }
    for case in cases {
        assert!(case.holds_its_op(), "a case of `{}` does not hold the op", case.op);
    }
}

//! `docs/fusion.md` is written from the op table and the pipeline; `BLESS=1 cargo test` renews it.
use super::common::{model, target, targets};
use super::worth::table;
use ds4_ir::ops::{Body, ops};
use ds4_ir::plan::Maxima;
use ds4_ir::{Class, Module};
use ds4_models::Mix;
use ds4_passes::{Phase, Target, func_cost, optimize};
use std::path::Path;

const INTRO: &str = "\
# What is fused, and why

A decoded token reads each weight once, so nothing is gained by computing less: what costs time beside the
weights is starting kernels and carrying values through memory between them. A fused op takes both away. Each
is *defined* by the expression that it replaces; from that line follow the rewrite rule of `fuse`, the type
of the result, the meaning in the interpreter, and the test of every kernel.

A definition is replaced where every reader of an absorbed value lies inside it (or the value is cheap:
rounding, norms), where the states that it reads are still to be read, and where the target has a kernel.
Among what is left the cheapest spelling of the whole function wins; see `passes/src/target.rs` for the
prices; launches of a device are those of its kernels. After that `pack` joins launches that need nothing of
each other, and `schedule` orders them.

This file is generated: `BLESS=1 cargo test --test passes`.

## The fused ops
";

fn document() -> String {
    let mut text = INTRO.to_string();
    for op in ops() {
        let Body::Fused { definition, .. } = &op.body else { continue };
        let users: Vec<&str> =
            targets().iter().filter(|(_, t)| t.has_kernel(op.name)).map(|(name, _)| *name).collect();
        text += &format!("\n- `{}` on {}: {}\n  `{definition}`\n", op.name, users.join(", "), op.doc);
    }
    text += "\n## What each saves\n\n";
    text += "What one decoded token of Flash costs more where `fuse` may not use the op: in the 2-bit mix and class `fast`, or, if\n\
             nothing changes there, with the official weights in class `exact`. An op that another one absorbs saves nothing\n\
             where that one is used.\n\n";
    text += &table();
    let mut phases: Vec<(Phase, Module)> = Vec::new();
    let module = model("flash", Mix::Ds4Q2, Class::Fast, 131_072);
    optimize(&module, target("cuda"), &mut |phase, m| phases.push((phase, m.clone()))).unwrap();
    let at = |wanted: Phase| phases.iter().find(|(p, _)| *p == wanted).unwrap().1.func("csa_topk").unwrap();
    let (before, after) = (at(Phase::Canonical), at(Phase::Scheduled));
    // A primitive alone has not always a kernel: before, each counts as one launch, as on the processor.
    let sizes = Maxima::of(&module, 1);
    let costs = [func_cost(before, Target::Cpu, &sizes), func_cost(after, target("cuda"), &sizes)];
    text += "\n## A layer with compressed attention and a mixture of experts\n\n";
    text += &format!(
        "Flash in the 2-bit mix, class `fast`, prices of `cuda`, one token: {} launches that move {:.0} kB of\n\
         values become {} launches that move {:.0} kB.\n",
        costs[0].launches,
        costs[0].values as f64 / 1e3,
        costs[1].launches,
        costs[1].values as f64 / 1e3,
    );
    for (title, func) in [("Before", before), ("After", after)] {
        let printed = func.to_string();
        let body = &printed[printed.find(") {\n").unwrap() + 4..];
        text += &format!("\n{title}:\n\n```\n{}\n```\n", body.trim_end().trim_end_matches('}').trim_end());
    }
    text
}

#[test]
fn the_document_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fusion.md");
    let text = document();
    if std::env::var("BLESS").is_ok() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "docs/fusion.md is stale: run with BLESS=1");
}

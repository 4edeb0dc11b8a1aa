//! How long the compiler takes for Flash, from its configuration to the planned module.
#![allow(missing_docs, reason = "the macros of criterion write no documentation")]
use criterion::{Criterion, criterion_group, criterion_main};
use ds4::target::CompileTarget;
use ds4_ir::Class;
use ds4_models::graph::{Builtin, Options, build};
use ds4_models::{Config, Mix};
use ds4_passes::{Target, optimize};
use std::hint::black_box;

fn flash(target: Target) {
    let config = Config::flash();
    let options = Options { name: "flash".to_string(), class: Class::Fast, ctx: 131_072, mtp_blocks: 1 };
    let module = build(&config, &Builtin::new(&config, Mix::Ds4Q2), &options).expect("a module");
    black_box(optimize(&module, target, &mut |_, _| ()).expect("a plan"));
}

fn compile(c: &mut Criterion) {
    for name in ["cpu", "cuda"] {
        let target = CompileTarget::parse(name).expect("a target").prices();
        c.bench_function(&format!("compile/flash-{name}"), |b| b.iter(|| flash(target)));
    }
}

criterion_group!(benches, compile);
criterion_main!(benches);

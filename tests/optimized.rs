//! What the optimizer makes runs as the model's own graph does: the same bits, split as one likes.
#[path = "../models/tests/common/mod.rs"]
mod common;
#[path = "common/mod.rs"]
mod helpers;
#[path = "../models/tests/common/rewrite.rs"]
mod rewrite;

use ds4::compile::{Request, module_of};
use ds4::target::CompileTarget;
use ds4_ir::Class;
use ds4_models::Checkpoint;
use ds4_models::gguf::{Value, metadata};
use ds4_passes::Target;
use ds4_runtime::{Artifact, Engine, Want};
use helpers::{Expected, artifact, fixture};
use rewrite::{Names, convert, write};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const CLASSES: [Class; 3] = [Class::Exact, Class::Official, Class::Fast];

/// The models with the ids that they are asked: the fixtures, and one of them in 8 bits, for which other
/// ops are fused.
fn models(folder: &Path) -> [(PathBuf, Vec<u32>); 3] {
    let ids = |name: &str| Expected::read(&fixture(name).join("expected.safetensors")).ids("input_ids");
    let original = Checkpoint::open(&fixture("pro-mixed")).unwrap();
    let mut keys = vec![("general.architecture".to_string(), Value::str("deepseek4"))];
    keys.extend(metadata(original.config()));
    let eight_bit = write(folder, "eight-bit", &keys, &[&convert(&original, Names::DwarfStar, true)]);
    let [flash, pro] = ["flash-bf16", "pro-mixed"].map(|name| (fixture(name), ids(name)));
    let ids = pro.1.clone();
    [flash, pro, (eight_bit, ids)]
}

/// The artifact of a model with its module left as the builders wrote it.
fn plain(model: &Path, class: Class) -> Artifact {
    let module = module_of(model, Request { class, ctx: Some(4096), target: CompileTarget::Cpu }).unwrap();
    let plan = ds4_passes::plan(&module, Target::Cpu).unwrap();
    Artifact { module, plan, ..artifact(model, class) }
}

fn logits(engine: &Engine, ids: &[u32], chunk: usize) -> Vec<u32> {
    let mut session = engine.session().unwrap();
    let none = AtomicBool::new(false);
    let all = session.advance(ids, Want::All, chunk, &none, &mut |_| ()).unwrap();
    all.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn fused_modules_give_the_same_bits_for_every_split() {
    let folder = tempfile::tempdir().unwrap();
    for (model, ids) in models(folder.path()) {
        for class in CLASSES {
            let open = |a: Artifact| Engine::new(a, &std::env::temp_dir(), 2).unwrap();
            let (plain, fused) = (open(plain(&model, class)), open(artifact(&model, class)));
            let expected = logits(&plain, &ids, 512);
            for chunk in [512, 130, 64, 7, 1] {
                let same = logits(&fused, &ids, chunk) == expected;
                assert!(same, "{}, {class}, chunks of {chunk}", model.display());
            }
        }
    }
}

#[test]
fn every_kernel_of_the_cpu_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let mut launched = BTreeSet::new();
    for (model, ids) in models(folder.path()) {
        for class in CLASSES {
            let engine = Engine::new(artifact(&model, class), &std::env::temp_dir(), 1).unwrap();
            // Launches stand in the order in which a step runs them, all of them.
            logits(&engine, &ids[..5], 5);
            for (func, list) in engine.module().funcs.iter().zip(&engine.plan().launches) {
                let op = |name: &String| func.node(func.find(name).unwrap()).unwrap().op.name;
                launched.extend(list.launches.iter().map(op));
            }
        }
    }
    let fused = ds4_ir::ops::ops().filter(|op| op.definition().is_some() && Target::Cpu.has_kernel(op.name));
    let missing: Vec<&str> = fused.map(|op| op.name).filter(|name| !launched.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_probed_machine_is_one_to_plan_for() {
    let profile = ds4_runtime::probe(&std::env::temp_dir(), 64 << 20, 0).unwrap();
    let machine = ds4_passes::Machine::from_json(&profile.to_string()).unwrap();
    assert!(machine.devices["cpu"].read_gb_s > 0.0);
    let again = ds4_passes::Machine::from_json(&machine.to_json()).unwrap();
    assert_eq!(again, machine);
}

#[test]
fn a_context_is_computed_in_one_step_if_it_is_shorter_than_the_largest() {
    let steps = |ctx| {
        let request = Request { class: Class::Fast, ctx: Some(ctx), target: CompileTarget::Cpu };
        let plan =
            ds4_passes::plan(&module_of(&fixture("flash-bf16"), request).unwrap(), Target::Cpu).unwrap();
        plan.buckets.iter().map(|b| b.maxima.tokens).collect::<Vec<_>>()
    };
    assert_eq!(steps(8), [1, 8]);
    assert_eq!(steps(128), [1, 8, 64, 128]);
    assert_eq!(steps(4096), ds4_passes::BUCKETS);
}

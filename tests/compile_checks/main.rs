//! Every text that full-size Flash and Pro launch, made into code for real devices by their compilers:
//! NVRTC for two generations of NVIDIA's, clang for two of AMD's. Apple's compiler runs on Apple's
//! machines only: Metal texts are compiled with the emulator's prelude.
//!
//! Beside this file stands a table per device: each text by its hash, with the registers, shared bytes
//! and spilled bytes that its compiler reported. A text in the table is not compiled again by the same
//! version of the compiler, unless `DS4_CHECK=full`. `BLESS=1` writes the tables anew.
#[path = "../common/tools.rs"]
mod tools;

mod compilers;
mod table;

use compilers::Compiler;
use ds4::compile::{Request, module_without_weights};
use ds4::kernels::{Spec, specs};
use ds4::target::CompileTarget;
use ds4_codegen::Target;
use ds4_codegen::emit::emit_joint;
use ds4_ir::Class;
use ds4_models::{Config, Mix};
use std::collections::BTreeSet;
use table::{Row, Table};

/// What is launched on `target`, each text once: by both models in all published types of weights and all classes.
fn all_specs(target: Target) -> Vec<Spec> {
    let (mut known, mut all) = (BTreeSet::new(), Vec::new());
    for (model, config) in [("flash", Config::flash()), ("pro", Config::pro())] {
        for (mix_name, mix) in Mix::NAMES {
            for class in [Class::Fast, Class::Official, Class::Exact] {
                let name = format!("{model} {mix_name} {class}");
                let found = specs_of(model, &config, *mix, class, target);
                for mut spec in found.unwrap_or_else(|e| panic!("{name}: {e:#}")) {
                    if known.insert(spec.joint.key()) {
                        spec.first_use = format!("{name}: {}", spec.first_use);
                        all.push(spec);
                    }
                }
            }
        }
    }
    all
}

fn specs_of(
    model: &str,
    config: &Config,
    mix: Mix,
    class: Class,
    target: Target,
) -> anyhow::Result<Vec<Spec>> {
    let gpu = CompileTarget::Gpu(target);
    let module = module_without_weights(model, config, mix, Request { class, ctx: None, target: gpu })?;
    let (module, plan) = ds4_passes::optimize(&module, gpu.prices(), &mut |_, _| ())?;
    specs(&module, &plan, target)
}

fn check(name: &str) {
    let target = Target::parse(name).unwrap();
    let compiler = match Compiler::find(target) {
        Ok(compiler) => compiler,
        Err(why) => return tools::missing(&format!("compile checks for {target}"), &why),
    };
    let kept = Table::read(target);
    let same_tool = kept.tool == compiler.name;
    if !same_tool {
        eprintln!(
            "{target}: the table is by {}, not by {}: every text is compiled",
            kept.tool, compiler.name
        );
    }
    let full = std::env::var("DS4_CHECK").is_ok_and(|v| v == "full");
    let (mut made, mut compiled) = (Table::new(target, &compiler.name), 0);
    for spec in all_specs(target) {
        let text = emit_joint(&spec.joint, &target).unwrap_or_else(|e| panic!("{e}"));
        let hash = table::hash(&text.source);
        let threads = spec.joint.block().iter().product();
        let known = kept.resources(&hash).filter(|_| same_tool && !full);
        let resources = known.unwrap_or_else(|| {
            compiled += 1;
            let made = compiler.compile(&text, threads);
            made.unwrap_or_else(|why| panic!("{} ({}): {why}", spec.joint.key(), spec.first_use))
        });
        made.add(Row { hash, name: text.entry, threads, resources, first_use: spec.first_use });
    }
    println!("{target}: {} texts, {compiled} of them compiled by {}", made.rows.len(), compiler.name);
    assert!(made.rows.len() > 100, "{target}: {} texts", made.rows.len());
    let spilling: Vec<&Row> = made.rows.iter().filter(|row| row.resources.spilled > 0).collect();
    assert!(spilling.is_empty(), "{target}: registers are spilled to memory\n{spilling:#?}");
    if std::env::var("BLESS").is_ok_and(|v| v == "1") {
        return made.write(target);
    }
    if same_tool {
        let differences = kept.differences(&made);
        assert!(differences.is_empty(), "{target}: BLESS=1 accepts\n{}", differences.join("\n"));
    }
}

#[test]
fn texts_compile_for_sm_90() {
    check("cuda:sm_90");
}

#[test]
fn texts_compile_for_sm_121a() {
    check("cuda:sm_121a");
}

#[test]
fn texts_compile_for_gfx1151() {
    check("hip:gfx1151");
}

#[test]
fn texts_compile_for_gfx942() {
    check("hip:gfx942");
}

#[test]
fn texts_compile_as_metal_with_the_emulators_prelude() {
    check("metal:apple7");
}

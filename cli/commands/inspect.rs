//! `ds4c inspect`: what an artifact holds.
use crate::{layouts, tuning};
use anyhow::Result;
use clap::Args;
use ds4_ir::cost::{Cost, Site, args_of};
use ds4_ir::plan::{Maxima, Plan, state_bytes};
use ds4_ir::{Func, Module};
use ds4_runtime::Artifact;
use ds4_runtime::artifact::Kernels;
use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Show what an artifact holds.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The artifact
    file: PathBuf,
    /// Print the module's text
    #[arg(long)]
    module: bool,
}

/// Runs the command.
///
/// # Errors
/// No artifact, or a damaged one.
pub fn inspect(args: &InspectArgs) -> Result<()> {
    let artifact = Artifact::read(&args.file)?;
    let mut out = stdout().lock();
    let text = if args.module { artifact.module.to_string() } else { describe(&artifact) };
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// The artifact in some thirty lines.
fn describe(artifact: &Artifact) -> String {
    let Artifact { meta, module, plan, table, tokenizer, kernels, selftest, .. } = artifact;
    let mut text = format!("model     {} ({})\n", meta.model, meta.compiler);
    text += &format!("identity  {}\n", meta.identity);
    text += &format!("class     {}\ncontext   {}\nvocab     {}\n", module.class, module.ctx, module.vocab);
    let words = tokenizer.as_ref().map_or("none".to_string(), |t| format!("{} bytes", t.len()));
    text += &format!("tokenizer {words}\n");
    let test =
        selftest.as_ref().map_or("none".to_string(), |t| format!("{} tokens by {}", t.ids.len(), t.made_by));
    text += &format!("self-test {test}\n\nfiles\n");
    for (file, mark) in table.files.iter().zip(&meta.files) {
        text += &format!("  {file}  {} bytes\n", mark.bytes);
    }
    text += "\nweights by type\n";
    let mut by_type: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for entry in &table.entries {
        let slot = by_type.entry(entry.ty.scalar.to_string()).or_default();
        slot.0 += 1;
        slot.1 += entry.parts.iter().map(|p| p.bytes * u64::from(p.count)).sum::<u64>();
    }
    for (scalar, (count, bytes)) in by_type {
        text += &format!("  {scalar:<9} {count:>5} weights {bytes:>15} bytes\n");
    }
    text += &format!("\n{}", layouts::describe(artifact));
    text += &tuning::describe(artifact);
    let states: u64 = module.states.iter().map(|s| state_bytes(&s.ty, module.ctx)).sum();
    text += &format!("\nstates    {} of {states} bytes at the full context\n", module.states.len());
    for graph in &module.graphs {
        let launches: usize = graph.calls.iter().map(|c| plan.launches[c.func].launches.len()).sum();
        text += &format!("graph     @{}: {} calls, {launches} launches\n", graph.name, graph.calls.len());
    }
    text += "\nlaunches by function\n";
    for list in &plan.launches {
        text += &format!("  @{:<20} {:>4}\n", list.func, list.launches.len());
    }
    text += &kernels.as_ref().map_or(String::new(), |k| describe_kernels(module, plan, k));
    text += "\narena by tokens in a step\n";
    for bucket in &plan.buckets {
        text += &format!("  {:>6} {:>15} bytes\n", bucket.maxima.tokens, bucket.arena_bytes);
    }
    text
}

/// What a device launches: the texts with their resources, and per bucket and function the launches.
fn describe_kernels(module: &Module, plan: &Plan, kernels: &Kernels) -> String {
    let binaries = kernels.texts.iter().filter(|t| !t.binary.is_empty()).count();
    let count = kernels.texts.len();
    let mut text = format!("\ntarget    {} ({count} texts, {binaries} with a binary)\n", kernels.target);
    text += "\ntexts: threads, shared bytes, bytes of text and binary\n";
    for (i, t) in kernels.texts.iter().enumerate() {
        let threads: u32 = t.block.iter().product();
        let (source, binary) = (t.source.len(), t.binary.len());
        text +=
            &format!("  {i:>4} {:<24} {threads:>5} {:>7} {source:>7} {binary:>7}\n", t.entry, t.shared_bytes);
    }
    for (bucket, funcs) in plan.buckets.iter().zip(&kernels.launches) {
        let tokens = bucket.maxima.tokens;
        text +=
            &format!("\nlaunches of steps of up to {tokens} tokens: value, kB moved, kFLOP; text, grid\n");
        for (f, values) in funcs.iter().enumerate() {
            let func = &module.funcs[f];
            text += &format!("  @{}\n", func.name);
            for (name, launches) in plan.launches[f].launches.iter().zip(values) {
                let cost = cost_of(func, name, &bucket.maxima);
                let (moved, computed) = (cost.bytes() as f64 / 1e3, (cost.flops + cost.int_ops) as f64 / 1e3);
                text += &format!("    %{name:<20} {moved:>12.1} {computed:>12.1}\n");
                for launch in launches {
                    let (entry, [x, y, z]) = (&kernels.texts[launch.text].entry, launch.grid);
                    text += &format!("      {:>4} {entry:<24} {x} x {y} x {z}\n", launch.text);
                }
            }
        }
    }
    text
}

/// What the launches of a value move and compute together, at most.
fn cost_of(func: &Func, name: &str, maxima: &Maxima) -> Cost {
    let v = func.find(name).expect("the plan was checked");
    let op = func.node(v).expect("the plan was checked").op;
    Site { op, args: &args_of(func, v), ty: func.ty(v) }.cost(maxima)
}

//! Compiled modules as text for people: the plan beside the launches, and the launches as a graph.
use crate::rebuild::before;
use ds4_ir::plan::{Bucket, Plan};
use ds4_ir::{Func, Module};
use std::fmt::Write;

/// The module and, for every bucket, where each launch finds its memory.
///
/// Addresses of a function are relative to its part of the arena. Launches with the same wave number
/// may run at once.
pub fn planned(module: &Module, plan: &Plan) -> String {
    let mut text = module.to_string();
    for bucket in &plan.buckets {
        let sizes = &bucket.maxima;
        writeln!(
            text,
            "\nplan t={} w={} ctx={}: arena {} bytes",
            sizes.tokens, sizes.wanted, sizes.ctx, bucket.arena_bytes
        )
        .expect("strings take all");
        for (func, part) in module.funcs.iter().zip(&bucket.funcs) {
            writeln!(text, "    @{}: {} bytes", func.name, part.bytes).expect("strings take all");
            text += &launches(func, bucket, &part.func);
        }
        for (graph, addresses) in module.graphs.iter().zip(&bucket.graphs) {
            writeln!(text, "    graph @{}", graph.name).expect("strings take all");
            for (value, at) in graph.values.iter().zip(&addresses.addresses) {
                writeln!(text, "        %{} at {at:#x}", value.name).expect("strings take all");
            }
            for (call, at) in graph.calls.iter().zip(&addresses.parts) {
                let name = &module.funcs[call.func].name;
                writeln!(text, "        call @{name} at {at:#x}").expect("strings take all");
            }
        }
    }
    text
}

fn launches(func: &Func, bucket: &Bucket, name: &str) -> String {
    let part = bucket.funcs.iter().find(|f| f.func == name).expect("a part for each function");
    let mut text = String::new();
    for (wave, launches) in func.waves().iter().enumerate() {
        for v in launches.iter().flatten() {
            let place = match (part.addresses[v.index()], func.ty(*v).state()) {
                (Some(at), _) => format!("at {at:#x}"),
                (None, Some(_)) => "in its state".to_string(),
                (None, None) => "where the call wants it".to_string(),
            };
            let scratch = part.scratch[v.index()];
            let scratch =
                scratch.map_or(String::new(), |(at, bytes)| format!(", {bytes} bytes of scratch at {at:#x}"));
            writeln!(text, "        {wave}: %{} {place}{scratch}", func.name(*v)).expect("strings take all");
        }
    }
    text
}

/// The launches of every function as a graph in the language of Graphviz.
pub fn dot(module: &Module) -> String {
    let mut text = format!("digraph \"{}\" {{\n    node [shape=box, fontname=monospace]\n", module.name);
    for (f, func) in module.funcs.iter().enumerate() {
        let all = func.launches();
        writeln!(text, "    subgraph cluster_{f} {{\n        label=\"@{}\"", func.name)
            .expect("strings take all");
        for (i, launch) in all.iter().enumerate() {
            let line = |v: &ds4_ir::Value| {
                let op = func.node(*v).expect("launches are nodes").op.name;
                format!("%{} = {op}", func.name(*v))
            };
            let label: Vec<String> = launch.iter().map(line).collect();
            writeln!(text, "        f{f}_{i} [label=\"{}\"]", label.join("\\l") + "\\l")
                .expect("strings take all");
        }
        for (i, needs) in before(func, &all).iter().enumerate() {
            for j in needs {
                writeln!(text, "        f{f}_{j} -> f{f}_{i}").expect("strings take all");
            }
        }
        text += "    }\n";
    }
    text + "}\n"
}

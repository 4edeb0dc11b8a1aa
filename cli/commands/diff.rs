//! `ds4c diff`: what differs between two artifacts.
use anyhow::Result;
use clap::Args;
use ds4_runtime::{Artifact, layout};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Show what differs between two artifacts.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// One artifact
    a: PathBuf,
    /// The other
    b: PathBuf,
}

/// Runs the command: a line per difference, none for equal artifacts.
///
/// # Errors
/// One of the files is no artifact, or the output cannot be written.
pub fn diff(args: &DiffArgs) -> Result<()> {
    let (a, b) = (Artifact::read(&args.a)?, Artifact::read(&args.b)?);
    let mut out = stdout().lock();
    for line in differences(&a, &b) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// One line per difference: the thing, then both sides.
pub fn differences(a: &Artifact, b: &Artifact) -> Vec<String> {
    let mut lines = Vec::new();
    fn one(lines: &mut Vec<String>, what: &str, a: impl Display, b: impl Display) {
        let (a, b) = (a.to_string(), b.to_string());
        if a != b {
            lines.push(format!("{what}: {a} | {b}"));
        }
    }
    one(&mut lines, "compiler", &a.meta.compiler, &b.meta.compiler);
    one(&mut lines, "model", &a.meta.model, &b.meta.model);
    one(&mut lines, "identity", &a.meta.identity, &b.meta.identity);
    one(&mut lines, "class", a.module.class, b.module.class);
    one(&mut lines, "context", a.module.ctx, b.module.ctx);
    one(&mut lines, "vocab", a.module.vocab, b.module.vocab);
    let words = |x: &Artifact| {
        x.tokenizer.as_ref().map_or("none".to_string(), |t| blake3::hash(t).to_hex()[..16].to_string())
    };
    one(&mut lines, "tokenizer", words(a), words(b));
    both(&mut lines, "weight", &weights(a), &weights(b));
    one(&mut lines, "layouts", packings(a), packings(b));
    let states = |x: &Artifact| x.module.states.iter().map(|s| (s.name.clone(), s.ty.to_string())).collect();
    both(&mut lines, "state", &states(a), &states(b));
    let launches = |x: &Artifact| {
        x.plan.launches.iter().map(|l| (l.func.clone(), ops(x, &l.func, &l.launches))).collect()
    };
    both(&mut lines, "launches of", &launches(a), &launches(b));
    let arenas = |x: &Artifact| {
        x.plan
            .buckets
            .iter()
            .map(|b| (format!("{} tokens", b.maxima.tokens), format!("{} bytes", b.arena_bytes)))
            .collect()
    };
    both(&mut lines, "arena for", &arenas(a), &arenas(b));
    lines
}

/// Which element types are packed, and how.
fn packings(x: &Artifact) -> String {
    let summary = x.layouts.as_ref().map(layout::summary).unwrap_or_default();
    let one = |((packing, scalar), _): (&(String, String), _)| format!("{scalar} as {packing}");
    let all: Vec<String> = summary.packings.iter().map(one).collect();
    if all.is_empty() { "stored".to_string() } else { all.join(", ") }
}

/// Type and content sample of each weight.
fn weights(x: &Artifact) -> BTreeMap<String, String> {
    let sample = |i: usize| x.meta.samples.get(i).map_or("", |s| &s[..16.min(s.len())]);
    x.module
        .weights
        .iter()
        .enumerate()
        .map(|(i, w)| (w.name.clone(), format!("{} {}", w.ty, sample(i))))
        .collect()
}

/// Number of launches, and their ops in order.
fn ops(x: &Artifact, func: &str, launches: &[String]) -> String {
    let func = x.module.func(func).expect("the plan fits the module");
    let op = |name: &String| func.find(name).and_then(|v| func.node(v)).map_or("", |n| n.op.name);
    let ops: Vec<&str> = launches.iter().map(op).collect();
    format!("{} ({})", ops.len(), ops.join(" "))
}

/// A line for every key that is on one side only or differs.
fn both(lines: &mut Vec<String>, what: &str, a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) {
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let side = |x: &BTreeMap<String, String>| x.get(key).map_or("none".to_string(), String::clone);
        if a.get(key) != b.get(key) {
            lines.push(format!("{what} {key}: {} | {}", side(a), side(b)));
        }
    }
}

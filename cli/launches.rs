//! What a device launches, told to a reader, and written as files.
use anyhow::{Context, Result};
use ds4_codegen::Api;
use ds4_ir::cost::{Cost, Site, args_of};
use ds4_ir::plan::{Maxima, Plan};
use ds4_ir::{Func, Module, Value};
use ds4_runtime::artifact::Kernels;
use std::path::Path;

/// The file that says what launches which text.
const LIST: &str = "launches.txt";

/// Writes the text of every kernel into `folder`, numbered in the order of their first use, as
/// `00_name.cu`, and what launches them as `launches.txt`; answers how many texts there are.
///
/// # Errors
/// A file that cannot be written.
pub fn write(folder: &Path, module: &Module, plan: &Plan, kernels: &Kernels, api: Api) -> Result<usize> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let digits = kernels.texts.len().to_string().len().max(2);
    for (i, text) in kernels.texts.iter().enumerate() {
        write(&format!("{i:0digits$}_{}.{}", text.entry, api.extension()), &text.source)?;
    }
    write(LIST, describe(module, plan, kernels).trim_start())?;
    Ok(kernels.texts.len())
}

/// The texts with their resources, and what each bucket launches, by function and value.
pub fn describe(module: &Module, plan: &Plan, kernels: &Kernels) -> String {
    let binaries = kernels.texts.iter().filter(|t| !t.binary.is_empty()).count();
    let count = kernels.texts.len();
    let portable = kernels.texts.iter().filter(|t| !t.portable.is_empty()).count();
    let later = if portable > 0 { format!(", {portable} with one for later devices") } else { String::new() };
    let mut text =
        format!("\ntarget    {} ({count} texts, {binaries} with a binary{later})\n", kernels.target);
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
        for (func, blocks) in module.funcs.iter().zip(funcs) {
            text += &format!("  @{}\n", func.name);
            for (members, launches) in func.launches().iter().zip(blocks) {
                for v in members {
                    let cost = cost_of(func, *v, &bucket.maxima);
                    let (moved, computed) =
                        (cost.bytes() as f64 / 1e3, (cost.flops + cost.int_ops) as f64 / 1e3);
                    text += &format!("    %{:<20} {moved:>12.1} {computed:>12.1}\n", func.name(*v));
                }
                for launch in launches {
                    let (entry, [x, y, z]) = (&kernels.texts[launch.text].entry, launch.grid);
                    text += &format!("      {:>4} {entry:<24} {x} x {y} x {z}\n", launch.text);
                }
            }
        }
    }
    text
}

/// What the launches of a node move and compute together, at most.
fn cost_of(func: &Func, v: Value, maxima: &Maxima) -> Cost {
    let op = func.node(v).expect("the plan was checked").op;
    Site { op, args: &args_of(func, v), ty: func.ty(v) }.cost(maxima)
}

//! The kernels of an artifact: for every node of a planned module, its launches and their texts.
use anyhow::{Result, bail};
use ds4_codegen::emit::emit_joint;
use ds4_codegen::{Api, Constant, Joint, Target, block, member_scratch_bytes};
use ds4_ir::plan::Plan;
use ds4_ir::{Func, Module, Value};
use ds4_runtime::artifact::{self, Binding, Buffer, KernelLaunch, KernelText, Kernels};
use ds4_runtime::device::{carries_over_to, compile_cuda, compile_hip};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything `target` launches for a module, its texts in the order in which steps first need them,
/// without binaries.
///
/// # Errors
/// Every node that the target has no kernel for, by op and types; a text that cannot be made.
pub fn kernels(module: &Module, plan: &Plan, target: Target) -> Result<Kernels> {
    let Listed { table, launches } = list(module, plan, target)?;
    let texts = emit_all(&table.specs, target)?;
    let constants =
        table.constants.iter().map(|c| artifact::Constant { name: c.name.to_string(), bytes: (c.bytes)() });
    let constants = constants.collect();
    let (target, subgroup) = (target.to_string(), target.subgroup);
    Ok(Kernels { target, subgroup, texts, constants, launches })
}

/// The specification of every text that [`kernels`] would make, in the same order.
///
/// # Errors
/// Every node that the target has no kernel for, by op and types.
pub fn specs(module: &Module, plan: &Plan, target: Target) -> Result<Vec<Spec>> {
    Ok(list(module, plan, target)?.table.specs)
}

/// What a text is made from.
pub struct Spec {
    /// A launch of it.
    pub joint: Joint,
    /// Function, first value and bucket of that launch: `@head %logits, steps of up to 8 tokens`.
    pub first_use: String,
}

/// All launches, their texts not made yet.
struct Listed {
    table: Table,
    /// By bucket, function and launch of the function.
    launches: Vec<Vec<Vec<Vec<KernelLaunch>>>>,
}

fn list(module: &Module, plan: &Plan, target: Target) -> Result<Listed> {
    let mut table = Table::default();
    let mut missing = BTreeSet::new();
    let mut all = Vec::new();
    for bucket in &plan.buckets {
        let mut funcs = Vec::new();
        for (f, func) in module.funcs.iter().enumerate() {
            let mut blocks = Vec::new();
            for members in func.launches() {
                let joints = match block(func, &members, &bucket.maxima, &target) {
                    Ok(joints) => joints,
                    Err(member) => {
                        missing.insert(described(func, member));
                        continue;
                    }
                };
                let place = || {
                    let (name, tokens) = (func.name(members[0]), bucket.maxima.tokens);
                    format!("@{} %{name}, steps of up to {tokens} tokens", func.name)
                };
                for (member, v) in members.iter().enumerate() {
                    let needed = member_scratch_bytes(&joints, member);
                    let planned = bucket.funcs[f].scratch[v.index()].map_or(0, |(_, bytes)| bytes);
                    if needed > planned {
                        let (place, name) = (place(), func.name(*v));
                        bail!("{place}: %{name}: expected {needed} bytes of planned scratch, got {planned}");
                    }
                }
                blocks.push(joints.into_iter().map(|joint| table.add(joint, &place)).collect());
            }
            funcs.push(blocks);
        }
        all.push(funcs);
    }
    if !missing.is_empty() {
        let list: Vec<String> = missing.into_iter().collect();
        bail!("{target} has no kernel for:\n  {}", list.join("\n  "));
    }
    Ok(Listed { table, launches: all })
}

/// The node with the types of its operands, as a reader of the message needs it.
fn described(func: &Func, v: Value) -> String {
    let node = func.node(v).expect("a node");
    let arg = |arg: &ds4_ir::Arg| match arg {
        ds4_ir::Arg::Value(v) => func.ty(*v).to_string(),
        ds4_ir::Arg::Weight(w) => format!("@{}", func.weight_type(*w)),
        ds4_ir::Arg::Lit(lit) => lit.to_string(),
    };
    let args: Vec<String> = node.args.iter().map(arg).collect();
    format!("{} {} : {}", node.op.name, args.join(", "), func.ty(v))
}

/// Distinct specifications of texts, and distinct constants.
#[derive(Default)]
struct Table {
    known: BTreeMap<String, usize>,
    specs: Vec<Spec>,
    constants: Vec<&'static Constant>,
}

impl Table {
    /// The launch as an artifact has it.
    fn add(&mut self, joint: Joint, place: &dyn Fn() -> String) -> KernelLaunch {
        let buffer = |(member, b): &(usize, _)| Buffer { member: *member, binding: self.binding(b) };
        let buffers = joint.bindings.iter().map(buffer).collect();
        let grid = joint.grid();
        let next = self.specs.len();
        let text = *self.known.entry(joint.key()).or_insert(next);
        if text == next {
            self.specs.push(Spec { joint, first_use: place() });
        }
        KernelLaunch { text, grid, buffers }
    }

    fn binding(&mut self, binding: &ds4_codegen::Binding) -> Binding {
        use ds4_codegen::Binding as From;
        match binding {
            From::Step => Binding::Step,
            From::Value(i) => Binding::Value(*i),
            From::Weight(i, role) => Binding::Weight(*i, *role),
            From::Table(i, role) => Binding::Table(*i, *role),
            From::Base(i, role) => Binding::Base(*i, *role),
            From::Out => Binding::Out,
            From::Scratch { offset, bytes } => Binding::Scratch(*offset, *bytes),
            From::Constant(constant) => {
                let known = self.constants.iter().position(|c| c == constant);
                Binding::Constant(known.unwrap_or_else(|| {
                    self.constants.push(constant);
                    self.constants.len() - 1
                }))
            }
        }
    }
}

/// Runs `work` on every item, on all cores; the results in order, or the first error.
fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { break };
                    *results[i].lock().expect("no panic while locked") = Some(work(item));
                }
            });
        }
    });
    let done = |r: Mutex<Option<Result<R>>>| r.into_inner().expect("unlocked").expect("every item was done");
    results.into_iter().map(done).collect()
}

fn emit_all(specs: &[Spec], target: Target) -> Result<Vec<KernelText>> {
    on_all_cores(specs, |Spec { joint, .. }| {
        let text = emit_joint(joint, &target)?;
        Ok(KernelText {
            entry: text.entry,
            source: text.source,
            block: joint.block(),
            shared_bytes: text.shared_bytes,
            arch: None,
            binary: Vec::new(),
            portable: Vec::new(),
        })
    })
}

/// Compiles every text for the architecture of `target`, for which it was made, if the compiler is
/// there; `told` is given a line if it is not.
///
/// # Errors
/// A text that does not compile.
pub fn add_binaries(kernels: &mut Kernels, target: Target, told: &mut dyn FnMut(String)) -> Result<()> {
    let texts = &mut kernels.texts[..];
    let compile: fn(&str, &str) -> ds4_runtime::Result<ds4_runtime::device::Compiled> = match target.api {
        Api::Cuda => compile_cuda,
        Api::Hip => compile_hip,
        // Apple's compiler is part of its driver.
        Api::Metal => return Ok(()),
    };
    let Some(first) = texts.first() else { return Ok(()) };
    // Whether there is a compiler shows on an empty text.
    if let Err(why) = compile("", target.arch) {
        let why = why.to_string();
        if why.contains("found none") {
            told(format!(
                "no binaries, the driver will compile {} texts when they are loaded: {why}",
                texts.len()
            ));
            return Ok(());
        }
    }
    debug_assert!(!first.source.is_empty());
    let compiled = on_all_cores(texts, |text| {
        compile(&text.source, target.arch).map_err(|e| anyhow::anyhow!("{}: {e}", text.entry))
    })?;
    let has_portable = carries_over_to(target.arch, target.arch);
    for (text, compiled) in texts.iter_mut().zip(compiled) {
        text.binary = compiled.binary;
        text.portable = if has_portable { compiled.portable } else { Vec::new() };
        text.arch = Some(target.arch.to_string());
    }
    Ok(())
}

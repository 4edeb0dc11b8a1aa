//! Gives every value of a step an address in one arena.
//!
//! A function's values and the scratch of its kernels make up its part; the graph's values and the
//! parts of the functions that it calls make up the arena. In each, what is largest goes first, into
//! the lowest gap that is free for its whole life. What may run at once lives at the same time.
use crate::Target;
use crate::cost::{Site, args_of};
use ds4_ir::module::{Call, Graph, Header};
use ds4_ir::plan::{ALIGN, Bucket, FuncPlan, GraphPlan, LaunchList, Maxima, Plan};
use ds4_ir::{Func, Module, Node, TensorType, Value};
use std::cmp::Reverse;

/// Largest numbers of tokens in a step, one bucket each; none holds more than the context.
pub const BUCKETS: [u32; 4] = [1, 8, 64, 512];

/// Why a module has no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// A value's size is no 64-bit number.
    #[error("%{value}: {ty} is too large for any memory at {tokens} tokens")]
    TooLarge {
        /// The value.
        value: String,
        /// Its type.
        ty: String,
        /// Tokens of the bucket.
        tokens: u32,
    },
}

/// Plans a module for steps of up to each of [`BUCKETS`] tokens, or its whole context where that is
/// shorter, and checks the plan. `target` says what scratch its kernels need.
///
/// # Errors
/// A value that fits no memory.
pub fn plan(module: &Module, target: Target) -> Result<Plan, PlanError> {
    let mut sizes = BUCKETS.map(|tokens| tokens.min(module.ctx.max(1))).to_vec();
    sizes.dedup();
    let buckets = sizes.into_iter().map(|tokens| bucket(module, target, tokens));
    let buckets = buckets.collect::<Result<_, _>>()?;
    let plan = Plan { launches: module.funcs.iter().map(launches).collect(), buckets };
    if let Err(why) = plan.check(module) {
        panic!("the planner made a bad plan: {why}");
    }
    Ok(plan)
}

fn launches(func: &Func) -> LaunchList {
    let names = func.launches().concat().into_iter().map(|v| func.name(v).to_string());
    LaunchList { func: func.name.clone(), launches: names.collect() }
}

fn bucket(module: &Module, target: Target, tokens: u32) -> Result<Bucket, PlanError> {
    let maxima = Maxima::of(module, tokens);
    let funcs: Vec<FuncPlan> =
        module.funcs.iter().map(|f| func_plan(f, target, &maxima)).collect::<Result<_, _>>()?;
    let graphs = module.graphs.iter().map(|g| graph_plan(module, g, &funcs, &maxima));
    let graphs: Vec<(GraphPlan, u64)> = graphs.collect::<Result<_, _>>()?;
    let arena_bytes = graphs.iter().map(|(_, end)| *end).max().unwrap_or(0);
    Ok(Bucket { maxima, arena_bytes, graphs: graphs.into_iter().map(|(g, _)| g).collect(), funcs })
}

/// A value to place: its size and the first and last time at which it must be whole.
struct Life {
    bytes: u64,
    from: usize,
    to: usize,
}

/// Addresses of the values, and the end of the highest.
fn place(lives: &[Life]) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|i| (Reverse(lives[*i].bytes), *i));
    let mut placed: Vec<usize> = Vec::new();
    let mut addresses = vec![0; lives.len()];
    let mut end = 0;
    for i in order {
        let life = &lives[i];
        let overlaps = |j: &&usize| lives[**j].from <= life.to && life.from <= lives[**j].to;
        let mut busy: Vec<(u64, u64)> = placed
            .iter()
            .filter(overlaps)
            .map(|j| (addresses[*j], addresses[*j] + lives[*j].bytes))
            .collect();
        busy.sort_unstable();
        let gap =
            |at: u64, (low, high): &(u64, u64)| if at + life.bytes <= *low { at } else { at.max(*high) };
        addresses[i] = busy.iter().fold(0, gap);
        end = end.max(addresses[i] + life.bytes);
        placed.push(i);
    }
    (addresses, end)
}

fn bytes(name: &str, ty: &TensorType, maxima: &Maxima) -> Result<u64, PlanError> {
    // An address space of 2^48 bytes bounds any sum of a function's values well below 2^64.
    let fits = maxima.bytes(ty).filter(|b| *b < 1 << 48);
    let too_large =
        || PlanError::TooLarge { value: name.to_string(), ty: ty.to_string(), tokens: maxima.tokens };
    fits.ok_or_else(too_large)
}

/// Time runs in two beats per call: in the first the function still reads operands, in the second it
/// writes results. An operand that is read early and never again may give its place to a result.
fn graph_plan(
    module: &Module,
    graph: &Graph,
    funcs: &[FuncPlan],
    maxima: &Maxima,
) -> Result<(GraphPlan, u64), PlanError> {
    let mut lives = Vec::new();
    for (id, value) in graph.values.iter().enumerate() {
        let ty = value.ty.tensor().expect("graph values are tensors");
        let from = graph.calls.iter().position(|c| c.outs.contains(&id)).map_or(0, |c| 2 * c + 2);
        let read = |(c, call): (usize, &Call)| {
            let last = call.args.contains(&id).then(|| last_beat(&module.funcs[call.func], call, id));
            last.map(|beat| 2 * c + beat)
        };
        let read = graph.calls.iter().enumerate().filter_map(read).max();
        let end = 2 * graph.calls.len() + 1;
        let to = if graph.results.contains(&id) { end } else { read.unwrap_or(from).max(from) };
        lives.push(Life { bytes: bytes(&value.name, ty, maxima)?, from, to });
    }
    for (c, call) in graph.calls.iter().enumerate() {
        lives.push(Life { bytes: funcs[call.func].bytes, from: 2 * c + 1, to: 2 * c + 2 });
    }
    let (mut addresses, end) = place(&lives);
    let parts = addresses.split_off(graph.values.len());
    Ok((GraphPlan { graph: graph.name.clone(), addresses, parts }, end))
}

/// 1 if the call reads graph value `id` for the last time before it writes any result, else 2.
fn last_beat(func: &Func, call: &Call, id: usize) -> usize {
    let header = Header::of(func);
    let bound = header.tensors.iter().zip(&call.args).filter(|(_, arg)| **arg == id);
    let inputs: Vec<Value> = bound.map(|(v, _)| *v).collect();
    let waves: Vec<Vec<Value>> = func.waves().iter().map(|w| w.concat()).collect();
    let reads = |v: &Value| {
        let mut operands = func.node(*v).into_iter().flat_map(Node::values);
        operands.any(|a| inputs.contains(&func.storage_of(a)))
    };
    let last_read = waves.iter().rposition(|w| w.iter().any(reads));
    let first_write = waves.iter().position(|w| w.iter().any(|v| header.outs.contains(v)));
    match (last_read, first_write) {
        (Some(read), Some(write)) if read >= write => 2,
        _ => 1,
    }
}

fn func_plan(func: &Func, target: Target, maxima: &Maxima) -> Result<FuncPlan, PlanError> {
    let outs = Header::of(func).outs;
    // Results are written where the caller wants them, unless they only show another value's memory.
    let bound = |v: Value| func.node(v).is_none() || func.ty(v).state().is_some() || outs.contains(&v);
    let owned: Vec<Value> = func.values().filter(|v| !bound(*v) && func.view_of(*v).is_none()).collect();
    let waves: Vec<Vec<Value>> = func.waves().iter().map(|w| w.concat()).collect();
    let made =
        |v: Value| waves.iter().position(|w| w.contains(&v)).expect("a node that is no view is launched");
    let mut lives = Vec::new();
    for v in &owned {
        let ty = func.ty(*v).tensor().expect("states are bound");
        let reads =
            |u: &Value| func.node(*u).into_iter().flat_map(Node::values).any(|a| func.storage_of(a) == *v);
        let read = waves.iter().rposition(|w| w.iter().any(reads));
        let from = made(*v);
        lives.push(Life { bytes: bytes(func.name(*v), ty, maxima)?, from, to: read.unwrap_or(from) });
    }
    let mut wanting = Vec::new();
    for (v, node) in func.nodes().filter(|(v, _)| func.view_of(*v).is_none()) {
        let site = Site { op: node.op, args: &args_of(func, v), ty: func.ty(v) };
        let bytes = target.scratch(&site, maxima).next_multiple_of(ALIGN);
        if bytes > 0 {
            lives.push(Life { bytes, from: made(v), to: made(v) });
            wanting.push((v, bytes));
        }
    }
    let (placed, bytes) = place(&lives);
    let address = |v: Value| owned.iter().position(|o| *o == func.storage_of(v)).map(|i| placed[i]);
    let addresses = func.values().map(|v| if bound(v) { None } else { address(v) }).collect();
    let scratch = |v: Value| {
        let i = wanting.iter().position(|(w, _)| *w == v)?;
        Some((placed[owned.len() + i], wanting[i].1))
    };
    let scratch = func.values().map(scratch).collect();
    Ok(FuncPlan { func: func.name.clone(), addresses, scratch, bytes })
}

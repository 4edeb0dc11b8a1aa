//! Gives every value of a step an address in one arena.
//!
//! The arena of a bucket is the graph's values, then the part of whatever function is running. In
//! each, values go, largest first, into the lowest gap that is free for their whole life.
use ds4_ir::module::{Graph, Header};
use ds4_ir::plan::{Bucket, FuncPlan, GraphPlan, LaunchList, Maxima, Plan};
use ds4_ir::{Func, Module, TensorType, Value};
use std::cmp::Reverse;

/// Largest numbers of tokens in a step, one bucket each.
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

/// Plans a module for steps of up to each of [`BUCKETS`] tokens that its context allows, and checks
/// the plan.
///
/// # Errors
/// A value that fits no memory.
pub fn plan(module: &Module) -> Result<Plan, PlanError> {
    let fits = |tokens: &&u32| **tokens == 1 || **tokens <= module.ctx;
    let buckets = BUCKETS.iter().filter(fits).map(|tokens| bucket(module, *tokens));
    let buckets = buckets.collect::<Result<_, _>>()?;
    let plan = Plan { launches: module.funcs.iter().map(launches).collect(), buckets };
    if let Err(why) = plan.check(module) {
        panic!("the planner made a bad plan: {why}");
    }
    Ok(plan)
}

fn launches(func: &Func) -> LaunchList {
    let runs = func.nodes().filter(|(v, _)| func.view_of(*v).is_none());
    let launches = runs.map(|(v, _)| func.name(v).to_string()).collect();
    LaunchList { func: func.name.clone(), launches }
}

fn bucket(module: &Module, tokens: u32) -> Result<Bucket, PlanError> {
    let maxima = Maxima::of(module, tokens);
    let funcs: Vec<FuncPlan> =
        module.funcs.iter().map(|f| func_plan(f, &maxima)).collect::<Result<_, _>>()?;
    let graphs: Vec<GraphPlan> =
        module.graphs.iter().map(|g| graph_plan(g, &maxima)).collect::<Result<_, _>>()?;
    let end = |g: (&Graph, &GraphPlan)| {
        let called = g.0.calls.iter().map(|c| funcs[c.func].bytes).max().unwrap_or(0);
        g.1.scratch + called
    };
    let arena_bytes = module.graphs.iter().zip(&graphs).map(end).max().unwrap_or(0);
    Ok(Bucket { maxima, arena_bytes, graphs, funcs })
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

fn graph_plan(graph: &Graph, maxima: &Maxima) -> Result<GraphPlan, PlanError> {
    let mut lives = Vec::new();
    for (id, value) in graph.values.iter().enumerate() {
        let ty = value.ty.tensor().expect("graph values are tensors");
        let defined = graph.calls.iter().position(|c| c.outs.contains(&id)).map_or(0, |c| c + 1);
        let read = graph.calls.iter().rposition(|c| c.args.contains(&id)).map_or(defined, |c| c + 1);
        let to = if graph.results.contains(&id) { graph.calls.len() + 1 } else { read };
        lives.push(Life { bytes: bytes(&value.name, ty, maxima)?, from: defined, to });
    }
    let (addresses, scratch) = place(&lives);
    Ok(GraphPlan { graph: graph.name.clone(), addresses, scratch })
}

fn func_plan(func: &Func, maxima: &Maxima) -> Result<FuncPlan, PlanError> {
    let outs = Header::of(func).outs;
    // Results are written where the caller wants them, unless they only show another value's memory.
    let bound = |v: Value| func.node(v).is_none() || func.ty(v).state().is_some() || outs.contains(&v);
    let owned: Vec<Value> = func.values().filter(|v| !bound(*v) && func.view_of(*v).is_none()).collect();
    let mut lives = Vec::new();
    for v in &owned {
        let ty = func.ty(*v).tensor().expect("states are bound");
        let readers = func.nodes().filter(|(_, n)| n.values().any(|a| func.storage_of(a) == *v));
        let to = readers.map(|(u, _)| u.index()).max().unwrap_or(v.index());
        lives.push(Life { bytes: bytes(func.name(*v), ty, maxima)?, from: v.index(), to });
    }
    let (placed, bytes) = place(&lives);
    let address = |v: Value| owned.iter().position(|o| *o == func.storage_of(v)).map(|i| placed[i]);
    let addresses = func.values().map(|v| if bound(v) { None } else { address(v) }).collect();
    Ok(FuncPlan { func: func.name.clone(), addresses, bytes })
}

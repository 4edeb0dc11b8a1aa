//! What a compiled module needs and, on a given machine, how fast it will be.
//!
//! Everything is computed from types; no weights are read and nothing is measured.
mod groups;
mod roofline;
mod text;

use crate::cost::{Cost, func_cost, weight_bytes};
use crate::{Machine, Target};
use ds4_ir::Module;
use ds4_ir::plan::{Maxima, Plan, state_bytes};
pub use groups::{Group, groups};
pub use roofline::{Limit, Prediction, decode_tokens_s, int8_seconds};
use serde::Serialize;

/// Contexts at which states are reported, in tokens.
const CONTEXTS: [u32; 3] = [4 << 10, 64 << 10, 1 << 20];
/// Tokens of a prefill step.
const PREFILL: u32 = 512;
/// Context of a short conversation, in tokens.
const SHORT: u32 = 4096;

/// The report of a compiled module.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Name of the module.
    pub model: String,
    /// Target.
    pub target: String,
    /// Numeric class.
    pub class: String,
    /// Context in tokens.
    pub ctx: u32,
    /// Functions that graph `main` calls.
    pub functions: Vec<Function>,
    /// One decoded token at a short context, and at the longest.
    pub decode: [Step; 2],
    /// One step of a long prompt.
    pub prefill: Step,
    /// Weights by what they are for.
    pub weights: Vec<Group>,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Arena per bucket.
    pub arena: Vec<Arena>,
    /// Bytes that one more token adds to the states of a session, far from its start.
    pub state_bytes_per_token: f64,
    /// States of a session at some contexts.
    pub states: Vec<States>,
    /// Weights, largest arena and the states of one session at the longest context, in bytes.
    pub peak_bytes: u64,
    /// With a machine profile: what to expect of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

/// A function that `main` calls.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Function {
    /// Name.
    pub name: String,
    /// Calls in a step.
    pub calls: u64,
    /// Cost of one call for one token at the longest context.
    pub token: Figures,
    /// Cost of one call in a step of a long prompt.
    pub prefill: Figures,
}

/// The figures of a [`Cost`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Figures {
    /// Launches.
    pub launches: u64,
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of states.
    pub states: u64,
    /// Bytes of values.
    pub values: u64,
    /// Multiplications and additions in floating point.
    pub flops: u64,
    /// Multiplications and additions of 8-bit integers.
    pub int_ops: u64,
}

impl From<Cost> for Figures {
    fn from(c: Cost) -> Figures {
        let Cost { launches, weights, states, values, flops, int_ops } = c;
        Figures { launches, weights, states, values, flops, int_ops }
    }
}

/// Totals of a step.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Step {
    /// Tokens.
    pub tokens: u32,
    /// Context in tokens.
    pub ctx: u32,
    /// All launches of graph `main`.
    pub total: Figures,
}

/// The arena of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Arena {
    /// Most tokens of a step.
    pub tokens: u32,
    /// Bytes.
    pub bytes: u64,
}

/// The states of one session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct States {
    /// Context in tokens.
    pub ctx: u32,
    /// Bytes allocated.
    pub bytes: u64,
}

/// Reports on a compiled module. `machine` adds predictions.
///
/// # Panics
/// If the module has no graph `main`, or holds ops that the target has no kernel for.
pub fn report(module: &Module, plan: &Plan, target: Target, machine: Option<&Machine>) -> Report {
    let main = module.graph("main").expect("a model has a graph main");
    let calls = |i: usize| main.calls.iter().filter(|c| c.func == i).count() as u64;
    let token = sizes(1, module.ctx);
    let prompt = sizes(PREFILL.min(module.ctx), module.ctx);
    let functions = module.funcs.iter().enumerate().filter(|(i, _)| calls(*i) > 0).map(|(i, f)| Function {
        name: f.name.clone(),
        calls: calls(i),
        token: func_cost(f, target, &token).into(),
        prefill: func_cost(f, target, &prompt).into(),
    });
    let step = |sizes: Maxima| Step {
        tokens: sizes.tokens,
        ctx: sizes.ctx,
        total: step_cost(module, target, &sizes).into(),
    };
    let short = sizes(1, SHORT.min(module.ctx));
    let states = |ctx: u32| module.states.iter().map(|s| state_bytes(&s.ty, ctx)).sum::<u64>();
    let arena: Vec<Arena> =
        plan.buckets.iter().map(|b| Arena { tokens: b.maxima.tokens, bytes: b.arena_bytes }).collect();
    let weight_bytes = module.weights.iter().map(|w| weight_bytes(&w.ty)).sum();
    let largest = arena.iter().map(|a| a.bytes).max().unwrap_or(0);
    let far = (states(1 << 20) - states(1 << 19)) as f64 / f64::from(1 << 19);
    Report {
        model: module.name.clone(),
        target: target.to_string(),
        class: module.class.to_string(),
        ctx: module.ctx,
        functions: functions.collect(),
        decode: [step(short), step(token)],
        prefill: step(prompt),
        weights: groups(module),
        weight_bytes,
        arena,
        state_bytes_per_token: far,
        states: CONTEXTS.iter().map(|ctx| States { ctx: *ctx, bytes: states(*ctx) }).collect(),
        peak_bytes: weight_bytes + largest + states(module.ctx),
        prediction: machine.and_then(|m| roofline::predict(module, target, m, [short, token, prompt])),
    }
}

/// Sizes of a step; a prompt wants the logits of its last position only.
fn sizes(tokens: u32, ctx: u32) -> Maxima {
    Maxima { tokens, wanted: 1, ctx }
}

/// The cost of all calls of graph `main`.
pub(crate) fn step_cost(module: &Module, target: Target, sizes: &Maxima) -> Cost {
    let main = module.graph("main").expect("a model has a graph main");
    let costs: Vec<Cost> = module.funcs.iter().map(|f| func_cost(f, target, sizes)).collect();
    main.calls.iter().map(|c| costs[c.func]).sum()
}

impl Report {
    /// The report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }
}

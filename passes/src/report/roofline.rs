//! Predicted speed: each launch takes as long as its slower side, memory or arithmetic.
use super::step_cost;
use crate::cost::{Cost, launch_cost};
use crate::{Device, Machine, Target};
use ds4_ir::plan::Maxima;
use ds4_ir::{Func, Module};
use serde::Serialize;

/// What holds a step back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Bytes to be moved.
    Memory,
    /// Multiplications and additions.
    Arithmetic,
    /// The launches themselves.
    Launches,
}

/// What to expect of a machine.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Prediction {
    /// The machine.
    pub machine: String,
    /// Whether weights, arena and states fit the device's memory.
    pub fits: bool,
    /// Decoded tokens per second at a short context.
    pub decode_tokens_s: f64,
    /// What holds it back.
    pub decode_limit: Limit,
    /// Decoded tokens per second at the longest context.
    pub decode_full_tokens_s: f64,
    /// What holds it back.
    pub decode_full_limit: Limit,
    /// Tokens of a long prompt per second.
    pub prefill_tokens_s: f64,
    /// What holds it back.
    pub prefill_limit: Limit,
}

/// Predicts steps of the three sizes; `None` if the machine has no such device.
pub(super) fn predict(
    module: &Module,
    target: Target,
    machine: &Machine,
    [short, full, prompt]: [Maxima; 3],
) -> Option<Prediction> {
    let device = machine.devices.get(&target.to_string())?;
    let speed = |sizes: &Maxima| {
        let time = step(module, target, device, sizes);
        (round(f64::from(sizes.tokens) / time.total()), time.limit())
    };
    let (decode_tokens_s, decode_limit) = speed(&short);
    let (decode_full_tokens_s, decode_full_limit) = speed(&full);
    let (prefill_tokens_s, prefill_limit) = speed(&prompt);
    Some(Prediction {
        machine: machine.name.clone(),
        fits: needed(module) <= device.memory_bytes,
        decode_tokens_s,
        decode_limit,
        decode_full_tokens_s,
        decode_full_limit,
        prefill_tokens_s,
        prefill_limit,
    })
}

/// Decoded tokens per second at a context of `ctx` tokens, by the same roofline as
/// [`Report::prediction`](super::Report); `None` if the machine has no such device.
///
/// # Panics
/// If the module has no graph `main`, or holds ops that the target has no kernel for.
pub fn decode_tokens_s(module: &Module, target: Target, machine: &Machine, ctx: u32) -> Option<f64> {
    let device = machine.devices.get(&target.to_string())?;
    Some(round(1.0 / step(module, target, device, &Maxima { tokens: 1, wanted: 1, ctx }).total()))
}

/// The integer operations of a prompt of `tokens` tokens that is one step, over those that the machine does
/// in a second; `None` if the machine has no such device.
///
/// # Panics
/// As [`decode_tokens_s`].
pub fn int8_seconds(module: &Module, target: Target, machine: &Machine, tokens: u32) -> Option<f64> {
    let device = machine.devices.get(&target.to_string())?;
    let sizes = Maxima { tokens, wanted: 1, ctx: tokens };
    Some(step_cost(module, target, &sizes).int_ops as f64 / (device.i8_gop_s * 1e9))
}

/// Bytes of weights and states, without the arena, which is small beside them.
fn needed(module: &Module) -> u64 {
    let weights: u64 = module.weights.iter().map(|w| crate::weight_bytes(&w.ty)).sum();
    let states: u64 = module.states.iter().map(|s| ds4_ir::plan::state_bytes(&s.ty, module.ctx)).sum();
    weights + states
}

/// Seconds by what they are spent on.
#[derive(Clone, Copy, Default)]
struct Time {
    memory: f64,
    arithmetic: f64,
    launches: f64,
}

impl Time {
    fn total(&self) -> f64 {
        self.memory + self.arithmetic + self.launches
    }

    fn limit(&self) -> Limit {
        if self.launches >= self.memory.max(self.arithmetic) {
            Limit::Launches
        } else if self.arithmetic > self.memory {
            Limit::Arithmetic
        } else {
            Limit::Memory
        }
    }

    fn add(&mut self, cost: &Cost, device: &Device) {
        let memory = cost.bytes() as f64 / (device.read_gb_s * 1e9);
        let arithmetic =
            cost.flops as f64 / (device.f32_gflop_s * 1e9) + cost.int_ops as f64 / (device.i8_gop_s * 1e9);
        // Of a launch only the slower side counts.
        if memory >= arithmetic {
            self.memory += memory;
        } else {
            self.arithmetic += arithmetic;
        }
        self.launches += cost.launches as f64 * device.launch_us * 1e-6;
    }
}

fn step(module: &Module, target: Target, device: &Device, sizes: &Maxima) -> Time {
    let of_func = |func: &Func| {
        let mut time = Time::default();
        for launch in func.launches() {
            time.add(&launch_cost(func, &launch, target, sizes), device);
        }
        time
    };
    let times: Vec<Time> = module.funcs.iter().map(of_func).collect();
    let main = module.graph("main").expect("a model has a graph main");
    main.calls.iter().map(|c| times[c.func]).fold(Time::default(), |a, b| Time {
        memory: a.memory + b.memory,
        arithmetic: a.arithmetic + b.arithmetic,
        launches: a.launches + b.launches,
    })
}

/// Three digits are more than a prediction is worth.
fn round(x: f64) -> f64 {
    let scale = 10f64.powi(2 - x.abs().max(1e-9).log10().floor() as i32);
    (x * scale).round() / scale
}

//! What functions and launches of a target cost: the costs of their nodes, and their launches.
use crate::Target;
use ds4_ir::plan::Maxima;
use ds4_ir::{Func, Value};
use std::collections::BTreeSet;

pub use ds4_ir::cost::{Cost, Site, weight_bytes};
pub(crate) use ds4_ir::cost::{args_of, bytes, elements};

/// The cost of one call of a function.
///
/// # Panics
/// If the target has no kernel for a node.
pub fn func_cost(func: &Func, target: Target, maxima: &Maxima) -> Cost {
    func.launches().iter().map(|launch| launch_cost(func, launch, target, maxima)).sum()
}

/// The cost of a block or of a node alone. What several members read is counted for each weight and state,
/// and once for each value.
///
/// # Panics
/// If the target has no kernel for a member.
pub fn launch_cost(func: &Func, launch: &[Value], target: Target, maxima: &Maxima) -> Cost {
    let name = |v: &Value| func.node(*v).expect("launches are nodes").op.name;
    let launches = target.block(func, launch, maxima);
    let launches = launches.unwrap_or_else(|| {
        panic!("{target} has no kernel for one of {:?}", launch.iter().map(name).collect::<Vec<_>>())
    });
    let mut total = Cost { launches, ..Cost::default() };
    let mut read: BTreeSet<Value> = BTreeSet::new();
    for v in launch {
        let node = func.node(*v).expect("launches are nodes");
        let args = args_of(func, *v);
        let site = Site { op: node.op, args: &args, ty: func.ty(*v) };
        let cost = site.cost(maxima);
        total.weights += cost.weights;
        total.states += cost.states;
        total.flops += cost.flops;
        total.int_ops += cost.int_ops;
        total.values += func.ty(*v).tensor().map_or(0, |t| bytes(t, maxima));
        for a in node.values().map(|a| func.storage_of(a)).filter(|a| read.insert(*a)) {
            total.values += func.ty(a).tensor().map_or(0, |t| bytes(t, maxima));
        }
    }
    total
}

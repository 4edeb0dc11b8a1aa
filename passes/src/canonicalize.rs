//! One node per value: equal nodes are merged, nodes that nothing needs are dropped.
use crate::rebuild::Rebuild;
use ds4_ir::{Func, Node, Value};
use std::collections::{BTreeSet, HashMap};

/// The function without repetitions and without dead nodes.
pub fn canonicalize(func: &Func) -> Func {
    let live = live(func);
    let mut r = Rebuild::new(func);
    let mut known: HashMap<Node, Value> = HashMap::new();
    let mut returned = BTreeSet::new();
    for (v, node) in func.nodes().filter(|(v, _)| live.contains(v)) {
        let node = r.node(node);
        let is_result = func.results.contains(&v);
        // Each result has a place of its own, so two results stay two nodes. Writes never repeat:
        // a version is consumed once.
        match known.get(&node) {
            Some(twin) if !(is_result && returned.contains(twin)) => r.alias(v, *twin),
            _ => {
                r.define(v, node.clone());
                known.insert(node, r.get(v));
            }
        }
        if is_result {
            returned.insert(r.get(v));
        }
    }
    r.finish()
}

/// The values that results depend on.
fn live(func: &Func) -> BTreeSet<Value> {
    let mut live: BTreeSet<Value> = func.results.iter().copied().collect();
    for v in func.values().rev() {
        if live.contains(&v) {
            live.extend(func.node(v).into_iter().flat_map(Node::values));
        }
    }
    live
}

/// The text of a function up to the names and the order of its nodes: nodes as the results need
/// them, operands first, named by number.
pub fn normal_form(func: &Func) -> String {
    let mut r = Rebuild::new(func);
    let mut done: BTreeSet<Value> = func.inputs().collect();
    let mut stack: Vec<Value> = func.results.iter().rev().copied().collect();
    while let Some(v) = stack.pop() {
        if done.contains(&v) {
            continue;
        }
        let node = func.node(v).expect("inputs are done");
        let missing: Vec<Value> = node.values().filter(|a| !done.contains(a)).collect();
        if missing.is_empty() {
            r.copy(v);
            done.insert(v);
        } else {
            stack.push(v);
            stack.extend(missing.into_iter().rev());
        }
    }
    let ordered = r.finish();
    let mut named = Func::new(&ordered.name);
    let mut map = HashMap::new();
    for (i, v) in ordered.values().enumerate() {
        let new = match ordered.node(v) {
            None => named.input(ordered.name(v), ordered.ty(v).clone()),
            Some(node) => {
                let arg = |a: &ds4_ir::Arg| match a {
                    ds4_ir::Arg::Value(v) => ds4_ir::Arg::Value(map[v]),
                    other => other.clone(),
                };
                let node = Node { op: node.op, args: node.args.iter().map(arg).collect() };
                named.push(format!("{i}"), ordered.ty(v).clone(), node)
            }
        };
        map.insert(v, new);
    }
    for w in ordered.weights() {
        named.declare(ordered.weight_name(w), ordered.weight_type(w).clone());
    }
    named.results = ordered.results.iter().map(|v| map[v]).collect();
    named.to_string()
}

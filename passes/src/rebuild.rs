//! Copies of a function with other nodes or another order, and what orders its nodes.
use ds4_ir::{Arg, Func, Node, Type, Value};
use std::collections::BTreeMap;

/// A copy under construction: the header of a function, then nodes of the caller's choice.
pub(crate) struct Rebuild<'a> {
    from: &'a Func,
    pub(crate) out: Func,
    map: BTreeMap<Value, Value>,
}

impl<'a> Rebuild<'a> {
    /// Starts with the inputs and weights of `from`, which keep their order: calls bind by it.
    pub(crate) fn new(from: &'a Func) -> Rebuild<'a> {
        let mut out = Func::new(&from.name);
        let mut map = BTreeMap::new();
        for v in from.inputs() {
            map.insert(v, out.input(from.name(v), from.ty(v).clone()));
        }
        for w in from.weights() {
            out.declare(from.weight_name(w), from.weight_type(w).clone());
        }
        Rebuild { from, out, map }
    }

    /// The copy of a value.
    pub(crate) fn get(&self, v: Value) -> Value {
        self.map[&v]
    }

    /// An operand, read from the copy.
    pub(crate) fn arg(&self, arg: &Arg) -> Arg {
        match arg {
            Arg::Value(v) => Arg::Value(self.map[v]),
            other => other.clone(),
        }
    }

    /// A node whose operands are read from the copy.
    pub(crate) fn node(&self, node: &Node) -> Node {
        Node { op: node.op, args: node.args.iter().map(|a| self.arg(a)).collect() }
    }

    /// Copies the node of `v` as it is.
    pub(crate) fn copy(&mut self, v: Value) {
        let node = self.node(self.from.node(v).expect("only nodes are copied"));
        self.define(v, node);
    }

    /// Defines the copy of `v` by another node.
    pub(crate) fn define(&mut self, v: Value, node: Node) {
        let new = self.out.push(self.from.name(v), self.from.ty(v).clone(), node);
        self.map.insert(v, new);
    }

    /// Lets `v` stand for a value that the copy has already.
    pub(crate) fn alias(&mut self, v: Value, existing: Value) {
        self.map.insert(v, existing);
    }

    /// The copy, returning what the original returns.
    pub(crate) fn finish(mut self) -> Func {
        self.out.results = self.from.results.iter().map(|v| self.map[v]).collect();
        self.out
    }
}

/// What must run before each launch: indices into `launches`, ascending.
///
/// A launch follows those whose results it reads, and a write follows every reader of the version
/// that it consumes.
pub(crate) fn before(func: &Func, launches: &[Vec<Value>]) -> Vec<Vec<usize>> {
    let mut launch_of = BTreeMap::new();
    for (i, launch) in launches.iter().enumerate() {
        launch.iter().for_each(|v| {
            launch_of.insert(*v, i);
        });
    }
    let mut readers: BTreeMap<Value, Vec<usize>> = BTreeMap::new();
    for (i, v) in launches.iter().enumerate().flat_map(|(i, l)| l.iter().map(move |v| (i, v))) {
        for a in func.node(*v).into_iter().flat_map(Node::values) {
            if matches!(func.ty(a), Type::State(_)) {
                readers.entry(a).or_default().push(i);
            }
        }
    }
    let mut before = Vec::new();
    for (i, launch) in launches.iter().enumerate() {
        let mut all: Vec<usize> = Vec::new();
        for node in launch.iter().filter_map(|v| func.node(*v)) {
            all.extend(node.values().filter_map(|a| launch_of.get(&func.storage_of(a))));
            if let Some(state) = node.consumes() {
                all.extend(readers.get(&state).into_iter().flatten());
            }
        }
        all.sort_unstable();
        all.dedup();
        all.retain(|j| *j != i);
        before.push(all);
    }
    before
}

/// Copies `func` with its launches in the given order; blocks of more than one node become `launch`
/// blocks. A view stands right after what it shows.
pub(crate) fn reorder(func: &Func, launches: &[Vec<Value>]) -> Func {
    let mut r = Rebuild::new(func);
    let views = |of: Value| {
        let mine = move |v: &Value| func.view_of(*v).is_some() && func.storage_of(*v) == of;
        func.values().filter(mine).collect::<Vec<_>>()
    };
    func.inputs().flat_map(views).for_each(|v| r.copy(v));
    for launch in launches {
        if launch.len() > 1 {
            r.out.open_launch();
        }
        launch.iter().for_each(|v| r.copy(*v));
        if launch.len() > 1 {
            r.out.close_launch();
        }
        launch.iter().flat_map(|v| views(*v)).for_each(|v| r.copy(v));
    }
    r.finish()
}

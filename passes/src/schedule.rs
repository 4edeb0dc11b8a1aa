//! Orders the launches so that little memory is needed at a time.
//!
//! Of the launches that may come next the one that frees most goes first. What may run at once then
//! stands side by side: [`Func::waves`] reads it off the order.
use crate::cost::bytes;
use crate::rebuild::{before, reorder};
use ds4_ir::plan::Maxima;
use ds4_ir::{Func, Node, Value};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Orders a packed function for steps of the given sizes.
pub fn schedule(func: &Func, maxima: &Maxima) -> Func {
    let launches = func.launches();
    let mut graph: DiGraph<usize, ()> = DiGraph::new();
    let nodes: Vec<NodeIndex> = (0..launches.len()).map(|i| graph.add_node(i)).collect();
    for (i, needs) in before(func, &launches).iter().enumerate() {
        needs.iter().for_each(|j| {
            graph.add_edge(nodes[*j], nodes[i], ());
        });
    }
    assert!(!petgraph::algo::is_cyclic_directed(&graph), "@{} has launches in a cycle", func.name);
    let mut memory = Memory::new(func, &launches, maxima);
    let mut waiting: Vec<usize> =
        nodes.iter().map(|n| graph.neighbors_directed(*n, Direction::Incoming).count()).collect();
    let mut ready: BTreeSet<usize> = (0..launches.len()).filter(|i| waiting[*i] == 0).collect();
    let mut order = Vec::new();
    while let Some(next) = ready.iter().copied().min_by_key(|i| (memory.growth(&launches[*i]), *i)) {
        ready.remove(&next);
        memory.run(&launches[next]);
        order.push(launches[next].clone());
        for after in graph.neighbors(nodes[next]) {
            waiting[after.index()] -= 1;
            if waiting[after.index()] == 0 {
                ready.insert(after.index());
            }
        }
    }
    reorder(func, &order)
}

/// Which values wait for how many more launches.
struct Memory<'a> {
    func: &'a Func,
    readers: BTreeMap<Value, usize>,
    bytes: BTreeMap<Value, i64>,
}

impl Memory<'_> {
    fn new<'a>(func: &'a Func, launches: &[Vec<Value>], maxima: &Maxima) -> Memory<'a> {
        let mut memory = Memory { func, readers: BTreeMap::new(), bytes: BTreeMap::new() };
        for (v, _) in func.nodes().filter(|(v, _)| func.view_of(*v).is_none()) {
            // Results and states are not the function's to free.
            let size = func.ty(v).tensor().filter(|_| !func.results.contains(&v));
            let size = size.map_or(0, |ty| i64::try_from(bytes(ty, maxima)).unwrap_or(i64::MAX / 1024));
            memory.bytes.insert(v, size);
        }
        for launch in launches {
            for a in memory.operands(launch) {
                *memory.readers.entry(a).or_default() += 1;
            }
        }
        memory
    }

    fn operands(&self, launch: &[Value]) -> BTreeSet<Value> {
        let nodes = launch.iter().filter_map(|v| self.func.node(*v));
        nodes.flat_map(Node::values).map(|a| self.func.storage_of(a)).collect()
    }

    /// Bytes that live after the launch and did not before.
    fn growth(&self, launch: &[Value]) -> i64 {
        let made: i64 = launch.iter().map(|v| self.bytes.get(v).copied().unwrap_or(0)).sum();
        let last = self.operands(launch).into_iter().filter(|a| self.readers[a] == 1);
        let freed: i64 = last.map(|a| self.bytes.get(&a).copied().unwrap_or(0)).sum();
        made - freed
    }

    fn run(&mut self, launch: &[Value]) {
        for a in self.operands(launch) {
            *self.readers.get_mut(&a).expect("counted") -= 1;
        }
    }
}

//! Replays a plan on labelled memory: every operand must still hold the value it names.
//!
//! It shares no code with the placement and runs on every plan ever made.
use super::{ALIGN, Bucket, Maxima, Plan};
use crate::module::{Call, Graph, Header};
use crate::{Func, Module, Node, Type, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with a plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bucket of {tokens} tokens, {place}: {message}")]
pub struct PlanCheckError {
    /// Bucket.
    pub tokens: u32,
    /// Graph, call and value.
    pub place: String,
    /// What happens there.
    pub message: String,
}

/// Who wrote a stretch of the arena last: starts of stretches and their labels.
struct Memory {
    size: u64,
    owners: BTreeMap<u64, (u64, String)>,
}

impl Memory {
    fn write(&mut self, at: u64, bytes: u64, label: &str) -> Result<(), String> {
        let end = at.checked_add(bytes).filter(|end| *end <= self.size);
        let end = end.ok_or_else(|| format!("{at:#x} + {bytes} lies outside {} bytes", self.size))?;
        if !at.is_multiple_of(ALIGN) {
            return Err(format!("{at:#x} is not aligned to {ALIGN}"));
        }
        let hit: Vec<u64> =
            self.owners.range(..end).filter(|(_, (to, _))| *to > at).map(|(from, _)| *from).collect();
        for from in hit {
            let (to, label) = self.owners.remove(&from).expect("just listed");
            if from < at {
                self.owners.insert(from, (at, label.clone()));
            }
            if to > end {
                self.owners.insert(end, (to, label));
            }
        }
        self.owners.insert(at, (end, label.to_string()));
        Ok(())
    }

    fn read(&self, at: u64, bytes: u64, label: &str) -> Result<(), String> {
        match self.owners.get(&at) {
            Some((end, owner)) if owner == label && *end >= at + bytes => Ok(()),
            Some((_, owner)) => Err(format!("reads {label} at {at:#x}, where {owner} lies")),
            None => Err(format!("reads {label} at {at:#x}, which was overwritten")),
        }
    }
}

/// See [`Plan::check`].
pub(super) fn check(module: &Module, plan: &Plan) -> Result<(), PlanCheckError> {
    if plan.launches.len() != module.funcs.len() {
        let message = format!("expected {} launch lists, got {}", module.funcs.len(), plan.launches.len());
        return Err(PlanCheckError { tokens: 0, place: "the plan".to_string(), message });
    }
    for (func, list) in module.funcs.iter().zip(&plan.launches) {
        let runs: Vec<&str> =
            func.nodes().filter(|(v, _)| func.view_of(*v).is_none()).map(|(v, _)| func.name(v)).collect();
        if list.func != func.name || list.launches != runs {
            let (place, message) = (format!("@{}", func.name), "launches other nodes".to_string());
            return Err(PlanCheckError { tokens: 0, place, message });
        }
    }
    for bucket in &plan.buckets {
        for (g, graph) in module.graphs.iter().enumerate() {
            replay(module, bucket, g, graph)?;
        }
    }
    Ok(())
}

fn replay(module: &Module, bucket: &Bucket, g: usize, graph: &Graph) -> Result<(), PlanCheckError> {
    let fail =
        |place: String, message: String| PlanCheckError { tokens: bucket.maxima.tokens, place, message };
    let at_graph = format!("@{}", graph.name);
    let parts = (bucket.graphs.get(g), bucket.funcs.len() == module.funcs.len());
    let (Some(plan), true) = parts else {
        return Err(fail(at_graph, "the plan has other graphs or functions".to_string()));
    };
    if plan.parts.len() != graph.calls.len() {
        return Err(fail(at_graph, format!("{} parts for {} calls", plan.parts.len(), graph.calls.len())));
    }
    if plan.addresses.len() != graph.values.len() {
        return Err(fail(
            at_graph,
            format!("{} addresses for {} values", plan.addresses.len(), graph.values.len()),
        ));
    }
    let mut memory = Memory { size: bucket.arena_bytes, owners: BTreeMap::new() };
    let size =
        |id: usize| graph.values[id].ty.tensor().and_then(|t| bucket.maxima.bytes(t)).unwrap_or(u64::MAX);
    for id in 0..graph.inputs {
        let wrote = memory.write(plan.addresses[id], size(id), &format!("graph %{}", graph.values[id].name));
        wrote.map_err(|why| fail(at_graph.clone(), why))?;
    }
    for (i, call) in graph.calls.iter().enumerate() {
        let func = &module.funcs[call.func];
        let mut run = Run { graph, call, func, bucket, index: i, plan: g, memory: &mut memory };
        run.replay().map_err(|(value, why)| {
            fail(format!("@{} call {i} of @{} %{value}", graph.name, func.name), why)
        })?;
    }
    for id in &graph.results {
        let read = memory.read(plan.addresses[*id], size(*id), &format!("graph %{}", graph.values[*id].name));
        read.map_err(|why| fail(at_graph.clone(), why))?;
    }
    Ok(())
}

/// One call being replayed.
struct Run<'a> {
    graph: &'a Graph,
    call: &'a Call,
    func: &'a Func,
    bucket: &'a Bucket,
    index: usize,
    plan: usize,
    memory: &'a mut Memory,
}

impl Run<'_> {
    /// Address, size and label of the memory behind a value.
    fn spot(&self, v: Value) -> Result<(u64, u64, String), String> {
        let maxima: &Maxima = &self.bucket.maxima;
        let header = Header::of(self.func);
        let storage = self.func.storage_of(v);
        let graph = |id: usize| {
            let value = &self.graph.values[id];
            let bytes = value.ty.tensor().and_then(|t| maxima.bytes(t)).unwrap_or(u64::MAX);
            (self.bucket.graphs[self.plan].addresses[id], bytes, format!("graph %{}", value.name))
        };
        if let Some(i) = header.tensors.iter().position(|t| *t == storage) {
            return Ok(graph(self.call.args[i]));
        }
        if let Some(i) = header.outs.iter().position(|t| *t == storage) {
            return Ok(graph(self.call.outs[i]));
        }
        let ty = self.func.ty(storage).tensor().ok_or("is a state")?;
        let bytes = maxima.bytes(ty).ok_or_else(|| format!("{ty} is too large"))?;
        let plan = &self.bucket.funcs[self.call.func];
        let own = plan.addresses.get(storage.index()).copied().flatten();
        let at = own.and_then(|own| own.checked_add(self.base())).ok_or("has no address")?;
        Ok((at, bytes, format!("%{}", self.func.name(storage))))
    }

    /// Where the function's part begins.
    fn base(&self) -> u64 {
        self.bucket.graphs[self.plan].parts[self.index]
    }

    /// Address, size and label of a kernel's scratch.
    fn scratch(&self, v: Value) -> Result<Option<(u64, u64, String)>, String> {
        let plan = &self.bucket.funcs[self.call.func];
        let Some((own, bytes)) = plan.scratch.get(v.index()).copied().ok_or("has no place for scratch")?
        else {
            return Ok(None);
        };
        let at = own.checked_add(self.base()).ok_or("has no address for scratch")?;
        Ok(Some((at, bytes, format!("scratch of %{}", self.func.name(v)))))
    }

    fn replay(&mut self) -> Result<(), (String, String)> {
        let func = self.func;
        let mut current: BTreeSet<Value> = func.inputs().filter(|v| func.ty(*v).state().is_some()).collect();
        for wave in func.waves() {
            self.wave(&wave.concat(), &mut current)?;
        }
        Ok(())
    }

    /// Nodes that may run in any order: all operands are whole before the first result is written and
    /// after the last.
    fn wave(&mut self, nodes: &[Value], current: &mut BTreeSet<Value>) -> Result<(), (String, String)> {
        let func = self.func;
        let named = |v: Value| move |why: String| (func.name(v).to_string(), why);
        let (mut operands, mut results) = (Vec::new(), Vec::new());
        let mut written = BTreeSet::new();
        for v in nodes {
            let node = func.node(*v).expect("launches are nodes");
            for a in node.values() {
                match func.ty(a) {
                    Type::Tensor(_) => operands.push((*v, self.spot(a).map_err(named(*v))?)),
                    Type::State(_) if !current.contains(&a) => {
                        return Err(named(*v)(format!("uses state %{}, which is not current", func.name(a))));
                    }
                    Type::State(_) | Type::Param(_) => {}
                }
            }
            if func.ty(*v).state().is_none() {
                results.push((*v, self.spot(*v).map_err(named(*v))?));
            }
            results.extend(self.scratch(*v).map_err(named(*v))?.map(|spot| (*v, spot)));
            if let Some(before) = node.consumes() {
                let others = nodes.iter().filter(|w| *w != v).filter_map(|w| func.node(*w));
                if !written.insert(before) || others.into_iter().any(|n| n.values().any(|a| a == before)) {
                    return Err(named(*v)(format!("consumes %{}, which its wave uses", func.name(before))));
                }
            }
        }
        self.whole(&operands, func)?;
        for (v, (at, bytes, label)) in &results {
            self.memory.write(*at, *bytes, label).map_err(named(*v))?;
        }
        self.whole(&operands, func)?;
        self.whole(&results, func)?;
        for v in nodes {
            if let Some(before) = func.node(*v).and_then(Node::consumes) {
                current.remove(&before);
                current.insert(*v);
            }
        }
        Ok(())
    }

    fn whole(&self, spots: &[(Value, (u64, u64, String))], func: &Func) -> Result<(), (String, String)> {
        for (v, (at, bytes, label)) in spots {
            self.memory.read(*at, *bytes, label).map_err(|why| (func.name(*v).to_string(), why))?;
        }
        Ok(())
    }
}

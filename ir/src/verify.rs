//! Well-formedness. Every pass runs this on its way out, the runtime on what it loads.
//!
//! - inputs come before nodes, as the text has them;
//! - types are those of something that can lie in memory;
//! - names are unique, operands are defined before use and stand where the op's row takes them;
//! - every node's type is the one that the op's row infers;
//! - a state version is consumed by at most one write, so writes may be in place;
//! - no version is read after it is consumed;
//! - the last version of every state is returned, and no other;
//! - the nodes of a `launch { }` block may run in any order and at once: none reads what another one
//!   computes or writes.
//!
//! For modules: names are unique, every binding exists and has the type that the function's header
//! declares, every graph value is a tensor that is defined once and before it is read, and no two calls
//! of a graph share a state.
use crate::module::{Call, Decl, Graph, Header, Module};
use crate::ops::{Sig, SigArg};
use crate::{Arg, Dim, Func, Node, Scalar, TensorType, Type, Value};
use std::collections::BTreeSet;
use std::fmt;

/// One violation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyError {
    /// What is wrong: `@func %value` or a declaration.
    pub place: String,
    /// What was expected and what came.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}
impl std::error::Error for VerifyError {}

/// The type of a node's result, inferred from its operands.
///
/// # Errors
/// Why the op does not take these operands.
pub fn infer(func: &Func, node: &Node) -> Result<Type, String> {
    let formals: Vec<_> = node.op.operands().collect();
    if formals.len() != node.args.len() {
        return Err(format!("`{}` takes {} operands, got {}", node.op.name, formals.len(), node.args.len()));
    }
    let mut args = Vec::new();
    for (arg, formal) in node.args.iter().zip(&formals) {
        args.push(match arg {
            Arg::Value(v) if formal.takes_value() => SigArg::Value(func.ty(*v)),
            Arg::Weight(w) if formal.takes_weight() => SigArg::Weight(func.weight_type(*w)),
            Arg::Lit(lit) if formal.is_literal() => SigArg::Lit(lit),
            _ => return Err(format!("`{}` takes {formal}", node.op.name)),
        });
    }
    node.op.infer(&Sig { args })
}

/// Checks a function.
///
/// # Errors
/// Every violation found.
pub fn verify(func: &Func) -> Result<(), Vec<VerifyError>> {
    let mut check = Check { func, errors: Vec::new() };
    check.names();
    check.types();
    check.states();
    check.launches();
    if check.errors.is_empty() { Ok(()) } else { Err(check.errors) }
}

/// Why nothing of this type can lie in memory.
fn fault(ty: &Type) -> Option<String> {
    let (scalar, width, empty) = match ty {
        Type::Tensor(t) | Type::Param(t) => {
            (t.scalar, t.dims.last().and_then(|d| d.constant()), t.dims.contains(&Dim::Const(0)))
        }
        Type::State(s) => (s.scalar, Some(s.width), s.width == 0),
    };
    match (scalar, width) {
        _ if empty => Some(format!("expected extents above 0, got {ty}")),
        (Scalar::Kv8 { rope }, width) if width.is_none_or(|w| w <= u32::from(rope)) => {
            Some(format!("expected more than {rope} channels, got {ty}"))
        }
        _ => None,
    }
}

/// Why no weight or parameter has this type.
fn fixed_fault(ty: &TensorType) -> Option<String> {
    if ty.constants().is_none_or(|dims| dims.is_empty() || dims.contains(&0) || dims.len() > 3) {
        return Some(format!("expected 1 to 3 constant extents above 0, got {ty}"));
    }
    fault(&Type::Tensor(ty.clone()))
}

struct Check<'a> {
    func: &'a Func,
    errors: Vec<VerifyError>,
}

impl Check<'_> {
    fn fail(&mut self, v: Value, message: String) {
        let place = format!("@{} %{}", self.func.name, self.func.name(v));
        self.errors.push(VerifyError { place, message });
    }

    fn names(&mut self) {
        let mut seen = BTreeSet::new();
        for v in self.func.values() {
            if !seen.insert(self.func.name(v)) {
                self.fail(v, "is defined twice".to_string());
            }
        }
        let first_node = self.func.nodes().next().map(|(v, _)| v);
        if let Some(late) = self.func.inputs().find(|v| first_node.is_some_and(|n| *v > n)) {
            self.fail(late, "is an input after a node".to_string());
        }
        let mut weights = BTreeSet::new();
        for w in self.func.weights() {
            let (name, ty) = (self.func.weight_name(w), self.func.weight_type(w));
            let place = format!("@{} @{name}", self.func.name);
            if !weights.insert(name) {
                self.errors.push(VerifyError { place, message: "is declared twice".to_string() });
            } else if let Some(message) = fixed_fault(ty) {
                self.errors.push(VerifyError { place, message });
            }
        }
        for v in self.func.inputs().collect::<Vec<_>>() {
            if let Some(message) = fault(self.func.ty(v)) {
                self.fail(v, message);
            }
        }
    }

    fn types(&mut self) {
        for (v, node) in self.func.nodes() {
            if let Some(later) = node.values().find(|a| *a >= v) {
                self.fail(v, format!("uses %{} before its definition", self.func.name(later)));
                continue;
            }
            match infer(self.func, node) {
                Err(why) => self.fail(v, format!("`{}`: {why}", node.op.name)),
                Ok(ty) if ty != *self.func.ty(v) => {
                    self.fail(v, format!("`{}` gives {ty}, declared {}", node.op.name, self.func.ty(v)));
                }
                Ok(_) => {}
            }
        }
    }

    fn launches(&mut self) {
        let func = self.func;
        for launch in func.launches().iter().filter(|l| l.len() > 1) {
            for v in launch {
                for a in func.node(*v).into_iter().flat_map(Node::values) {
                    let name = func.name(a);
                    if launch.contains(&func.storage_of(a)) {
                        self.fail(*v, format!("reads %{name} of its own launch"));
                    } else if launch
                        .iter()
                        .any(|w| w != v && func.node(*w).and_then(Node::consumes) == Some(a))
                    {
                        self.fail(*v, format!("reads %{name}, which its own launch consumes"));
                    }
                }
            }
        }
    }

    fn states(&mut self) {
        let func = self.func;
        let mut consumed = BTreeSet::new();
        for (v, node) in func.nodes() {
            let written = node.op.writes();
            for (i, arg) in node.args.iter().enumerate() {
                let Arg::Value(a) = arg else { continue };
                if consumed.contains(a) {
                    let verb = if Some(i) == written { "consumes" } else { "reads" };
                    self.fail(v, format!("{verb} %{} after it was consumed", func.name(*a)));
                }
            }
            consumed.extend(node.consumes());
        }
        for v in func.values().filter(|v| func.ty(*v).state().is_some()) {
            let returned = func.results.iter().filter(|r| **r == v).count();
            match (consumed.contains(&v), returned) {
                (false, 1) | (true, 0) => {}
                (false, 0) => self.fail(v, "last state version is not returned".to_string()),
                (true, _) => self.fail(v, "is returned after it was consumed".to_string()),
                (false, n) => self.fail(v, format!("is returned {n} times")),
            }
        }
    }
}

/// Checks a module and all its functions.
///
/// # Errors
/// Every violation found.
pub fn verify_module(module: &Module) -> Result<(), Vec<VerifyError>> {
    let mut errors = Vec::new();
    let mut fail = |place: String, message: String| errors.push(VerifyError { place, message });
    unique("weight", module.weights.iter().map(|d| &d.name), &mut fail);
    unique("state", module.states.iter().map(|d| &d.name), &mut fail);
    unique("param", module.params.iter().map(|d| &d.name), &mut fail);
    unique("func", module.funcs.iter().map(|d| &d.name), &mut fail);
    unique("graph", module.graphs.iter().map(|d| &d.name), &mut fail);
    let weights = module.weights.iter().map(|w| (format!("weight {}", w.name), fixed_fault(&w.ty)));
    let params = module.params.iter().map(|p| (format!("param {}", p.name), fixed_fault(&p.ty)));
    let states = module.states.iter().map(|s| (format!("state {}", s.name), fault(&Type::State(s.ty))));
    for (place, why) in weights.chain(params).chain(states) {
        if let Some(why) = why {
            fail(place, why);
        }
    }
    for graph in &module.graphs {
        verify_graph(module, graph, &mut fail);
    }
    for func in &module.funcs {
        errors.extend(verify(func).err().unwrap_or_default());
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String>, fail: &mut impl FnMut(String, String)) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            fail(format!("{what} {name}"), "is declared twice".to_string());
        }
    }
}

fn verify_graph(module: &Module, graph: &Graph, fail: &mut impl FnMut(String, String)) {
    if graph.inputs > graph.values.len() {
        let message =
            format!("has {} values, expected {} inputs among them", graph.values.len(), graph.inputs);
        return fail(format!("@{}", graph.name), message);
    }
    let mut states = BTreeSet::new();
    let mut defined: BTreeSet<usize> = (0..graph.inputs).collect();
    for (i, call) in graph.calls.iter().enumerate() {
        let Some(func) = module.funcs.get(call.func) else {
            fail(format!("@{} call {i}", graph.name), format!("there is no function {}", call.func));
            continue;
        };
        let place = format!("@{} call {i} of @{}", graph.name, func.name);
        if let Err(why) = verify_call(module, graph, func, call) {
            fail(place.clone(), why);
        }
        if let Some(id) = call.args.iter().find(|id| !defined.contains(id)) {
            fail(place.clone(), format!("reads graph value {id} before its definition"));
        }
        if let Some(id) = call.outs.iter().find(|id| !defined.insert(**id)) {
            fail(place.clone(), format!("defines graph value {id} a second time"));
        }
        if let Some(id) = call.states.iter().find(|id| !states.insert(**id)) {
            let name = module.states.get(*id).map_or_else(|| id.to_string(), |s| s.name.clone());
            fail(place, format!("binds state {name} a second time"));
        }
    }
    for (id, value) in graph.values.iter().enumerate() {
        let why = match &value.ty {
            Type::Tensor(_) if !defined.contains(&id) => Some("is never defined".to_string()),
            Type::Tensor(_) => fault(&value.ty).filter(|_| id < graph.inputs),
            other => Some(format!("expected a tensor, got {other}")),
        };
        if let Some(why) = why {
            fail(format!("@{} value {}", graph.name, value.name), why);
        }
    }
    if let Some(id) = graph.results.iter().find(|id| !defined.contains(id)) {
        fail(format!("@{}", graph.name), format!("returns graph value {id}, which no call defines"));
    }
    unique(&format!("@{} value", graph.name), graph.values.iter().map(|v| &v.name), fail);
}

fn verify_call(module: &Module, graph: &Graph, func: &Func, call: &Call) -> Result<(), String> {
    let header = Header::of(func);
    let value = |id: usize| graph.values.get(id).map(|v| (v.name.as_str(), v.ty.clone()));
    for (formals, ids, sigil) in [(&header.tensors, &call.args, ""), (&header.outs, &call.outs, "result ")] {
        bound(func, formals, ids, sigil, value)?;
    }
    let state = |id: usize| module.states.get(id).map(|s| (s.name.as_str(), Type::State(s.ty)));
    bound(func, &header.states, &call.states, "", state)?;
    let param = |id: usize| module.params.get(id).map(|p| (p.name.as_str(), Type::Param(p.ty.clone())));
    bound(func, &header.params, &call.params, "", param)?;
    let weights: Vec<_> = func.weights().collect();
    if weights.len() != call.weights.len() {
        return Err(format!("expected {} weights, got {}", weights.len(), call.weights.len()));
    }
    for (w, id) in weights.into_iter().zip(&call.weights) {
        let decl: Option<&Decl<TensorType>> = module.weights.get(*id);
        let decl = decl.ok_or_else(|| format!("@{}: there is no weight {id}", func.weight_name(w)))?;
        if decl.ty != *func.weight_type(w) {
            let (name, expected) = (func.weight_name(w), func.weight_type(w));
            return Err(format!("@{name} = {}: expected {expected}, got {}", decl.name, decl.ty));
        }
    }
    Ok(())
}

fn bound<'a>(
    func: &Func,
    formals: &[Value],
    ids: &[usize],
    what: &str,
    actual: impl Fn(usize) -> Option<(&'a str, Type)>,
) -> Result<(), String> {
    if formals.len() != ids.len() {
        return Err(format!("expected {} {what}operands, got {}", formals.len(), ids.len()));
    }
    for (v, id) in formals.iter().zip(ids) {
        let name = func.name(*v);
        let (bound, ty) = actual(*id).ok_or_else(|| format!("{what}%{name}: nothing has number {id}"))?;
        if ty != *func.ty(*v) {
            return Err(format!("{what}%{name} = {bound}: expected {}, got {ty}", func.ty(*v)));
        }
    }
    Ok(())
}

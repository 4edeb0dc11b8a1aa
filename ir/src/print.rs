//! Functions and modules to text. `parse(print(f)) == f` is a test, not a hope.
use crate::module::{Call, Graph, Header, Module};
use crate::{Arg, Func};
use std::fmt;

impl fmt::Display for Func {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "func @{}(", self.name)?;
        for v in self.inputs() {
            writeln!(f, "    %{}: {},", self.name(v), self.ty(v))?;
        }
        for w in self.weights() {
            writeln!(f, "    @{}: {},", self.weight_name(w), self.weight_type(w))?;
        }
        writeln!(f, ") {{")?;
        let mut open = None;
        for (v, node) in self.nodes() {
            let group = self.group(v);
            if open.is_some() && open != group {
                writeln!(f, "    }}")?;
            }
            if group.is_some() && open != group {
                writeln!(f, "    launch {{")?;
            }
            open = group;
            let indent = if group.is_some() { "        " } else { "    " };
            write!(f, "{indent}%{} = {}", self.name(v), node.op.name)?;
            for (i, (arg, formal)) in node.args.iter().zip(node.op.operands()).enumerate() {
                f.write_str(if i == 0 { " " } else { ", " })?;
                match arg {
                    Arg::Value(v) => write!(f, "%{}", self.name(*v))?,
                    Arg::Weight(w) => write!(f, "@{}", self.weight_name(*w))?,
                    Arg::Lit(lit) => write!(f, "{}={lit}", formal.name)?,
                }
            }
            writeln!(f, " : {}", self.ty(v))?;
        }
        if open.is_some() {
            writeln!(f, "    }}")?;
        }
        let results: Vec<String> = self.results.iter().map(|v| format!("%{}", self.name(*v))).collect();
        writeln!(f, "    return {}\n}}", results.join(", "))
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "module @{} {{", self.name)?;
        writeln!(f, "    class {}\n    ctx {}\n    vocab {}\n}}\n", self.class, self.ctx, self.vocab)?;
        for w in &self.weights {
            writeln!(f, "weight {}: {}", w.name, w.ty)?;
        }
        for s in &self.states {
            writeln!(f, "state {}: {}", s.name, s.ty)?;
        }
        for p in &self.params {
            writeln!(f, "param {}: {}", p.name, p.ty)?;
        }
        for func in &self.funcs {
            write!(f, "\n{func}")?;
        }
        for graph in &self.graphs {
            writeln!(f)?;
            print_graph(f, self, graph)?;
        }
        Ok(())
    }
}

fn print_graph(f: &mut fmt::Formatter<'_>, module: &Module, graph: &Graph) -> fmt::Result {
    let names = |ids: &[usize]| -> String {
        let names: Vec<String> = ids.iter().map(|i| format!("%{}", graph.values[*i].name)).collect();
        names.join(", ")
    };
    let inputs: Vec<String> =
        graph.values[..graph.inputs].iter().map(|v| format!("%{}: {}", v.name, v.ty)).collect();
    writeln!(f, "graph @{}({}) {{", graph.name, inputs.join(", "))?;
    for call in &graph.calls {
        let func = &module.funcs[call.func];
        writeln!(f, "    call @{}({}) -> {} {{", func.name, names(&call.args), names(&call.outs))?;
        print_bindings(f, module, func, call)?;
        writeln!(f, "    }}")?;
    }
    writeln!(f, "    return {}\n}}", names(&graph.results))
}

fn print_bindings(f: &mut fmt::Formatter<'_>, module: &Module, func: &Func, call: &Call) -> fmt::Result {
    let header = Header::of(func);
    for (v, s) in header.states.iter().zip(&call.states) {
        writeln!(f, "        %{} = {}", func.name(*v), module.states[*s].name)?;
    }
    for (v, p) in header.params.iter().zip(&call.params) {
        writeln!(f, "        %{} = {}", func.name(*v), module.params[*p].name)?;
    }
    for (w, i) in func.weights().zip(&call.weights) {
        writeln!(f, "        @{} = {}", func.weight_name(w), module.weights[*i].name)?;
    }
    Ok(())
}

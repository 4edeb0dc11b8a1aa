//! A module: functions, what they are bound to, and the graphs that call them.
//!
//! Layers share a function when their headers are equal; a graph is the list of calls with every
//! binding written out.
use crate::{Func, StateType, TensorType, Type, Value};
use std::fmt;

/// How a module rounds, chosen at compile time and spelled as nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Nothing is rounded: the mathematical model, as transformers computes it.
    Exact,
    /// The publisher's simulated quantisation (spec 6.2).
    Official,
    /// Packed states as in `official`, matmul inputs rounded as the weight's kernel wants them.
    Fast,
}

impl Class {
    /// All classes by name.
    pub const ALL: [(&'static str, Class); 3] =
        [("exact", Class::Exact), ("official", Class::Official), ("fast", Class::Fast)];

    /// Reads a name as [`fmt::Display`] writes it.
    pub fn parse(name: &str) -> Option<Class> {
        Class::ALL.iter().find(|(n, _)| *n == name).map(|(_, c)| *c)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = Class::ALL.iter().find(|(_, c)| c == self).expect("every class has a name");
        f.write_str(name)
    }
}

/// A weight, state or parameter of the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decl<T> {
    /// Name within the module, such as `blk.4.attn_q_a`.
    pub name: String,
    /// Its type.
    pub ty: T,
}

/// A value of a graph: what goes from one call to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphValue {
    /// Name without the sigil.
    pub name: String,
    /// Its type; never a state.
    pub ty: Type,
}

/// One call with every binding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Index into [`Module::funcs`].
    pub func: usize,
    /// Per tensor input of the function, in order: index into [`Graph::values`].
    pub args: Vec<usize>,
    /// Per tensor result of the function, in order: index into [`Graph::values`].
    pub outs: Vec<usize>,
    /// Per weight of the function, in order: index into [`Module::weights`].
    pub weights: Vec<usize>,
    /// Per state input of the function, in order: index into [`Module::states`].
    pub states: Vec<usize>,
    /// Per parameter input of the function, in order: index into [`Module::params`].
    pub params: Vec<usize>,
}

/// A list of calls that is run as one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Graph {
    /// Name without the sigil.
    pub name: String,
    /// Number of leading [`Graph::values`] that are inputs.
    pub inputs: usize,
    /// Inputs first, then the results of calls in order.
    pub values: Vec<GraphValue>,
    /// In execution order.
    pub calls: Vec<Call>,
    /// Indices into [`Graph::values`].
    pub results: Vec<usize>,
}

/// A compiled model's program. See [`crate::verify_module`] for what makes it well formed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Name without the sigil.
    pub name: String,
    /// Numeric class.
    pub class: Class,
    /// Longest context in tokens.
    pub ctx: u32,
    /// Number of token ids.
    pub vocab: u32,
    /// Weights in order of name.
    pub weights: Vec<Decl<TensorType>>,
    /// States of a session.
    pub states: Vec<Decl<StateType>>,
    /// Parameters of a session.
    pub params: Vec<Decl<TensorType>>,
    /// Functions; names are unique.
    pub funcs: Vec<Func>,
    /// `main`, and `mtp` where the model has a draft block.
    pub graphs: Vec<Graph>,
}

impl Module {
    /// The graph of that name.
    pub fn graph(&self, name: &str) -> Option<&Graph> {
        self.graphs.iter().find(|g| g.name == name)
    }

    /// The function of that name.
    pub fn func(&self, name: &str) -> Option<&Func> {
        self.funcs.iter().find(|f| f.name == name)
    }
}

/// The inputs of a function by what they are bound to, each list in declaration order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Inputs bound to graph values.
    pub tensors: Vec<Value>,
    /// Inputs bound to states.
    pub states: Vec<Value>,
    /// Inputs bound to parameters.
    pub params: Vec<Value>,
    /// Results that become graph values.
    pub outs: Vec<Value>,
}

impl Header {
    /// Sorts the inputs and results of `func`.
    pub fn of(func: &Func) -> Header {
        let mut header = Header::default();
        for v in func.inputs() {
            match func.ty(v) {
                Type::Tensor(_) => header.tensors.push(v),
                Type::State(_) => header.states.push(v),
                Type::Param(_) => header.params.push(v),
            }
        }
        header.outs = func.results.iter().copied().filter(|v| func.ty(*v).state().is_none()).collect();
        header
    }
}

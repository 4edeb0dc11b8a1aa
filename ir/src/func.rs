//! A function: a straight line of single-result nodes in SSA order.
//!
//! Entities are indices into tables that the function owns. The header declares everything the body
//! touches: values, states and parameters as inputs, weights by name and type.
use crate::{Op, TensorType, Type};
use std::fmt;

/// A value of a function: an input or the result of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Value(u32);

impl Value {
    /// Position in the function's table of values.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A weight that a function declares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Weight(u32);

impl Weight {
    /// Position in the function's table of weights.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A literal operand, written `name=literal`.
#[derive(Clone, Debug)]
pub enum Lit {
    /// A whole number.
    Int(i64),
    /// A real number; prints in the shortest form that reads back to the same bits.
    Real(f64),
    /// A word, such as a format name.
    Word(String),
}

impl Lit {
    fn key(&self) -> (u8, u64, &str) {
        match self {
            Lit::Int(n) => (0, n.cast_unsigned(), ""),
            Lit::Real(x) => (1, x.to_bits(), ""),
            Lit::Word(w) => (2, 0, w),
        }
    }
}

impl PartialEq for Lit {
    fn eq(&self, other: &Lit) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Lit {}
impl std::hash::Hash for Lit {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for Lit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lit::Int(n) => write!(f, "{n}"),
            // `{:?}` always shows a point or an exponent, so a real never reads back as an integer.
            Lit::Real(x) => write!(f, "{x:?}"),
            Lit::Word(w) => f.write_str(w),
        }
    }
}

/// An operand of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Arg {
    /// `%name`
    Value(Value),
    /// `@name`
    Weight(Weight),
    /// `name=literal`
    Lit(Lit),
}

/// One application of an operator.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// The row of the op table.
    pub op: &'static Op,
    /// Operands in the order of the row.
    pub args: Vec<Arg>,
}

impl Node {
    /// The values read or consumed, in operand order.
    pub fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.args.iter().filter_map(|a| match a {
            Arg::Value(v) => Some(*v),
            _ => None,
        })
    }

    /// The state version that this node consumes, if its op writes a state.
    pub fn consumes(&self) -> Option<Value> {
        match self.args.get(self.op.writes()?) {
            Some(Arg::Value(v)) => Some(*v),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct ValueData {
    name: String,
    ty: Type,
    node: Option<Node>,
    group: Option<u32>,
}

/// A function of the IR. See [`crate::verify`] for what makes it well formed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Func {
    /// Name without the sigil.
    pub name: String,
    values: Vec<ValueData>,
    weights: Vec<(String, TensorType)>,
    groups: u32,
    open: bool,
    /// Returned values; the last version of every state is among them.
    pub results: Vec<Value>,
}

impl Func {
    /// An empty function.
    pub fn new(name: impl Into<String>) -> Func {
        Func { name: name.into(), ..Func::default() }
    }

    /// Declares an input value, state or parameter.
    pub fn input(&mut self, name: impl Into<String>, ty: Type) -> Value {
        self.add(name.into(), ty, None)
    }

    /// Declares a weight.
    pub fn declare(&mut self, name: impl Into<String>, ty: TensorType) -> Weight {
        self.weights.push((name.into(), ty));
        Weight(u32::try_from(self.weights.len() - 1).expect("fewer than 2^32 weights"))
    }

    /// Appends a node.
    pub fn push(&mut self, name: impl Into<String>, ty: Type, node: Node) -> Value {
        self.add(name.into(), ty, Some(node))
    }

    /// Opens a `launch { }` block: the nodes up to [`Func::close_launch`] are one launch.
    pub fn open_launch(&mut self) {
        assert!(!self.open, "launch blocks do not nest");
        self.open = true;
    }

    /// Closes the block that is open.
    pub fn close_launch(&mut self) {
        assert!(self.open, "no launch block is open");
        self.open = false;
        self.groups += 1;
    }

    /// The number of the `launch { }` block that a value's node stands in.
    pub fn group(&self, v: Value) -> Option<u32> {
        self.values[v.index()].group
    }

    /// What is launched, in order: single nodes and blocks. Views are not launched.
    pub fn launches(&self) -> Vec<Vec<Value>> {
        let mut launches: Vec<Vec<Value>> = Vec::new();
        for (v, _) in self.nodes().filter(|(v, _)| self.view_of(*v).is_none()) {
            match launches.last_mut() {
                Some(last) if self.group(v).is_some() && self.group(last[0]) == self.group(v) => last.push(v),
                _ => launches.push(vec![v]),
            }
        }
        launches
    }

    /// The launches by what may run at once: consecutive launches of which none reads what another
    /// one of them computes, and none touches a state version that another one consumes.
    pub fn waves(&self) -> Vec<Vec<Vec<Value>>> {
        let mut waves: Vec<Vec<Vec<Value>>> = Vec::new();
        for launch in self.launches() {
            match waves.last_mut() {
                Some(wave) if wave.iter().all(|other| self.independent(other, &launch)) => wave.push(launch),
                _ => waves.push(vec![launch]),
            }
        }
        waves
    }

    fn independent(&self, first: &[Value], second: &[Value]) -> bool {
        let nodes =
            |launch: &[Value]| -> Vec<&Node> { launch.iter().filter_map(|v| self.node(*v)).collect() };
        let (before, after) = (nodes(first), nodes(second));
        let reads = |v: Value| after.iter().any(|n| n.values().any(|a| self.storage_of(a) == v));
        let consumed = |v: Value| after.iter().any(|n| n.consumes() == Some(v));
        !first.iter().any(|v| reads(*v)) && !before.iter().any(|n| n.values().any(consumed))
    }

    fn add(&mut self, name: String, ty: Type, node: Option<Node>) -> Value {
        let group = self.open.then_some(self.groups).filter(|_| node.is_some());
        self.values.push(ValueData { name, ty, node, group });
        Value(u32::try_from(self.values.len() - 1).expect("fewer than 2^32 values"))
    }

    /// All values in definition order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = Value> + use<> {
        (0..u32::try_from(self.values.len()).expect("fewer than 2^32 values")).map(Value)
    }

    /// The inputs in declaration order.
    pub fn inputs(&self) -> impl Iterator<Item = Value> + '_ {
        self.values().filter(|v| self.node(*v).is_none())
    }

    /// The nodes in order, each with the value it defines.
    pub fn nodes(&self) -> impl Iterator<Item = (Value, &Node)> + '_ {
        self.values().filter_map(|v| self.node(v).map(|n| (v, n)))
    }

    /// Name of a value, without the sigil.
    pub fn name(&self, v: Value) -> &str {
        &self.values[v.index()].name
    }

    /// Type of a value.
    pub fn ty(&self, v: Value) -> &Type {
        &self.values[v.index()].ty
    }

    /// The node that defines a value, `None` for an input.
    pub fn node(&self, v: Value) -> Option<&Node> {
        self.values[v.index()].node.as_ref()
    }

    /// The value of that name.
    pub fn find(&self, name: &str) -> Option<Value> {
        self.values().find(|v| self.name(*v) == name)
    }

    /// All declared weights.
    pub fn weights(&self) -> impl Iterator<Item = Weight> + use<> {
        (0..u32::try_from(self.weights.len()).expect("fewer than 2^32 weights")).map(Weight)
    }

    /// Name of a weight, without the sigil.
    pub fn weight_name(&self, w: Weight) -> &str {
        &self.weights[w.index()].0
    }

    /// Type of a weight.
    pub fn weight_type(&self, w: Weight) -> &TensorType {
        &self.weights[w.index()].1
    }

    /// The weight of that name.
    pub fn find_weight(&self, name: &str) -> Option<Weight> {
        self.weights().find(|w| self.weight_name(*w) == name)
    }

    /// The value whose memory `v` shares because its op changes nothing but the shape: `split`, and
    /// roundings to the format that the operand has already. A result is never a view: its memory is
    /// the caller's.
    pub fn view_of(&self, v: Value) -> Option<Value> {
        let node = self.node(v).filter(|_| !self.results.contains(&v))?;
        let from = node.values().next()?;
        let view = match node.op.name {
            "split" => true,
            "round_act" | "to_row" | "to_index" => self.ty(v) == self.ty(from),
            _ => false,
        };
        view.then_some(from)
    }

    /// The value that `v` is a view of in the end; `v` itself if it is none.
    pub fn storage_of(&self, mut v: Value) -> Value {
        while let Some(from) = self.view_of(v) {
            v = from;
        }
        v
    }

    /// The input state that a state version descends from.
    pub fn root(&self, mut v: Value) -> Value {
        while let Some(before) = self.node(v).and_then(Node::consumes) {
            v = before;
        }
        v
    }
}

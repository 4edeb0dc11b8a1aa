//! What a node moves and computes, from its types alone.
//!
//! A fused op reads the weights and states that its definition reads and computes what it computes;
//! of values it moves only its operands and its result. That difference is what fusion is for.
use crate::ops::{Op, Sig, SigArg, Term};
use crate::plan::Maxima;
use crate::{Arg, Dim, Func, Lit, Scalar, StateKind, StateType, TensorType, Type, Value};
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Bytes moved, arithmetic done, launches needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Launches.
    pub launches: u64,
    /// Bytes of weights read: of a table, the rows and experts that are needed.
    pub weights: u64,
    /// Bytes of state rows read and written.
    pub states: u64,
    /// Bytes of values read and written.
    pub values: u64,
    /// Multiplications and additions in floating point.
    pub flops: u64,
    /// Multiplications and additions of 8-bit integers.
    pub int_ops: u64,
}

impl Cost {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.weights + self.states + self.values
    }

    /// The same, `n` times.
    pub fn times(self, n: u64) -> Cost {
        let Cost { launches, weights, states, values, flops, int_ops } = self;
        Cost {
            launches: launches * n,
            weights: weights * n,
            states: states * n,
            values: values * n,
            flops: flops * n,
            int_ops: int_ops * n,
        }
    }
}

impl Add for Cost {
    type Output = Cost;
    fn add(mut self, other: Cost) -> Cost {
        self += other;
        self
    }
}
impl AddAssign for Cost {
    fn add_assign(&mut self, o: Cost) {
        self.launches += o.launches;
        self.weights += o.weights;
        self.states += o.states;
        self.values += o.values;
        self.flops += o.flops;
        self.int_ops += o.int_ops;
    }
}
impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(all: I) -> Cost {
        all.fold(Cost::default(), Cost::add)
    }
}

/// What running a node on a device needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    /// Launches.
    pub launches: u64,
    /// Bytes of memory beside operands and result.
    pub scratch: u64,
}

/// Round figures of a machine, for choosing only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// A launch, in ns.
    pub launch_ns: u64,
    /// Memory, in GB/s.
    pub gb_s: u64,
    /// Arithmetic, in GFLOP/s.
    pub gflop_s: u64,
}

/// The kernels of a device, as prices and plans are made of them.
pub trait Kernels: Sync {
    /// The name by which machine profiles know such devices.
    fn name(&self) -> &'static str;

    /// What such a device is good for.
    fn rates(&self) -> Rates;

    /// Whether nodes of that op have kernels, for some types at least.
    fn has(&self, op: &str) -> bool;

    /// What a node needs, `None` if there is no kernel for it.
    fn needs(&self, site: &Site<'_>, maxima: &Maxima) -> Option<Needs>;

    /// Launches of a [launch](Func::launches) of a function, `None` if there is no kernel for a member.
    fn block(&self, func: &Func, members: &[Value], maxima: &Maxima) -> Option<u64>;
}

/// An op with the types of its operands and of its result.
pub struct Site<'a> {
    /// The op.
    pub op: &'static Op,
    /// Operands.
    pub args: &'a [SigArg<'a>],
    /// Result.
    pub ty: &'a Type,
}

/// Operands by what they are.
///
/// # Panics
/// If the operand is something else; inference has seen to it that it is not.
impl<'a> Site<'a> {
    /// Operand `i`, a value or a parameter.
    pub fn value(&self, i: usize) -> &'a TensorType {
        match self.args[i] {
            SigArg::Value(ty) => ty.tensor().expect("a value"),
            _ => panic!("operand {i} of `{}` is no value", self.op.name),
        }
    }

    /// Operand `i`, a weight.
    pub fn weight(&self, i: usize) -> &'a TensorType {
        match self.args[i] {
            SigArg::Weight(ty) => ty,
            _ => panic!("operand {i} of `{}` is no weight", self.op.name),
        }
    }

    /// Operand `i`, a state.
    pub fn state(&self, i: usize) -> &'a StateType {
        match self.args[i] {
            SigArg::Value(ty) => ty.state().expect("a state"),
            _ => panic!("operand {i} of `{}` is no state", self.op.name),
        }
    }

    /// Elements of a row of weight `i`.
    pub fn columns(&self, i: usize) -> u64 {
        let last = self.weight(i).dims.last().and_then(|d| d.constant());
        last.map_or(1, u64::from).max(1)
    }

    /// Rows of weight `i`, a matrix.
    pub fn rows(&self, i: usize) -> u64 {
        self.weight(i).dims[0].constant().map_or(0, u64::from)
    }

    /// Operand `i`, a literal that names an element type.
    pub fn format(&self, i: usize) -> Scalar {
        match self.args[i] {
            SigArg::Lit(Lit::Word(word)) => Scalar::parse(word).expect("a typed node names a format"),
            _ => panic!("operand {i} of `{}` is no format", self.op.name),
        }
    }

    /// Operand `i`, a whole literal.
    pub fn int(&self, i: usize) -> u32 {
        match self.args[i] {
            SigArg::Lit(Lit::Int(n)) => u32::try_from(*n).expect("counts fit 32 bits"),
            _ => panic!("operand {i} of `{}` is no whole number", self.op.name),
        }
    }

    /// Operand `i`, a literal number.
    pub fn real(&self, i: usize) -> f64 {
        match self.args[i] {
            SigArg::Lit(Lit::Real(x)) => *x,
            SigArg::Lit(Lit::Int(n)) => *n as f64,
            _ => panic!("operand {i} of `{}` is no number", self.op.name),
        }
    }
}

/// The operand types of the node that defines `v`.
pub fn args_of(func: &Func, v: Value) -> Vec<SigArg<'_>> {
    let node = func.node(v).expect("a node");
    let arg = |a| match a {
        &Arg::Value(v) => SigArg::Value(func.ty(v)),
        &Arg::Weight(w) => SigArg::Weight(func.weight_type(w)),
        Arg::Lit(lit) => SigArg::Lit(lit),
    };
    node.args.iter().map(arg).collect()
}

impl Site<'_> {
    /// Whether the op only shows its operand under another shape; see [`Func::view_of`].
    pub fn is_view(&self) -> bool {
        let same = matches!(self.args.first(), Some(SigArg::Value(ty)) if *ty == self.ty);
        self.op.name == "split" || same && matches!(self.op.name, "round_act" | "to_row" | "to_index")
    }

    /// The cost at the given sizes, without launches.
    pub fn cost(&self, maxima: &Maxima) -> Cost {
        if self.is_view() {
            return Cost::default();
        }
        let mut cost = self.inner(maxima);
        let operands = self.args.iter().filter_map(|a| match a {
            SigArg::Value(ty) => ty.tensor(),
            _ => None,
        });
        cost.values = operands.chain(self.ty.tensor()).map(|t| bytes(t, maxima)).sum();
        cost
    }

    /// Weights, states and arithmetic, of the parts if the op is fused.
    fn inner(&self, maxima: &Maxima) -> Cost {
        let Some(definition) = self.op.definition() else { return self.primitive(maxima) };
        let sig = Sig { args: self.args.to_vec() };
        let types = definition.types(&sig).expect("a typed node has typed parts");
        let part = |(term, ty): (&Term, &Option<Type>)| {
            let Term::Apply(op, args) = term else { return Cost::default() };
            let arg = |i: &usize| match (&definition.terms[*i], &types[*i]) {
                (Term::Formal(at), _) => self.args[*at],
                (_, ty) => SigArg::Value(ty.as_ref().expect("a part has a type")),
            };
            let args: Vec<SigArg<'_>> = args.iter().map(arg).collect();
            Site { op, args: &args, ty: ty.as_ref().expect("a part has a type") }.primitive(maxima)
        };
        definition.terms.iter().zip(&types).map(part).sum()
    }

    fn primitive(&self, m: &Maxima) -> Cost {
        let weights = self.args.iter().filter_map(|a| match a {
            SigArg::Weight(ty) => Some(self.weight_bytes(ty, m)),
            _ => None,
        });
        let weights = weights.sum();
        let (states, arithmetic) = (self.state_bytes(m), self.arithmetic(m));
        let (flops, int_ops) = if self.is_integer() { (0, arithmetic) } else { (arithmetic, 0) };
        Cost { weights, states, flops, int_ops, ..Cost::default() }
    }

    /// Bytes of a weight that the op reads.
    pub fn weight_bytes(&self, ty: &TensorType, m: &Maxima) -> u64 {
        let all = weight_bytes(ty);
        let rows = u64::from(ty.dims[0].constant().unwrap_or(1));
        match self.op.name {
            "embed_rows" | "hash_experts" => all / rows * u64::from(m.tokens).min(rows),
            "expert_matmul" => {
                let chosen = self.tensor(2).map_or(rows, |routes| elements(routes, m));
                all / rows * chosen.min(rows)
            }
            _ => all,
        }
    }

    fn state_bytes(&self, m: &Maxima) -> u64 {
        let rows_of =
            |state: &StateType, rows: u64| rows * state.scalar.row_bytes(state.width as usize) as u64;
        let entries = |state: &StateType| u64::from(m.ctx.div_ceil(state.kind.span()));
        let read = |(i, arg): (usize, &SigArg<'_>)| {
            let SigArg::Value(Type::State(state)) = arg else { return 0 };
            let rows = match (self.op.name, state.kind) {
                (_, _) if self.op.writes() == Some(i) => self.written(m),
                ("gather_rows", _) => self.tensor(1).map_or(0, |idx| elements(idx, m)),
                (_, StateKind::Ring(w)) => u64::from(w),
                (_, StateKind::Entries(_)) => entries(state),
                (_, StateKind::Tail(r)) => u64::from(r) * if StateKind::overlaps(r) { 2 } else { 1 },
            };
            rows_of(state, rows)
        };
        self.args.iter().enumerate().map(read).sum()
    }

    /// Rows that a writing op adds.
    fn written(&self, m: &Maxima) -> u64 {
        self.tensor(1).map_or(0, |rows| extent(rows.dims[0], m))
    }

    /// Whether the products are of 8-bit integers: their input was rounded to such.
    fn is_integer(&self) -> bool {
        let product = matches!(self.op.name, "matmul" | "grouped_matmul" | "expert_matmul");
        let input = self.tensor(0).map(|t| t.scalar);
        product && matches!(input, Some(Scalar::Q8_0 | Scalar::Q8K | Scalar::E4m3x128))
    }

    fn arithmetic(&self, m: &Maxima) -> u64 {
        let out = self.ty.tensor().map_or(0, |t| elements(t, m));
        let columns = |i: usize| match self.args[i] {
            SigArg::Weight(w) => w.dims.last().map_or(0, |d| extent(*d, m)),
            _ => 0,
        };
        let per_head = |keys: u64| 4 * out * keys;
        match self.op.name {
            "matmul" | "grouped_matmul" | "expert_matmul" => 2 * out * columns(1),
            "attend_window" => per_head(self.span(1)),
            "attend_selected" => {
                per_head(self.span(1) + self.tensor(4).map_or(0, |idx| extent(idx.dims[1], m)))
            }
            "attend_entries" => per_head(self.span(1) + u64::from(m.ctx) / self.span(3).max(1)),
            "index_scores" => {
                2 * self.tensor(0).map_or(0, |q| elements(q, m) / extent(q.dims[0], m).max(1)) * out
            }
            "hc_gates" => 40 * out,
            _ => 4 * out,
        }
    }

    fn span(&self, i: usize) -> u64 {
        match self.args[i] {
            SigArg::Value(Type::State(state)) => u64::from(state.kind.span()),
            _ => 0,
        }
    }

    fn tensor(&self, i: usize) -> Option<&TensorType> {
        match self.args[i] {
            SigArg::Value(ty) => ty.tensor(),
            _ => None,
        }
    }
}

/// Bytes of a weight with its scales.
pub fn weight_bytes(ty: &TensorType) -> u64 {
    let Some(dims) = ty.constants() else { return 0 };
    let (width, outer) = dims.split_last().expect("a weight has an axis");
    let rows: u64 = outer.iter().map(|n| u64::from(*n)).product();
    let codes = rows * ty.scalar.row_bytes(*width as usize) as u64;
    let experts = if let [experts, _, _] = dims[..] { u64::from(experts) } else { 1 };
    let scales = ty.scalar.scale_shape((rows / experts.max(1)) as usize, *width as usize);
    codes + scales.map_or(0, |[n, k]| n as u64 * k as u64 * experts)
}

fn extent(dim: Dim, m: &Maxima) -> u64 {
    match dim {
        Dim::Const(n) => u64::from(n),
        Dim::Sym(s) => m.sym(s),
    }
}

/// Number of elements of a value.
pub fn elements(ty: &TensorType, m: &Maxima) -> u64 {
    ty.dims.iter().map(|d| extent(*d, m)).product()
}

/// Bytes of a value, not rounded up.
pub fn bytes(ty: &TensorType, m: &Maxima) -> u64 {
    let (last, outer) = ty.dims.split_last().expect("a tensor has an axis");
    let rows: u64 = outer.iter().map(|d| extent(*d, m)).product();
    rows * ty.scalar.row_bytes(extent(*last, m) as usize) as u64
}

//! Writes one function: nodes with inferred types, weights declared as they are first used.
use super::GraphError;
use ds4_ir::{Arg, Class, Func, Lit, Node, Scalar, StateType, TensorType, Type, Value, infer, op};

/// Types of a model's weights by canonical name.
pub trait WeightTypes {
    /// The type of the weight `name`, such as `blk.4.attn_q_a`.
    ///
    /// # Errors
    /// Whatever keeps the weight from having one, naming it.
    fn weight_type(&self, name: &str) -> Result<TensorType, GraphError>;
}

/// An operand as builders write it.
pub(super) enum A<'a> {
    V(Value),
    /// A weight by its local name.
    W(&'a str),
    Int(u32),
    Real(f64),
    Word(&'a str),
}

impl From<Value> for A<'_> {
    fn from(v: Value) -> Self {
        A::V(v)
    }
}

/// A function under construction.
pub(super) struct Builder<'a> {
    pub(super) func: Func,
    pub(super) class: Class,
    /// Module names of the declared weights, in order of declaration.
    pub(super) weights: Vec<String>,
    /// Module names of the state inputs, in order of declaration.
    pub(super) states: Vec<(String, StateType)>,
    types: &'a dyn WeightTypes,
    module_name: &'a dyn Fn(&str) -> String,
    rounded: Vec<((Value, Scalar), Value)>,
    error: Option<GraphError>,
}

impl<'a> Builder<'a> {
    /// `module_name` gives the module's name for a local one, such as `blk.4.attn_norm`.
    pub(super) fn new(
        name: &str,
        class: Class,
        types: &'a dyn WeightTypes,
        module_name: &'a dyn Fn(&str) -> String,
    ) -> Builder<'a> {
        let (weights, states, rounded) = Default::default();
        let func = Func::new(name);
        Builder { func, class, weights, states, types, module_name, rounded, error: None }
    }

    pub(super) fn input(&mut self, name: &str, ty: TensorType) -> Value {
        self.func.input(name, Type::Tensor(ty))
    }

    /// Declares a state input; its module name follows from `name`.
    pub(super) fn state(&mut self, name: &str, ty: StateType) {
        self.states.push(((self.module_name)(name), ty));
        self.func.input(name, Type::State(ty));
    }

    /// The state input of that name.
    pub(super) fn get_state(&self, name: &str) -> Value {
        self.func.find(name).unwrap_or_else(|| panic!("no state `{name}` is declared"))
    }

    /// Type of a weight by its local name. A failed look-up surfaces in [`Builder::finish`].
    fn weight_type(&mut self, local: &str) -> TensorType {
        match self.types.weight_type(&(self.module_name)(local)) {
            Ok(ty) => ty,
            Err(error) => {
                self.error.get_or_insert(error);
                TensorType::fixed(Scalar::F32, &[1])
            }
        }
    }

    /// Appends a node and answers its value.
    pub(super) fn op<const N: usize>(&mut self, name: &str, op_name: &str, args: [A<'_>; N]) -> Value {
        let op = op(op_name).unwrap_or_else(|| panic!("no op `{op_name}`"));
        let args = args.into_iter().map(|a| self.arg(a)).collect();
        let node = Node { op, args };
        let ty = match infer(&self.func, &node) {
            Ok(ty) => ty,
            // Types of missing weights are placeholders: the first error is the one to tell.
            Err(why) => {
                let message = format!("@{} %{name} = {op_name}: {why}", self.func.name);
                self.error.get_or_insert(GraphError::Shape { message });
                Type::Tensor(TensorType::fixed(Scalar::F32, &[1, 1, 1]))
            }
        };
        self.func.push(name, ty, node)
    }

    fn arg(&mut self, arg: A<'_>) -> Arg {
        match arg {
            A::V(v) => Arg::Value(v),
            A::Int(n) => Arg::Lit(Lit::Int(i64::from(n))),
            A::Real(x) => Arg::Lit(Lit::Real(x)),
            A::Word(w) => Arg::Lit(Lit::Word(w.to_string())),
            A::W(local) => Arg::Weight(self.func.find_weight(local).unwrap_or_else(|| {
                let ty = self.weight_type(local);
                self.weights.push((self.module_name)(local));
                self.func.declare(local, ty)
            })),
        }
    }

    /// `x` in the format in which the class wants it before a product with `weight`, one node per
    /// value and format. `listed` says that spec 6.2 lists the product.
    pub(super) fn round(&mut self, x: Value, weight: &str, listed: bool) -> Value {
        let fmt = match self.class {
            Class::Exact => Scalar::F32,
            Class::Official if listed => Scalar::E4m3x128,
            Class::Official => Scalar::F32,
            Class::Fast => fast_format(self.weight_type(weight).scalar),
        };
        if let Some((_, rounded)) = self.rounded.iter().find(|(key, _)| *key == (x, fmt)) {
            return *rounded;
        }
        let name = format!("{}.{fmt}", self.func.name(x));
        let rounded = self.op(&name, "round_act", [x.into(), A::Word(&fmt.to_string())]);
        self.rounded.push(((x, fmt), rounded));
        rounded
    }

    /// `x · weightᵀ`, `x` rounded as spec 6.2 lists.
    pub(super) fn linear(&mut self, name: &str, x: Value, weight: &str) -> Value {
        let x = self.round(x, weight, true);
        self.op(name, "matmul", [x.into(), A::W(weight)])
    }

    /// `x · weightᵀ` where spec 6.2 says "not rounded".
    pub(super) fn unrounded(&mut self, name: &str, x: Value, weight: &str) -> Value {
        let x = self.round(x, weight, false);
        self.op(name, "matmul", [x.into(), A::W(weight)])
    }

    /// The finished function, verified.
    pub(super) fn finish(mut self, results: &[Value]) -> Result<Built, GraphError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.func.results = results.to_vec();
        if let Err(errors) = ds4_ir::verify(&self.func) {
            panic!("a builder wrote a malformed function: {}\n{}", errors[0], self.func);
        }
        Ok(Built { func: self.func, weights: self.weights, states: self.states })
    }
}

/// A function and what its header is bound to in one call.
pub(super) struct Built {
    pub(super) func: Func,
    pub(super) weights: Vec<String>,
    pub(super) states: Vec<(String, StateType)>,
}

/// The input format of class `fast` on a CPU: what the integer kernels of a weight type read, and
/// f32 where the weight is decoded to floating point anyway.
fn fast_format(weight: Scalar) -> Scalar {
    match weight {
        Scalar::Q8_0 | Scalar::Mxfp4 | Scalar::Fp4 => Scalar::Q8_0,
        Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs => Scalar::Q8K,
        _ => Scalar::F32,
    }
}

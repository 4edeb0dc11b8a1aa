//! One hand-computed case: a function, its weights, and steps with what they must give.
use ds4_ir::module::{Decl, Header};
use ds4_ir::view::{Route, WeightView};
use ds4_ir::{
    Bind, Buffer, Computed, Func, Interp, Module, Real, Scalar, TensorType, WeightSource, parse_funcs,
    parse_module, verify_module,
};
use std::ops::Range;

/// Elements of an operand or a result.
#[derive(Clone, Debug)]
pub(crate) enum X {
    R(Vec<f64>),
    I(Vec<i32>),
    Routes(Vec<(i32, f64)>),
}

/// Real numbers.
pub(crate) fn r(x: impl Into<Vec<f64>>) -> X {
    X::R(x.into())
}

/// Whole numbers.
pub(crate) fn i(x: impl Into<Vec<i32>>) -> X {
    X::I(x.into())
}

/// Pairs of expert and weight.
pub(crate) fn routes(x: impl Into<Vec<(i32, f64)>>) -> X {
    X::Routes(x.into())
}

struct Step {
    at: Range<usize>,
    inputs: Vec<X>,
    /// The last tensor that the function computes; `None` leaves it unchecked.
    want: Option<X>,
}

/// A function whose inputs `%pos` are the positions of the step, its weights and its steps.
pub(crate) struct Case {
    pub(crate) op: &'static str,
    func: Func,
    weights: Vec<(&'static str, Vec<f64>)>,
    steps: Vec<Step>,
    rows: Vec<(&'static str, usize, Vec<f64>)>,
    tolerance: f64,
}

/// A case of `op`: the function with this header and these lines.
pub(crate) fn case(op: &'static str, header: &str, lines: &str) -> Case {
    let text = format!("func @case({header}) {{\n{lines}\nreturn\n}}\n");
    let mut func = parse_funcs(&text).unwrap_or_else(|e| panic!("{op}: {e}")).remove(0);
    let consumed: Vec<_> = func.nodes().filter_map(|(_, n)| n.consumes()).collect();
    let last = func.nodes().map(|(v, _)| v).filter(|v| func.ty(*v).state().is_none()).last();
    let states = func.values().filter(|v| func.ty(*v).state().is_some() && !consumed.contains(v));
    func.results = last.into_iter().chain(states).collect();
    let (weights, steps, rows) = Default::default();
    Case { op, func, weights, steps, rows, tolerance: 0.0 }
}

impl Case {
    /// Elements of the weight of that name.
    pub(crate) fn weight(mut self, name: &'static str, x: impl Into<Vec<f64>>) -> Case {
        let x = x.into();
        // Weights are stored in f32, logarithms among them in both precisions.
        if x.iter().any(|x| f64::from(*x as f32) != *x) {
            self.tolerance = 1e-7;
        }
        self.weights.push((name, x));
        self
    }

    /// One step on the tokens at these positions: the inputs but `%pos`, and the last result.
    pub(crate) fn step(mut self, at: Range<usize>, inputs: impl Into<Vec<X>>, want: X) -> Case {
        self.steps.push(Step { at, inputs: inputs.into(), want: Some(want) });
        self
    }

    /// A step whose result does not matter.
    pub(crate) fn go(mut self, at: Range<usize>, inputs: impl Into<Vec<X>>) -> Case {
        self.steps.push(Step { at, inputs: inputs.into(), want: None });
        self
    }

    /// What the row of that absolute number holds in the end.
    pub(crate) fn row(mut self, state: &'static str, row: usize, x: impl Into<Vec<f64>>) -> Case {
        self.rows.push((state, row, x.into()));
        self
    }

    /// Allows more than the rounding of the precision, where angles are `f32` by definition.
    pub(crate) fn within(mut self, tolerance: f64) -> Case {
        self.tolerance = tolerance;
        self
    }

    pub(crate) fn holds_its_op(&self) -> bool {
        self.func.nodes().any(|(_, n)| n.op.name == self.op)
    }

    /// A module that calls the function once, everything bound to its own name.
    fn module(&self) -> Module {
        let func = &self.func;
        let header = Header::of(func);
        let mut text = "module @case {\nclass exact\nctx 64\nvocab 16\n}\n".to_string();
        let mut bindings = String::new();
        for v in &header.states {
            text += &format!("state {}: {}\n", func.name(*v), func.ty(*v));
            bindings += &format!("%{0} = {0}\n", func.name(*v));
        }
        for w in func.weights() {
            text += &format!("weight {}: {}\n", func.weight_name(w), func.weight_type(w));
            bindings += &format!("@{0} = {0}\n", func.weight_name(w));
        }
        let inputs: Vec<String> =
            header.tensors.iter().map(|v| format!("%{}: {}", func.name(*v), func.ty(*v))).collect();
        let args: Vec<String> = header.tensors.iter().map(|v| format!("%{}", func.name(*v))).collect();
        let out = if header.outs.is_empty() { "" } else { "%result." };
        text += &format!("{func}graph @main({}) {{\n", inputs.join(", "));
        text += &format!("call @case({}) -> {out} {{\n{bindings}}}\nreturn {out}\n}}\n", args.join(", "));
        let module = parse_module(&text).unwrap_or_else(|e| panic!("{}: {e}", self.op));
        verify_module(&module).unwrap_or_else(|e| panic!("{}: {}", self.op, e[0]));
        module
    }

    /// Why a result is another than the expected one.
    pub(crate) fn check<F: Real>(&self) -> Vec<String> {
        let module = self.module();
        let weights = Weights::new(&module, &self.weights);
        let mut interp = Interp::<F>::new(&module, &weights);
        let place = format!("`{}` in {}", self.op, std::any::type_name::<F>());
        let mut failures = Vec::new();
        for (n, step) in self.steps.iter().enumerate() {
            let got = self.run(&module, &mut interp, step);
            if let Some(why) = step.want.as_ref().and_then(|want| self.differ(&got, want)) {
                failures.push(format!("{place}, step {}: {why}", n + 1));
            }
        }
        for (state, row, want) in &self.rows {
            let index = module.states.iter().position(|s| s.name == *state).expect("a state of the case");
            let mut got = vec![F::ZERO; want.len()];
            interp.state(index).read_row(*row, &mut got);
            let got: Vec<f64> = got.iter().map(|x| x.to_f64()).collect();
            if !self.close::<F>(&got, want) {
                failures.push(format!("{place}, {state} row {row}: expected {want:?}, got {got:?}"));
            }
        }
        failures
    }

    fn run<F: Real>(&self, module: &Module, interp: &mut Interp<'_, F>, step: &Step) -> Computed<F> {
        let graph = &module.graphs[0];
        let mut given = step.inputs.iter();
        let mut wanted = step.at.len();
        let mut inputs = Vec::new();
        for value in &graph.values[..graph.inputs] {
            let positions = X::I(step.at.clone().map(|p| p as i32).collect());
            let x = if value.name == "pos" { &positions } else { given.next().expect("an input per value") };
            inputs.push(match x {
                X::R(x) => Buffer::Real(x.iter().map(|x| F::from_f64(*x)).collect()),
                X::I(x) => Buffer::Int(x.clone()),
                X::Routes(x) => {
                    let route = |(expert, w): &(i32, f64)| Route { expert: *expert, weight: F::from_f64(*w) };
                    Buffer::Route(x.iter().map(route).collect())
                }
            });
            if let (X::I(x), "want") = (x, value.name.as_str()) {
                wanted = x.len();
            }
        }
        assert!(given.next().is_none(), "{}: more inputs than values", self.op);
        let bind = Bind { start: step.at.start, tokens: step.at.len(), wanted };
        for (value, buffer) in graph.values.iter().zip(&inputs) {
            let ty = value.ty.tensor().expect("graph values are tensors");
            let n: usize = bind.dims(ty).iter().product();
            let got = match buffer {
                Buffer::Real(x) => x.len(),
                Buffer::Int(x) => x.len(),
                Buffer::Route(x) => x.len(),
                Buffer::Packed(_) => n,
            };
            assert_eq!(got, n, "{}: elements of %{}", self.op, value.name);
        }
        interp.step(graph, inputs, &bind).pop().expect("a graph has values")
    }

    fn differ<F: Real>(&self, got: &Computed<F>, want: &X) -> Option<String> {
        let tensor = got.tensor();
        let same = match want {
            X::R(x) => self.close::<F>(&tensor.to_real().iter().map(|x| x.to_f64()).collect::<Vec<_>>(), x),
            X::I(x) => tensor.int() == x,
            X::Routes(x) => {
                let got: Vec<f64> = tensor.route().iter().map(|r| r.weight.to_f64()).collect();
                let want: Vec<f64> = x.iter().map(|(_, w)| *w).collect();
                let experts = tensor.route().iter().map(|r| r.expert);
                self.close::<F>(&got, &want) && experts.eq(x.iter().map(|(e, _)| *e))
            }
        };
        let got: &dyn std::fmt::Debug =
            if got.ty.scalar.is_real() { &tensor.to_real() } else { &tensor.data };
        (!same).then(|| format!("expected {want:?}, got {got:?}"))
    }

    /// Equal up to a few roundings of the precision, infinities exactly.
    fn close<F: Real>(&self, got: &[f64], want: &[f64]) -> bool {
        let rounding = if F::from_f64(1e-12) + F::ONE == F::ONE { 1e-6 } else { 1e-12 };
        let near = |(g, w): (&f64, &f64)| {
            g == w || (g - w).abs() <= (rounding * w.abs().max(1.0)).max(self.tolerance)
        };
        got.len() == want.len() && got.iter().zip(want).all(near)
    }
}

/// The weights of a case as bytes.
struct Weights(Vec<Stored>);

struct Stored {
    scalar: Scalar,
    dims: Vec<usize>,
    /// Codes and scales of each matrix; the bytes live as long as the test.
    items: Vec<(&'static [u8], &'static [u8])>,
}

impl Weights {
    fn new(module: &Module, given: &[(&'static str, Vec<f64>)]) -> Weights {
        assert_eq!(given.len(), module.weights.len(), "weights of {}", module.name);
        let stored = |decl: &Decl<TensorType>| {
            let x = &given.iter().find(|(n, _)| *n == decl.name).expect("a weight is given").1;
            let dims: Vec<usize> =
                decl.ty.constants().expect("constant").iter().map(|n| *n as usize).collect();
            assert_eq!(x.len(), dims.iter().product::<usize>(), "elements of @{}", decl.name);
            let bytes: Vec<u8> = x.iter().flat_map(|x| encode(decl.ty.scalar, *x)).collect();
            let bytes: &'static [u8] = bytes.leak();
            let matrices = if dims.len() == 3 { dims[0] } else { 1 };
            let items = bytes.chunks_exact(bytes.len() / matrices).map(|b| (b, &[][..])).collect();
            Stored { scalar: decl.ty.scalar, dims, items }
        };
        Weights(module.weights.iter().map(stored).collect())
    }
}

fn encode(scalar: Scalar, x: f64) -> Vec<u8> {
    match scalar {
        Scalar::F32 => (x as f32).to_le_bytes().to_vec(),
        Scalar::Bf16 => (x as f32).to_le_bytes()[2..].to_vec(),
        Scalar::I32 => (x as i32).to_le_bytes().to_vec(),
        Scalar::I64 => (x as i64).to_le_bytes().to_vec(),
        other => panic!("no weight of a case is {other}"),
    }
}

impl WeightSource for Weights {
    fn weight(&self, index: usize) -> WeightView<'_> {
        let Stored { scalar, dims, items } = &self.0[index];
        WeightView { scalar: *scalar, dims, items }
    }
}

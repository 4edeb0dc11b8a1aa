//! The interpreter: every node by its op's `eval`, one after the other, in either precision.
//!
//! It is slow and obvious, and the judge of everything else.
use crate::bind::Bind;
use crate::module::{Call, Graph, Header, Module};
use crate::view::{Data, DataMut, Frame, Operand, Out, Route, State, StateMut, Tensor, WeightView};
use crate::{Arg, Func, Node, Real, Scalar, StateType, TensorType, Type, Value};

/// Where the interpreter finds the bytes of weights.
pub trait WeightSource {
    /// The weight of that index in [`Module::weights`].
    fn weight(&self, index: usize) -> WeightView<'_>;
}

/// The elements of one value or state, owned.
#[derive(Clone, PartialEq, Debug)]
pub enum Buffer<F> {
    /// `f32`
    Real(Vec<F>),
    /// `i32`
    Int(Vec<i32>),
    /// `route`
    Route(Vec<Route<F>>),
    /// Every other element type, row by row.
    Packed(Vec<u8>),
}

impl<F: Real> Buffer<F> {
    /// Zeros for `rows` rows of `width` elements.
    pub fn zeros(scalar: Scalar, rows: usize, width: usize) -> Buffer<F> {
        match scalar {
            Scalar::F32 => Buffer::Real(vec![F::ZERO; rows * width]),
            Scalar::I32 => Buffer::Int(vec![0; rows * width]),
            Scalar::Route => Buffer::Route(vec![Route::default(); rows * width]),
            scalar => Buffer::Packed(vec![0; rows * scalar.row_bytes(width)]),
        }
    }

    /// A view of the elements.
    pub fn data(&self) -> Data<'_, F> {
        match self {
            Buffer::Real(x) => Data::Real(x),
            Buffer::Int(x) => Data::Int(x),
            Buffer::Route(x) => Data::Route(x),
            Buffer::Packed(x) => Data::Packed(x),
        }
    }

    fn data_mut(&mut self) -> DataMut<'_, F> {
        match self {
            Buffer::Real(x) => DataMut::Real(x),
            Buffer::Int(x) => DataMut::Int(x),
            Buffer::Route(x) => DataMut::Route(x),
            Buffer::Packed(x) => DataMut::Packed(x),
        }
    }

    /// The elements of an `f32` buffer.
    pub fn real(&self) -> &[F] {
        match self {
            Buffer::Real(x) => x,
            _ => panic!("expected an f32 buffer"),
        }
    }
}

/// A value of the running step.
#[derive(Clone, Debug)]
pub struct Computed<F> {
    /// Type with symbols.
    pub ty: TensorType,
    /// Extents in this step.
    pub dims: Vec<usize>,
    /// Elements.
    pub buffer: Buffer<F>,
}

impl<F: Real> Computed<F> {
    /// Zeros of the extents that `ty` has in a step.
    pub(crate) fn zeros(ty: &TensorType, bind: &Bind) -> Computed<F> {
        let dims = bind.dims(ty);
        let (width, rows) = dims.split_last().expect("a tensor has an axis");
        let buffer = Buffer::zeros(ty.scalar, rows.iter().product(), *width);
        Computed { ty: ty.clone(), dims, buffer }
    }

    /// A view for an op.
    pub fn tensor(&self) -> Tensor<'_, F> {
        Tensor { ty: &self.ty, scalar: self.ty.scalar, dims: &self.dims, data: self.buffer.data() }
    }

    /// The place for an op's result.
    pub(crate) fn out(&mut self) -> Out<'_, F> {
        Out::Tensor { scalar: self.ty.scalar, dims: &self.dims, data: self.buffer.data_mut() }
    }
}

struct Held<F> {
    ty: StateType,
    capacity: usize,
    buffer: Buffer<F>,
}

/// Where a node's result goes, and the step.
struct Place<'a, F> {
    out: Out<'a, F>,
    bind: &'a Bind,
}

/// A module with the states of one session.
pub struct Interp<'m, F> {
    module: &'m Module,
    weights: &'m dyn WeightSource,
    states: Vec<Held<F>>,
    params: Vec<Computed<F>>,
}

impl<'m, F: Real> Interp<'m, F> {
    /// A fresh session of at most `module.ctx` tokens; parameters are zero.
    pub fn new(module: &'m Module, weights: &'m dyn WeightSource) -> Interp<'m, F> {
        let held = |ty: StateType| {
            let capacity = ty.kind.rows(u64::from(module.ctx)) as usize;
            Held { ty, capacity, buffer: Buffer::zeros(ty.scalar, capacity, ty.width as usize) }
        };
        let none = Bind { start: 0, tokens: 0, wanted: 0 };
        let states = module.states.iter().map(|s| held(s.ty)).collect();
        let params = module.params.iter().map(|p| Computed::zeros(&p.ty, &none)).collect();
        Interp { module, weights, states, params }
    }

    /// Sets a parameter for all later steps.
    pub fn set_param(&mut self, index: usize, elements: &[F]) {
        match &mut self.params[index].buffer {
            Buffer::Real(x) => x.copy_from_slice(elements),
            _ => panic!("parameter {} is not f32", self.module.params[index].name),
        }
    }

    /// The rows of a state as the last step left them.
    pub fn state(&self, index: usize) -> State<'_, F> {
        let Held { ty, capacity, buffer } = &self.states[index];
        State { ty: *ty, capacity: *capacity, data: buffer.data() }
    }

    /// Replaces the row that lies at `slot` of a state by the bytes of one in its element type, little-endian.
    pub fn set_state_row(&mut self, index: usize, slot: usize, bytes: &[u8]) {
        let Held { ty, buffer, .. } = &mut self.states[index];
        let width = ty.width as usize;
        match buffer {
            Buffer::Real(x) => {
                let row = &mut x[slot * width..][..width];
                assert!(bytes.len() == width * 4, "{} bytes for a row of {ty}", bytes.len());
                for (x, b) in row.iter_mut().zip(bytes.as_chunks().0) {
                    *x = F::from_f64(f64::from(f32::from_le_bytes(*b)));
                }
            }
            Buffer::Packed(x) => x[slot * bytes.len()..][..bytes.len()].copy_from_slice(bytes),
            _ => panic!("{ty}: rows are real"),
        }
    }

    /// Runs one step of `graph`; answers all its values, inputs first.
    ///
    /// `inputs` are in the order of the graph's inputs and have the extents that `bind` gives them.
    pub fn step(&mut self, graph: &Graph, inputs: Vec<Buffer<F>>, bind: &Bind) -> Vec<Computed<F>> {
        assert!(inputs.len() == graph.inputs, "{} inputs for {}", inputs.len(), graph.inputs);
        let mut values: Vec<Option<Computed<F>>> = graph.values.iter().map(|_| None).collect();
        for (i, buffer) in inputs.into_iter().enumerate() {
            let ty = graph.values[i].ty.tensor().expect("graph values are tensors");
            values[i] = Some(Computed { ty: ty.clone(), dims: bind.dims(ty), buffer });
        }
        for call in &graph.calls {
            self.call(call, &mut values, bind);
        }
        values.into_iter().map(|v| v.expect("every graph value is defined")).collect()
    }

    fn call(&mut self, call: &Call, graph: &mut [Option<Computed<F>>], bind: &Bind) {
        let func = &self.module.funcs[call.func];
        let header = Header::of(func);
        let mut env: Vec<Option<Computed<F>>> = func.values().map(|_| None).collect();
        for (v, id) in header.tensors.iter().zip(&call.args) {
            env[v.index()] = graph[*id].clone();
        }
        for (v, id) in header.params.iter().zip(&call.params) {
            env[v.index()] = Some(self.params[*id].clone());
        }
        let state_of = |v: Value| {
            let root = func.root(v);
            let i = header.states.iter().position(|s| *s == root).expect("a state descends from an input");
            call.states[i]
        };
        for (v, node) in func.nodes() {
            match func.ty(v) {
                Type::State(_) => self.update(func, call, node, &env, &state_of, (state_of(v), bind)),
                ty => {
                    let mut out = Computed::zeros(ty.tensor().expect("a tensor"), bind);
                    let place = Place { out: out.out(), bind };
                    self.eval(func, call, node, &env, &state_of, place);
                    env[v.index()] = Some(out);
                }
            }
        }
        for (v, id) in header.outs.iter().zip(&call.outs) {
            graph[*id] = env[v.index()].clone();
        }
    }

    /// Runs a node that writes the state of that index, in place.
    fn update(
        &mut self,
        func: &Func,
        call: &Call,
        node: &Node,
        env: &[Option<Computed<F>>],
        state_of: &dyn Fn(Value) -> usize,
        (index, bind): (usize, &Bind),
    ) {
        let Held { ty, capacity, .. } = self.states[index];
        let mut buffer = std::mem::replace(&mut self.states[index].buffer, Buffer::Packed(Vec::new()));
        let out = Out::State(StateMut { ty, capacity, data: buffer.data_mut() });
        self.eval(func, call, node, env, state_of, Place { out, bind });
        self.states[index].buffer = buffer;
    }

    fn eval(
        &self,
        func: &Func,
        call: &Call,
        node: &Node,
        env: &[Option<Computed<F>>],
        state_of: &dyn Fn(Value) -> usize,
        place: Place<'_, F>,
    ) {
        let operands = node.args.iter().enumerate().map(|(i, arg)| match arg {
            Arg::Value(_) if node.op.writes() == Some(i) => Operand::Consumed,
            Arg::Value(v) if func.ty(*v).state().is_some() => Operand::State(self.state(state_of(*v))),
            Arg::Value(v) => Operand::Tensor(env[v.index()].as_ref().expect("defined before use").tensor()),
            Arg::Weight(w) => Operand::Weight(self.weights.weight(call.weights[w.index()])),
            Arg::Lit(lit) => Operand::Lit(lit),
        });
        let operands: Vec<Operand<'_, F>> = operands.collect();
        F::eval_of(node.op)(&mut Frame {
            operands: &operands,
            out: place.out,
            bind: place.bind,
            scratch: &mut [],
        });
    }
}

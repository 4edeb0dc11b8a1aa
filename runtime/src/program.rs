//! A graph of a bucket as waves of launches with every operand resolved: what a step runs.
use crate::cpu::product::Packing;
use crate::cpu::{self, OpKernel, Products, Site};
use crate::tune::Choices;
use crate::weights::Weights;
use ds4_ir::module::{Call, Header};
use ds4_ir::ops::SigArg;
use ds4_ir::plan::{Bucket, LaunchList};
use ds4_ir::{Arg, Func, Lit, Module, TensorType, Value};
use std::ops::Range;

/// Where an operand comes from.
pub(crate) enum Source {
    /// A value at an arena address, of that type of the program.
    Arena(u64, usize),
    /// A parameter of the session, of that type of the program.
    Param(usize, usize),
    /// A state of the session, read.
    State(usize),
    /// The state that the launch updates.
    Consumed,
    /// A weight of the module, as stored.
    Weight(usize),
    /// A weight of the module, as its packing has it.
    Packed(usize),
    /// A literal.
    Lit(Lit),
}

/// Where a result goes.
pub(crate) enum Target {
    /// A value at an arena address, of that type of the program.
    Arena(u64, usize),
    /// A state of the session, in place.
    State(usize),
}

/// One run of a kernel.
pub(crate) struct Launch {
    pub(crate) kernel: Box<dyn OpKernel>,
    /// The op, for those who look at a step from outside.
    pub(crate) op: &'static str,
    pub(crate) operands: Vec<Source>,
    pub(crate) target: Target,
    /// Address and bytes of the kernel's scratch.
    pub(crate) scratch: (u64, u64),
}

/// The launches of one graph in one bucket.
pub(crate) struct Program {
    launches: Vec<Launch>,
    /// Launches that may run at once, in order.
    waves: Vec<Range<usize>>,
    /// The types of all values, each once.
    pub(crate) types: Vec<TensorType>,
    /// Bytes of a thread's buffer that some task needs.
    pub(crate) worker_bytes: usize,
}

/// Most operands of the launches of one wave.
pub(crate) const OPERANDS_MAX: usize = 96;
/// Most launches of one wave.
pub(crate) const WAVE_MAX: usize = 16;

impl Program {
    /// Resolves graph `g` of the module; the plan has passed its check. The weights say which packing
    /// each has, `choices` which kernels are used.
    ///
    /// # Errors
    /// A kernel whose scratch is too small.
    pub(crate) fn new(
        module: &Module,
        lists: &[LaunchList],
        bucket: &Bucket,
        g: usize,
        (weights, choices): (&Weights, &Choices),
    ) -> Result<Program, String> {
        let graph = &module.graphs[g];
        let mut program = Program { launches: vec![], waves: vec![], types: vec![], worker_bytes: 0 };
        for (index, call) in graph.calls.iter().enumerate() {
            let func = &module.funcs[call.func];
            let place = Place::new(module, bucket, g, index, (weights, choices));
            debug_assert_eq!(func.launches().concat().len(), lists[call.func].launches.len());
            for wave in func.waves() {
                program.wave(&place, &wave.concat())?;
            }
        }
        Ok(program)
    }

    /// Adds what may run at once, as several waves if it is more than one takes.
    fn wave(&mut self, place: &Place<'_>, values: &[Value]) -> Result<(), String> {
        let (mut from, mut operands) = (self.launches.len(), 0);
        for v in values {
            let launch = place.launch(*v, &mut self.types)?;
            self.worker_bytes = self.worker_bytes.max(launch.kernel.worker_bytes());
            let (at, more) = (self.launches.len(), launch.operands.len());
            assert!(more <= OPERANDS_MAX, "`{}` has {more} operands", launch.op);
            if at - from == WAVE_MAX || operands + more > OPERANDS_MAX {
                self.waves.push(from..at);
                (from, operands) = (at, 0);
            }
            operands += more;
            self.launches.push(launch);
        }
        self.waves.push(from..self.launches.len());
        Ok(())
    }

    /// The launches that may run at once, wave by wave.
    pub(crate) fn waves(&self) -> impl Iterator<Item = &[Launch]> {
        self.waves.iter().map(|wave| &self.launches[wave.clone()])
    }
}

/// Index of a type in a list of distinct types.
fn intern(types: &mut Vec<TensorType>, ty: &TensorType) -> usize {
    types.iter().position(|t| t == ty).unwrap_or_else(|| {
        types.push(ty.clone());
        types.len() - 1
    })
}

/// One call, for resolving its operands.
pub(crate) struct Place<'a> {
    weights: &'a Weights,
    choices: &'a Choices,
    pub(crate) func: &'a Func,
    pub(crate) call: &'a Call,
    header: Header,
    pub(crate) bucket: &'a Bucket,
    g: usize,
    /// Where the function's part of the arena begins.
    pub(crate) base: u64,
}

impl<'a> Place<'a> {
    /// The call of that index in graph `g`.
    pub(crate) fn new(
        module: &'a Module,
        bucket: &'a Bucket,
        g: usize,
        index: usize,
        (weights, choices): (&'a Weights, &'a Choices),
    ) -> Place<'a> {
        let call = &module.graphs[g].calls[index];
        let func = &module.funcs[call.func];
        let base = bucket.graphs[g].parts[index];
        Place { weights, choices, func, call, header: Header::of(func), bucket, g, base }
    }
}

impl Place<'_> {
    fn launch(&self, v: Value, seen: &mut Vec<TensorType>) -> Result<Launch, String> {
        let node = self.func.node(v).expect("a launch computes a node");
        let writes = node.op.writes();
        let mut operand = |(i, arg): (usize, &Arg)| match arg {
            Arg::Value(_) if writes == Some(i) => Source::Consumed,
            Arg::Value(a) => self.source(*a, seen),
            Arg::Weight(w) => Source::Weight(self.call.weights[w.index()]),
            Arg::Lit(lit) => Source::Lit(lit.clone()),
        };
        let mut operands: Vec<Source> = node.args.iter().enumerate().map(&mut operand).collect();
        let target = match self.func.ty(v).state() {
            Some(_) => Target::State(self.state(v)),
            None => {
                let (at, ty) = self.address(v);
                Target::Arena(at, intern(seen, ty))
            }
        };
        let sig = |arg| match arg {
            &Arg::Value(v) => SigArg::Value(self.func.ty(v)),
            &Arg::Weight(w) => SigArg::Weight(self.func.weight_type(w)),
            Arg::Lit(lit) => SigArg::Lit(lit),
        };
        let types: Vec<SigArg<'_>> = node.args.iter().map(sig).collect();
        let (ty, maxima) = (self.func.ty(v), &self.bucket.maxima);
        let packing = |source: &Source| match source {
            Source::Weight(index) => self.weights.packing(*index),
            _ => Packing::Stored,
        };
        let packings: Vec<Packing> = operands.iter().map(packing).collect();
        let products = Products::new(self.choices, &packings);
        let kernel = cpu::kernel(&Site { op: node.op, args: &types, ty, maxima, products: &products });
        for (i, source) in operands.iter_mut().enumerate().filter(|(i, _)| products.is_packed(*i)) {
            let Source::Weight(index) = source else { panic!("operand {i} is packed and no weight") };
            *source = Source::Packed(*index);
        }
        let scratch = self.bucket.funcs[self.call.func].scratch[v.index()];
        let scratch = scratch.map_or((0, 0), |(at, bytes)| (self.base + at, bytes));
        let needed = kernel.scratch_bytes();
        if scratch.1 < needed {
            let (func, value) = (&self.func.name, self.func.name(v));
            return Err(format!(
                "plan: @{func} %{value}: expected at least {needed} bytes of scratch, got {}",
                scratch.1
            ));
        }
        Ok(Launch { kernel, op: node.op.name, operands, target, scratch })
    }

    fn source(&self, v: Value, seen: &mut Vec<TensorType>) -> Source {
        if self.func.ty(v).state().is_some() {
            return Source::State(self.state(v));
        }
        if let Some(i) = self.param(v) {
            let ty = self.func.ty(v).tensor().expect("a parameter is a tensor");
            return Source::Param(i, intern(seen, ty));
        }
        let (at, ty) = self.address(v);
        Source::Arena(at, intern(seen, ty))
    }

    /// Index of the module parameter behind `v`, if it is one.
    pub(crate) fn param(&self, v: Value) -> Option<usize> {
        let storage = self.func.storage_of(v);
        let i = self.header.params.iter().position(|p| *p == storage)?;
        Some(self.call.params[i])
    }

    /// Index of the module state that a version belongs to.
    pub(crate) fn state(&self, v: Value) -> usize {
        let root = self.func.root(v);
        let i = self.header.states.iter().position(|s| *s == root);
        self.call.states[i.expect("a state descends from an input")]
    }

    /// Address of the memory behind `v`, with the type of `v` itself.
    pub(crate) fn address(&self, v: Value) -> (u64, &TensorType) {
        let ty = self.func.ty(v).tensor().expect("states are no values");
        let storage = self.func.storage_of(v);
        let plan = &self.bucket.graphs[self.g];
        let at = |list: &[Value]| list.iter().position(|t| *t == storage);
        if let Some(i) = at(&self.header.tensors) {
            return (plan.addresses[self.call.args[i]], ty);
        }
        if let Some(i) = at(&self.header.outs) {
            return (plan.addresses[self.call.outs[i]], ty);
        }
        let own = self.bucket.funcs[self.call.func].addresses[storage.index()];
        (self.base + own.expect("the plan has passed its check"), ty)
    }
}

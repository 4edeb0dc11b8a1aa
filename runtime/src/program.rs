//! A graph of a bucket as a flat list of launches with every operand resolved: what a step runs.
use crate::cpu::Launcher;
use ds4_ir::module::{Call, Header};
use ds4_ir::ops::SigArg;
use ds4_ir::plan::{Bucket, LaunchList};
use ds4_ir::{Arg, Func, Lit, Module, TensorType, Value};

/// Where an operand comes from.
pub(crate) enum Source {
    /// A value at an arena address.
    Arena(u64, TensorType),
    /// A parameter of the session.
    Param(usize, TensorType),
    /// A state of the session, read.
    State(usize),
    /// The state that the launch updates.
    Consumed,
    /// A weight of the module.
    Weight(usize),
    /// A literal.
    Lit(Lit),
}

/// Where a result goes.
pub(crate) enum Target {
    /// A value at an arena address.
    Arena(u64, TensorType),
    /// A state of the session, in place.
    State(usize),
}

/// One run of a kernel.
pub(crate) struct Launch {
    pub(crate) launcher: Launcher,
    pub(crate) operands: Vec<Source>,
    pub(crate) target: Target,
    /// Address and bytes of the kernel's scratch.
    pub(crate) scratch: (u64, u64),
}

/// The launches of one graph in one bucket.
pub(crate) struct Program {
    pub(crate) launches: Vec<Launch>,
}

/// Most operands of one launch.
pub(crate) const OPERANDS_MAX: usize = 24;

impl Program {
    /// Resolves graph `g` of the module; the plan has passed its check.
    ///
    /// # Errors
    /// A kernel whose scratch is too small.
    pub(crate) fn new(
        module: &Module,
        lists: &[LaunchList],
        bucket: &Bucket,
        g: usize,
    ) -> Result<Program, String> {
        let graph = &module.graphs[g];
        let mut launches = Vec::new();
        for (index, call) in graph.calls.iter().enumerate() {
            let func = &module.funcs[call.func];
            let base = bucket.graphs[g].parts[index];
            let place = Place { func, call, header: Header::of(func), bucket, g, base };
            for name in &lists[call.func].launches {
                let v = func.find(name).expect("the plan launches values of the function");
                launches.push(place.launch(v)?);
            }
        }
        Ok(Program { launches })
    }
}

/// One call, for resolving its operands.
struct Place<'a> {
    func: &'a Func,
    call: &'a Call,
    header: Header,
    bucket: &'a Bucket,
    g: usize,
    /// Where the function's part of the arena begins.
    base: u64,
}

impl Place<'_> {
    fn launch(&self, v: Value) -> Result<Launch, String> {
        let node = self.func.node(v).expect("a launch computes a node");
        let writes = node.op.writes();
        let operand = |(i, arg): (usize, &Arg)| match arg {
            Arg::Value(_) if writes == Some(i) => Source::Consumed,
            Arg::Value(a) => self.source(*a),
            Arg::Weight(w) => Source::Weight(self.call.weights[w.index()]),
            Arg::Lit(lit) => Source::Lit(lit.clone()),
        };
        let operands: Vec<Source> = node.args.iter().enumerate().map(operand).collect();
        assert!(operands.len() <= OPERANDS_MAX, "`{}` has {} operands", node.op.name, operands.len());
        let target = match self.func.ty(v).state() {
            Some(_) => Target::State(self.state(v)),
            None => {
                let (at, ty) = self.address(v);
                Target::Arena(at, ty)
            }
        };
        let sig = |arg| match arg {
            &Arg::Value(v) => SigArg::Value(self.func.ty(v)),
            &Arg::Weight(w) => SigArg::Weight(self.func.weight_type(w)),
            Arg::Lit(lit) => SigArg::Lit(lit),
        };
        let types: Vec<SigArg<'_>> = node.args.iter().map(sig).collect();
        let launcher = Launcher::new(node.op, &types, &self.bucket.maxima);
        let scratch = self.bucket.funcs[self.call.func].scratch[v.index()];
        let scratch = scratch.map_or((0, 0), |(at, bytes)| (self.base + at, bytes));
        let needed = launcher.scratch_bytes();
        if scratch.1 < needed {
            let (func, value) = (&self.func.name, self.func.name(v));
            return Err(format!(
                "plan: @{func} %{value}: expected at least {needed} bytes of scratch, got {}",
                scratch.1
            ));
        }
        Ok(Launch { launcher, operands, target, scratch })
    }

    fn source(&self, v: Value) -> Source {
        if self.func.ty(v).state().is_some() {
            return Source::State(self.state(v));
        }
        let storage = self.func.storage_of(v);
        if let Some(i) = self.header.params.iter().position(|p| *p == storage) {
            let ty = self.func.ty(v).tensor().expect("a parameter is a tensor").clone();
            return Source::Param(self.call.params[i], ty);
        }
        let (at, ty) = self.address(v);
        Source::Arena(at, ty)
    }

    /// Index of the module state that a version belongs to.
    fn state(&self, v: Value) -> usize {
        let root = self.func.root(v);
        let i = self.header.states.iter().position(|s| *s == root);
        self.call.states[i.expect("a state descends from an input")]
    }

    /// Address of the memory behind `v`, with the type of `v` itself.
    fn address(&self, v: Value) -> (u64, TensorType) {
        let ty = self.func.ty(v).tensor().expect("states are no values").clone();
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

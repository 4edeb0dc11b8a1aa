//! An engine: a compiled model with its weights mapped, shared by any number of sessions.
use crate::artifact::{Artifact, Kernels};
use crate::pool::Pool;
use crate::program::Program;
use crate::tune::{Choices, Tuned};
use crate::weights::Weights;
use crate::{Error, Result, Session, identity, layout};
use ds4_ir::module::Graph;
use ds4_ir::ops::{Sig, SigArg, Term};
use ds4_ir::plan::{Bucket, Plan};
use ds4_ir::{Arg, Dim, Func, Module, Node, Op, Scalar, Sym, TensorType, Type, Weight, WeightSource};
use std::path::Path;
use std::sync::Arc;

/// Most threads an engine may be asked to use.
const THREADS_MAX: usize = 1024;
/// Most bytes of an arena or a state; far above any machine, far below overflow.
const BYTES_MAX: u64 = 1 << 46;

/// A model on this machine. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) identity: String,
    pub(crate) module: Module,
    pub(crate) plan: Plan,
    pub(crate) main: usize,
    pub(crate) backend: Backend,
    /// Dropped after the backend, which may read them where they are mapped.
    pub(crate) weights: Weights,
    tuned: Tuned,
}

/// Where steps run.
pub(crate) enum Backend {
    /// On the processor.
    Cpu(CpuBackend),
    /// On a GPU.
    #[cfg(feature = "gpu")]
    Device(Arc<crate::device::Backend>),
}

impl Shared {
    /// What runs steps on the processor, for those who know that they do.
    pub(crate) fn cpu(&self) -> &CpuBackend {
        match &self.backend {
            Backend::Cpu(cpu) => cpu,
            #[cfg(feature = "gpu")]
            Backend::Device(_) => unreachable!("the session runs on a device"),
        }
    }
}

/// What runs steps on the processor.
pub(crate) struct CpuBackend {
    /// Programs of the graph `main`, one per bucket.
    pub(crate) programs: Vec<Program>,
    pub(crate) pool: Pool,
}

impl CpuBackend {
    /// Resolves graph `main` of a module whose plan has passed its check, `program` doing so for one
    /// bucket; `threads` 0 means one per core.
    fn new(
        plan: &Plan,
        threads: usize,
        program: &dyn Fn(&Bucket) -> std::result::Result<Program, String>,
    ) -> std::result::Result<Self, String> {
        if threads > THREADS_MAX {
            return Err(format!("threads: expected at most {THREADS_MAX}, got {threads}"));
        }
        let threads = match threads {
            0 => crate::pool::cores().min(THREADS_MAX),
            n => n,
        };
        let programs = plan.buckets.iter().map(program).collect::<std::result::Result<Vec<_>, _>>()?;
        let worker_bytes = programs.iter().map(|p| p.worker_bytes).max().unwrap_or(0);
        Ok(CpuBackend { programs, pool: Pool::new(threads, worker_bytes)? })
    }
}

impl Engine {
    /// Makes an engine of a compiled model: on the processor, or for an artifact with kernels on the
    /// first device that fits them. Relative weight paths are looked up from `base` first. `threads` 0
    /// means one per core.
    ///
    /// # Errors
    /// Weights that are missing or changed, a module that cannot be executed, too many threads; no
    /// device for an artifact with kernels.
    pub fn new(artifact: Artifact, base: &Path, threads: usize) -> Result<Engine> {
        #[cfg(feature = "gpu")]
        if artifact.kernels.is_some() {
            return Engine::on_device(artifact, base, &crate::device::Choice::default());
        }
        if let Some(kernels) = &artifact.kernels {
            let target = &kernels.target;
            return Err(Error::Invalid(format!(
                "the artifact is for {target}: this build knows no GPUs; build it with --features gpu"
            )));
        }
        let choices = Choices::of(artifact.tuning.as_ref());
        Engine::with(artifact, base, choices.tuned().clone(), |module, plan, weights, main, _| {
            let program = |b: &Bucket| Program::new(module, &plan.launches, b, main, (weights, &choices));
            Ok(Backend::Cpu(CpuBackend::new(plan, threads, &program).map_err(Error::Invalid)?))
        })
    }

    /// Makes an engine of an artifact with kernels on a device of the API they are for.
    ///
    /// # Errors
    /// As [`Engine::new`]; an artifact without kernels, no such device, not enough memory there.
    #[cfg(feature = "gpu")]
    pub fn on_device(artifact: Artifact, base: &Path, choice: &crate::device::Choice) -> Result<Engine> {
        Engine::with(artifact, base, Tuned::Never, |module, plan, weights, main, kernels| {
            let kernels = kernels.ok_or_else(|| {
                let why = "the artifact is for the processor: compile it for a GPU with --target";
                Error::Invalid(why.to_string())
            })?;
            let backend = crate::device::Backend::new(module, plan, kernels, weights, main, choice)?;
            Ok(Backend::Device(Arc::new(backend)))
        })
    }

    fn with(
        artifact: Artifact,
        base: &Path,
        tuned: Tuned,
        backend: impl FnOnce(&Module, &Plan, &Weights, usize, Option<&Kernels>) -> Result<Backend>,
    ) -> Result<Engine> {
        let weights = checked(&artifact, base)?;
        let Artifact { meta, module, plan, kernels, .. } = artifact;
        let main = module.graphs.iter().position(|g| g.name == "main").expect("checked");
        let backend = backend(&module, &plan, &weights, main, kernels.as_ref())?;
        let shared = Shared { identity: meta.identity, module, plan, weights, main, backend, tuned };
        Ok(Engine { shared: Arc::new(shared) })
    }

    /// The device that sessions run on; `None` for the processor.
    #[cfg(feature = "gpu")]
    pub fn device(&self) -> Option<&crate::device::DeviceInfo> {
        match &self.shared.backend {
            Backend::Cpu(_) => None,
            Backend::Device(backend) => Some(backend.device.info()),
        }
    }

    /// A new session at position 0.
    ///
    /// # Errors
    /// Not enough memory for its states.
    pub fn session(&self) -> Result<Session> {
        Session::new(self.clone())
    }

    /// The model's identity: hex of a blake3 over configuration, tokenizer and samples of all weights.
    pub fn identity(&self) -> &str {
        &self.shared.identity
    }

    /// The module that is executed.
    pub fn module(&self) -> &Module {
        &self.shared.module
    }

    /// The plan that is executed.
    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// The mapped weights, by index of the module's list.
    pub fn weights(&self) -> &dyn WeightSource {
        &self.shared.weights
    }

    /// Whether the kernels were chosen by measuring them here.
    pub fn tuned(&self) -> &Tuned {
        &self.shared.tuned
    }

    /// Number of threads that compute; 0 where a device does.
    pub fn threads(&self) -> usize {
        match &self.shared.backend {
            Backend::Cpu(cpu) => cpu.pool.threads(),
            #[cfg(feature = "gpu")]
            Backend::Device(_) => 0,
        }
    }
}

/// The weights of an artifact, proven to be those it was compiled from and such that its module can be
/// computed with them. Relative paths are looked up from `base` first.
///
/// # Errors
/// Weights that are missing or changed, a module that cannot be executed.
pub fn checked(artifact: &Artifact, base: &Path) -> Result<Weights> {
    let Artifact { meta, module, plan, table, .. } = artifact;
    let mut weights = Weights::open(module, table, base)?;
    identity::check(meta, module, table, &weights)?;
    // Repacked weights are for the processor's kernels.
    if artifact.kernels.is_none() {
        layout::open(artifact, &mut weights, base)?;
    }
    check(module, plan, &weights).map_err(Error::Invalid)?;
    Ok(weights)
}

/// What a module must fulfil beyond being well formed so that the engine can execute it.
fn check(module: &Module, plan: &Plan, weights: &Weights) -> std::result::Result<(), String> {
    let main = module.graph("main").ok_or("module: expected a graph @main, got none")?;
    check_main(module, main)?;
    if plan.buckets.is_empty() {
        return Err("plan: expected at least one bucket, got none".to_string());
    }
    let sizes = |b: &Bucket| (b.maxima.tokens, b.maxima.wanted);
    for pair in plan.buckets.windows(2) {
        let ((tokens, wanted), (more, more_wanted)) = (sizes(&pair[0]), sizes(&pair[1]));
        if more <= tokens || more_wanted < wanted {
            let got = format!("{tokens} tokens, {wanted} wanted, then {more} and {more_wanted}");
            return Err(format!("plan: expected buckets that grow, got {got}"));
        }
    }
    for bucket in &plan.buckets {
        if bucket.arena_bytes > BYTES_MAX {
            return Err(format!(
                "plan: expected an arena of at most {BYTES_MAX} bytes, got {}",
                bucket.arena_bytes
            ));
        }
        if bucket.maxima.ctx != module.ctx || bucket.maxima.tokens == 0 || bucket.maxima.wanted == 0 {
            return Err(format!(
                "plan: expected buckets for a context of {}, got {:?}",
                module.ctx, bucket.maxima
            ));
        }
    }
    for state in &module.states {
        let row = state.ty.scalar.row_bytes(state.ty.width as usize) as u64;
        let bytes = state.ty.kind.rows(u64::from(module.ctx)).checked_mul(row);
        if bytes.is_none_or(|b| b > BYTES_MAX) {
            return Err(format!("{}: expected at most {BYTES_MAX} bytes, got more", state.name));
        }
    }
    for graph in &module.graphs {
        for call in &graph.calls {
            for (_, node) in module.funcs[call.func].nodes() {
                check_tables(module, &module.funcs[call.func], node, &call.weights, weights)?;
            }
        }
    }
    Ok(())
}

/// `main(ids, pos: i32[t], want: i32[w])` returns `f32[w, vocab]` first.
fn check_main(module: &Module, main: &Graph) -> std::result::Result<(), String> {
    let ids = TensorType::new(Scalar::I32, [Dim::Sym(Sym::Tokens)]);
    let want = TensorType::new(Scalar::I32, [Dim::Sym(Sym::Wanted)]);
    let inputs = main.values[..main.inputs].iter().map(|v| v.ty.tensor());
    if !inputs.eq([Some(&ids), Some(&ids), Some(&want)]) {
        return Err(format!("@main: expected the inputs {ids}, {ids}, {want}"));
    }
    let logits = TensorType::new(Scalar::F32, [Dim::Sym(Sym::Wanted), Dim::Const(module.vocab)]);
    let first = main.results.first().and_then(|id| main.values[*id].ty.tensor());
    if first != Some(&logits) {
        return Err(format!("@main: expected {logits} as first result"));
    }
    Ok(())
}

/// Tables that are indexed by token id must have a row for each, and name experts that exist.
fn check_tables(
    module: &Module,
    func: &Func,
    node: &Node,
    bound: &[usize],
    weights: &Weights,
) -> std::result::Result<(), String> {
    for (table, experts) in tables(func, node)? {
        let index = bound[table.index()];
        let (name, matrix) = (&module.weights[index].name, weights.weight(index).matrix(0));
        if matrix.rows < module.vocab as usize {
            return Err(format!(
                "{name}: expected a row for each of {} tokens, got {}",
                module.vocab, matrix.rows
            ));
        }
        let Some(experts) = experts else { continue };
        for row in 0..matrix.rows {
            if let Some(bad) = matrix.int_row(row).find(|e| !(0..i64::from(experts)).contains(e)) {
                return Err(format!("{name}, token {row}: expected an expert below {experts}, got {bad}"));
            }
        }
    }
    Ok(())
}

/// Weights that `node`, or a part of its definition, indexes by token id; with the number of experts
/// for those that name experts.
pub(crate) fn tables(func: &Func, node: &Node) -> std::result::Result<Vec<(Weight, Option<u32>)>, String> {
    let weight = |arg: &Arg| if let Arg::Weight(w) = arg { Some(*w) } else { None };
    let columns = |ty: &Type| ty.tensor().and_then(|t| t.dims.last()?.constant());
    // An op, its table, and the type of its first operand.
    let entry = |op: &Op, table: Option<Weight>, first: Option<&Type>| match op.name {
        "embed_rows" => table.map(|w| (w, None)),
        "hash_experts" => table.map(|w| (w, first.and_then(columns))),
        _ => None,
    };
    let Some(definition) = node.op.definition() else {
        let first = node.values().next().map(|v| func.ty(v));
        return Ok(entry(node.op, node.args.iter().find_map(weight), first).into_iter().collect());
    };
    let sig = |arg| match arg {
        &Arg::Value(v) => SigArg::Value(func.ty(v)),
        &Arg::Weight(w) => SigArg::Weight(func.weight_type(w)),
        Arg::Lit(lit) => SigArg::Lit(lit),
    };
    let types = definition.types(&Sig { args: node.args.iter().map(sig).collect() })?;
    let applied = definition.terms.iter().filter_map(|term| {
        let Term::Apply(op, args) = term else { return None };
        let formal = |i: &usize| if let Term::Formal(at) = definition.terms[*i] { Some(at) } else { None };
        let table = args.iter().filter_map(formal).find_map(|at| weight(&node.args[at]));
        let first = match formal(&args[0]).map(|at| &node.args[at]) {
            Some(Arg::Value(v)) => Some(func.ty(*v)),
            Some(_) => None,
            None => types[args[0]].as_ref(),
        };
        entry(op, table, first)
    });
    Ok(applied.collect())
}

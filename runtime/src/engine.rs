//! An engine: a compiled model with its weights mapped, shared by any number of sessions.
use crate::artifact::Artifact;
use crate::program::Program;
use crate::weights::Weights;
use crate::{Error, Result, Session, identity};
use ds4_ir::module::Graph;
use ds4_ir::plan::Plan;
use ds4_ir::{Arg, Dim, Module, Node, Scalar, Sym, TensorType, WeightSource};
use rayon::ThreadPool;
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
    pub(crate) weights: Weights,
    /// Programs of the graph `main`, one per bucket.
    pub(crate) programs: Vec<Program>,
    pub(crate) main: usize,
    pub(crate) threads: ThreadPool,
}

impl Engine {
    /// Makes an engine of a compiled model. Relative weight paths are looked up from `base` first.
    /// `threads` 0 means one per core.
    ///
    /// # Errors
    /// Weights that are missing or changed, a module that cannot be executed, too many threads.
    pub fn new(artifact: Artifact, base: &Path, threads: usize) -> Result<Engine> {
        let Artifact { meta, module, plan, table, .. } = artifact;
        if threads > THREADS_MAX {
            return Err(Error::Invalid(format!("threads: expected at most {THREADS_MAX}, got {threads}")));
        }
        let weights = Weights::open(&module, &table, base)?;
        identity::check(&meta, &module, &table, &weights)?;
        check(&module, &plan, &weights).map_err(Error::Invalid)?;
        let main = module.graphs.iter().position(|g| g.name == "main").expect("checked");
        let program = |bucket| Program::new(&module, &plan.launches, bucket, main);
        let programs = plan.buckets.iter().map(program).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("ds4-{i}"));
        let threads = pool.build().map_err(|e| Error::Invalid(format!("threads: {e}")))?;
        let shared = Shared { identity: meta.identity, module, plan, weights, programs, main, threads };
        Ok(Engine { shared: Arc::new(shared) })
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

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.shared.threads.current_num_threads()
    }
}

/// What a module must fulfil beyond being well formed so that the engine can execute it.
fn check(module: &Module, plan: &Plan, weights: &Weights) -> std::result::Result<(), String> {
    let main = module.graph("main").ok_or("module: expected a graph @main, got none")?;
    check_main(module, main)?;
    if plan.buckets.is_empty() {
        return Err("plan: expected at least one bucket, got none".to_string());
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
                check_table(module, node, &call.weights, call.func, weights)?;
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
fn check_table(
    module: &Module,
    node: &Node,
    bound: &[usize],
    func: usize,
    weights: &Weights,
) -> std::result::Result<(), String> {
    let table = node.args.iter().find_map(|a| match a {
        Arg::Weight(w) if matches!(node.op.name, "embed_rows" | "hash_experts") => Some(bound[w.index()]),
        _ => None,
    });
    let Some(index) = table else { return Ok(()) };
    let (name, matrix) = (&module.weights[index].name, weights.weight(index).matrix(0));
    if matrix.rows < module.vocab as usize {
        return Err(format!(
            "{name}: expected a row for each of {} tokens, got {}",
            module.vocab, matrix.rows
        ));
    }
    if node.op.name == "hash_experts" {
        let func = &module.funcs[func];
        let scores = func.ty(node.values().next().expect("scores")).tensor().expect("a tensor");
        let experts = scores.dims[1].constant().map_or(0, i64::from);
        for row in 0..matrix.rows {
            if let Some(bad) = matrix.int_row(row).find(|e| !(0..experts).contains(e)) {
                return Err(format!("{name}, token {row}: expected an expert below {experts}, got {bad}"));
            }
        }
    }
    Ok(())
}

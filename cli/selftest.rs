//! What an artifact must answer to a few tokens: made by the compiler, verified where it runs.
use crate::compile::{Request, compile};
use crate::open;
use crate::target::{CompileTarget, DeviceArgs};
use anyhow::{Context, Result, bail};
use ds4_ir::{Bind, Buffer, Class, Interp};
use ds4_runtime::{Artifact, Engine, SelfTest, Want, Weights, checked};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Tokens of a test.
const TOKENS: usize = 16;
/// Logits kept per position.
const TOP: usize = 8;
/// Weights up to this size are evaluated in double precision, and their files hashed.
const SMALL_BYTES: u64 = 1_000_000_000;

/// Makes the test of an artifact that will lie in `folder`: by the interpreter in double precision
/// for a model of up to 1 GB, else by the engine in class `exact`.
///
/// # Errors
/// Weights that cannot be read.
pub fn make(artifact: &Artifact, model: &Path, folder: &Path, hash: bool) -> Result<SelfTest> {
    let module = &artifact.module;
    let n = TOKENS.min(module.ctx as usize);
    // Ids that every build draws alike, spread over the vocabulary by the model's identity.
    let mut random = blake3::Hasher::new().update(artifact.meta.identity.as_bytes()).finalize_xof();
    let mut id = || {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % u64::from(module.vocab)) as u32
    };
    let ids: Vec<u32> = (0..n).map(|_| id()).collect();
    let small = artifact.meta.files.iter().map(|f| f.bytes).sum::<u64>() <= SMALL_BYTES;
    let (made_by, logits) = if small {
        let weights = checked(artifact, folder)?;
        let graph = module.graph("main").expect("every module has it");
        let ints = |x: &mut dyn Iterator<Item = usize>| Buffer::Int(x.map(|n| n as i32).collect());
        let own = ints(&mut ids.iter().map(|id| *id as usize));
        let inputs = vec![own, ints(&mut (0..n)), ints(&mut (0..n))];
        let bind = Bind { start: 0, tokens: n, wanted: n };
        let values = Interp::<f64>::new(module, &weights).step(graph, inputs, &bind);
        let logits = values[graph.results[0]].buffer.real().iter().map(|x| *x as f32).collect();
        ("interpreter f64", logits)
    } else {
        let exact = compile(
            model,
            folder,
            Request { class: Class::Exact, ctx: Some(module.ctx), target: CompileTarget::Cpu },
        )?;
        ("engine exact", run(&Engine::new(exact, folder, 0)?, &ids)?)
    };
    let hashes = if small || hash { hash_files(artifact, folder)? } else { Vec::new() };
    let top = logits.chunks_exact(module.vocab as usize).map(largest).collect();
    Ok(SelfTest { made_by: made_by.to_string(), ids, top, hashes })
}

fn run(engine: &Engine, ids: &[u32]) -> Result<Vec<f32>> {
    let mut session = engine.session()?;
    Ok(session.advance(ids, Want::All, ids.len(), &AtomicBool::new(false), &mut |_| ())?)
}

/// The largest logits of a row with their ids.
fn largest(row: &[f32]) -> Vec<(u32, f32)> {
    let mut ids: Vec<usize> = (0..row.len()).collect();
    ids.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
    ids.into_iter().take(TOP).map(|i| (i as u32, row[i])).collect()
}

fn hash_files(artifact: &Artifact, folder: &Path) -> Result<Vec<String>> {
    let weights = Weights::open(&artifact.module, &artifact.table, folder)?;
    let total = weights.files().map(|(_, bytes)| bytes.len() as u64).sum();
    let bar = crate::progress::bar("hashing weights", total);
    let hash = |bytes: &[u8]| {
        let mut hasher = blake3::Hasher::new();
        for part in bytes.chunks(16 << 20) {
            hasher.update(part);
            bar.inc(part.len() as u64);
        }
        hasher.finalize().to_hex().to_string()
    };
    Ok(weights.files().map(|(_, bytes)| hash(bytes)).collect())
}

/// How far the engine may be from the test, by class: the worst difference, and the median one.
///
/// Classes that round differ from double precision by whole steps of their formats here and there
/// (spec 6.2), so for them the median says more than the worst.
fn tolerance(class: Class) -> (f64, f64) {
    match class {
        Class::Exact => (2e-3, 2e-4),
        Class::Official | Class::Fast => (2.0, 0.1),
    }
}

/// What verifying found.
pub struct Verdict {
    /// Largest difference of a logit.
    pub worst: f64,
    /// Median difference.
    pub median: f64,
    /// Largest differences allowed: worst and median.
    pub allowed: (f64, f64),
}

impl Verdict {
    /// Whether the artifact passes.
    pub fn passes(&self) -> bool {
        self.worst <= self.allowed.0 && self.median <= self.allowed.1
    }
}

/// Runs the test of an artifact that lies in `folder`.
///
/// # Errors
/// There is no test, or the model cannot be run.
pub fn verify(artifact: Artifact, folder: &Path, threads: usize, on: &DeviceArgs) -> Result<Verdict> {
    let test = artifact.selftest.clone();
    let test = test.context("the artifact carries no self-test: compile it with ds4c compile")?;
    let (class, vocab) = (artifact.module.class, artifact.module.vocab as usize);
    let sane =
        test.top.len() == test.ids.len() && test.top.iter().flatten().all(|(id, _)| (*id as usize) < vocab);
    if test.ids.is_empty() || !sane {
        bail!("self-test: expected logits of known tokens for each of its {} tokens", test.ids.len());
    }
    let logits = run(&open::engine(artifact, folder, threads, on)?, &test.ids)?;
    let mut differences: Vec<f64> = Vec::new();
    for (row, top) in logits.chunks_exact(vocab).zip(&test.top) {
        differences.extend(top.iter().map(|(id, x)| {
            let d = (f64::from(row[*id as usize]) - f64::from(*x)).abs();
            if d.is_nan() { f64::INFINITY } else { d }
        }));
    }
    differences.sort_by(f64::total_cmp);
    let worst = differences.last().copied().unwrap_or(f64::INFINITY);
    let median = differences.get(differences.len() / 2).copied().unwrap_or(f64::INFINITY);
    Ok(Verdict { worst, median, allowed: tolerance(class) })
}

/// Hashes every byte of every weight file and compares.
///
/// # Errors
/// No hashes were stored, or a file differs.
pub fn verify_bytes(artifact: &Artifact, folder: &Path) -> Result<()> {
    let hashes = artifact.selftest.as_ref().map_or(&[][..], |t| &t.hashes[..]);
    if hashes.is_empty() {
        bail!("the artifact carries no hashes of its weight files: compile it with --hash");
    }
    let got = hash_files(artifact, folder)?;
    for ((path, expected), got) in artifact.table.files.iter().zip(hashes).zip(&got) {
        if expected != got {
            bail!("{path}: expected the content {}, got {}", &expected[..16.min(expected.len())], &got[..16]);
        }
    }
    Ok(())
}

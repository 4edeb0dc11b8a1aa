//! From a model on disk to an artifact.
use crate::target::CompileTarget;
use anyhow::{Context, Result, bail};
use ds4_ir::plan::Plan;
use ds4_ir::{Class, Module, TensorType, WeightTable};
use ds4_models::graph::{self, GraphError, Options, WeightTypes};
use ds4_models::tokenizer::{Tokenizer, VocabParts};
use ds4_models::{Checkpoint, Config, Mix, Words};
use ds4_runtime::artifact::Kernels;
use ds4_runtime::{Artifact, Meta, Weights, mark, sample_all};
use std::path::{Path, PathBuf};

/// Context in tokens if none is asked for and the model allows it.
const CTX_DEFAULT: u32 = 32_768;

/// What to compile for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Numeric class.
    pub class: Class,
    /// Longest context in tokens; `None` for the model's, at most 32,768.
    pub ctx: Option<u32>,
    /// What runs it.
    pub target: CompileTarget,
}

/// Types of weights as the checkpoint has them.
struct Types<'a>(&'a Checkpoint);

impl WeightTypes for Types<'_> {
    fn weight_type(&self, name: &str) -> Result<TensorType, GraphError> {
        Ok(self.0.weight(name)?.ty)
    }
}

/// The module of the model at `model`, as its builders write it.
///
/// # Errors
/// A model that cannot be read or has no module of this class and context.
pub fn module_of(model: &Path, request: Request) -> Result<Module> {
    build(&Checkpoint::open(model)?, model, request)
}

fn build(checkpoint: &Checkpoint, model: &Path, request: Request) -> Result<Module> {
    let config = checkpoint.config();
    let ctx = request.ctx.unwrap_or(CTX_DEFAULT.min(config.max_position_embeddings));
    let (name, mtp_blocks) = (model_name(model), checkpoint.mtp_blocks().min(1));
    let options = Options { name, class: request.class, ctx, mtp_blocks };
    Ok(graph::build(config, &Types(checkpoint), &options)?)
}

/// Compiles the model at `model` into an artifact that will lie in `folder`.
///
/// # Errors
/// A model that cannot be read or has no module of this class and context.
pub fn compile(model: &Path, folder: &Path, request: Request) -> Result<Artifact> {
    let checkpoint = Checkpoint::open(model)?;
    let (config, name) = (checkpoint.config(), model_name(model));
    let module = build(&checkpoint, model, request)?;
    let (module, plan) = ds4_passes::optimize(&module, request.target.prices(), &mut |_, _| ())?;
    let mut kernels = kernels(&module, &plan, request.target)?;
    if let Some(kernels) = &mut kernels {
        add_binaries(kernels, request.target)?;
    }

    let entries = module.weights.iter().map(|w| checkpoint.weight(&w.name));
    let entries = entries.collect::<Result<_, _>>()?;
    let files = checkpoint.files().iter().map(|f| relative(f, folder)).collect::<Result<_>>()?;
    let table = WeightTable { files, entries };
    let weights = Weights::open(&module, &table, folder)?;
    let tokenizer = words(&checkpoint)?;

    let samples = sample_all(&module, &weights);
    let marks = weights.files().map(|(path, _)| mark(path)).collect::<Result<_, _>>()?;
    let mut identity = blake3::Hasher::new();
    identity.update(format!("{config:?}").as_bytes());
    identity.update(blake3::hash(tokenizer.as_deref().unwrap_or_default()).as_bytes());
    for (weight, sample) in module.weights.iter().zip(&samples) {
        identity.update(format!("{}: {} {sample}\n", weight.name, weight.ty).as_bytes());
    }
    let meta = Meta {
        compiler: format!("ds4c {}", env!("CARGO_PKG_VERSION")),
        model: name,
        identity: identity.finalize().to_hex().to_string(),
        bos: config.bos_token_id,
        eos: config.eos_token_ids.clone(),
        files: marks,
        samples,
    };
    Ok(Artifact {
        meta,
        module,
        plan,
        table,
        tokenizer,
        kernels,
        selftest: None,
        layouts: None,
        tuning: None,
    })
}

/// The kernels of a module without binaries, `None` for the processor, which has its own.
///
/// # Errors
/// A build without the feature `gpu`; what the target cannot do.
#[cfg(feature = "gpu")]
pub(crate) fn kernels(module: &Module, plan: &Plan, target: CompileTarget) -> Result<Option<Kernels>> {
    let CompileTarget::Gpu(target) = target else { return Ok(None) };
    crate::kernels::kernels(module, plan, target).map(Some)
}

#[cfg(feature = "gpu")]
fn add_binaries(kernels: &mut Kernels, target: CompileTarget) -> Result<()> {
    let CompileTarget::Gpu(target) = target else { return Ok(()) };
    crate::kernels::add_binaries(kernels, target, &mut |line| eprintln!("note: {line}"))
}

#[cfg(not(feature = "gpu"))]
fn add_binaries(_kernels: &mut Kernels, _target: CompileTarget) -> Result<()> {
    Ok(())
}

#[cfg(not(feature = "gpu"))]
pub(crate) fn kernels(_module: &Module, _plan: &Plan, target: CompileTarget) -> Result<Option<Kernels>> {
    match target {
        CompileTarget::Cpu => Ok(None),
        CompileTarget::Gpu(_) => {
            bail!("target {target}: this build knows no GPUs; build it with --features gpu")
        }
    }
}

/// The module of a built-in configuration, its weights of the types of `mix`: nothing is read.
///
/// # Errors
/// A class or context that the model does not have.
pub fn module_without_weights(name: &str, config: &Config, mix: Mix, request: Request) -> Result<Module> {
    let types = graph::Builtin::new(config, mix);
    let ctx = request.ctx.unwrap_or(CTX_DEFAULT.min(config.max_position_embeddings));
    let options = Options {
        name: name.to_string(),
        class: request.class,
        ctx,
        mtp_blocks: config.num_nextn_predict_layers.min(1),
    };
    Ok(graph::build(config, &types, &options)?)
}

/// The last part of the path, made of characters that a name may have.
fn model_name(model: &Path) -> String {
    let stem =
        model.canonicalize().ok().and_then(|p| p.file_stem().map(|s| s.to_string_lossy().into_owned()));
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = stem.unwrap_or_default().chars().map(allowed).collect();
    // A name must start like a word of the language, which `->` ends.
    let name = name.trim_matches('-').to_string();
    if name.is_empty() { "model".to_string() } else { name }
}

/// The path of a weight file as the artifact keeps it: relative where it lies below the artifact.
fn relative(file: &Path, folder: &Path) -> Result<String> {
    let absolute = |p: &Path| p.canonicalize().with_context(|| p.display().to_string());
    let (file, folder) = (absolute(file)?, absolute(folder)?);
    let path: PathBuf = file.strip_prefix(&folder).map_or_else(|_| file.clone(), Path::to_path_buf);
    match path.to_str() {
        Some(text) => Ok(text.to_string()),
        None => bail!("{}: expected a path in UTF-8", path.display()),
    }
}

/// The tokenizer as a `tokenizer.json`, `None` for a model without words.
fn words(checkpoint: &Checkpoint) -> Result<Option<Vec<u8>>> {
    let vocab_size = checkpoint.config().vocab_size as usize;
    let (tokenizer, place) = match checkpoint.words() {
        Words::None => return Ok(None),
        Words::TokenizerJson(path) => {
            let place = path.display().to_string();
            let bytes = std::fs::read(path).with_context(|| place.clone())?;
            (Tokenizer::from_json(&bytes).with_context(|| place.clone())?, place)
        }
        Words::Gguf(vocab) => {
            let place = "the vocabulary of the GGUF".to_string();
            match Tokenizer::from_vocab(&VocabParts::from(vocab.clone())) {
                Ok(tokenizer) => (tokenizer, place),
                // Token ids still work; commands that need words say that there are none.
                Err(why) => {
                    eprintln!("note: {place} is not usable, so only commands on token ids work: {why}");
                    return Ok(None);
                }
            }
        }
    };
    if tokenizer.vocab_size() > vocab_size {
        bail!(
            "{place}: expected at most {vocab_size} tokens, as the model has, got {}",
            tokenizer.vocab_size()
        );
    }
    Ok(Some(tokenizer.to_json()))
}

//! Models of true geometry with random weights, as GGUF.
//!
//! For measuring a machine before a download of hundreds of gigabytes: names, shapes, types and
//! order are those of the real files, the numbers are drawn so that activations keep their size.
//! With [`Alias`] the layers share a few sets of weights through equal offsets, so that all layers
//! of Flash exist in 7 GB.
//!
//! Files are written front to back with bounded memory. The bytes of a tensor depend on the seed
//! and on what shares it, not on the rest of the model.
mod random;
mod vocab;

use crate::gguf::{GgufVocab, TensorInfo, Value, header_bytes, metadata, tensor_bytes};
use crate::{Config, Content, Error, Mix, Place, Result, StoredType, Tensor, tensors};
use ds4_ir::Scalar;
use random::{Numbers, Rng};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

pub use vocab::{placeholder_vocab, vocab_from_json};

/// Alignment of tensors in bytes: a page, so that a tensor can be mapped alone.
const ALIGNMENT: u32 = 4096;

/// How many sets of weights the layers share: layer i has set i modulo the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alias {
    /// Sets of routed experts.
    pub expert_sets: u32,
    /// Sets of everything else but expert tables.
    pub dense_sets: u32,
}

impl Default for Alias {
    fn default() -> Alias {
        Alias { expert_sets: 3, dense_sets: 3 }
    }
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The model; [`Config::truncated`] gives one with fewer layers. MTP blocks are not written.
    pub config: Config,
    /// `general.name`.
    pub name: String,
    /// Element types.
    pub mix: Mix,
    /// Sharing between layers; `None` gives every layer its own bytes.
    pub alias: Option<Alias>,
    /// The vocabulary.
    pub vocab: GgufVocab,
    /// Seed of all weights.
    pub seed: u64,
}

/// One run of bytes in the data section and what fills it.
struct Filled {
    /// Names the bytes: equal keys share them.
    key: String,
    content: Content,
    ty: StoredType,
    shape: Vec<u64>,
    numbers: Numbers,
    offset: u64,
}

/// The tensors of the file in order, with their offsets in the data section.
///
/// # Errors
/// [`Error::Unsupported`] for a mix that GGUF cannot hold and for rows that are no whole blocks.
pub fn layout(spec: &Spec) -> Result<Vec<TensorInfo>> {
    Ok(plan(spec)?.0)
}

/// Writes the file; `progress` hears of bytes written and bytes in all.
///
/// # Errors
/// Those of [`layout`], and [`Error::Io`].
pub fn write(spec: &Spec, out: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let (infos, runs) = plan(spec)?;
    let header = header_bytes(&keys(spec), &infos);
    let last = runs.last().map_or(0, |run| run.offset + tensor_bytes(run.ty, &run.shape));
    let total = header.len() as u64 + last.next_multiple_of(u64::from(ALIGNMENT));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(out).map_err(Error::io(out))?);
    file.write_all(&header).map_err(Error::io(out))?;
    let mut written = header.len() as u64;
    let mut buffer = Vec::new();
    for run in &runs {
        let mut rng = Rng::new(spec.seed, &run.key);
        let mut blocks = random::blocks(run.ty, &run.shape);
        while 0 < blocks {
            let n = blocks.min(random::CHUNK_BLOCKS);
            match run.content {
                Content::Ids => {
                    random::fill_ids(&mut rng, spec.config.n_routed_experts, run.shape[1], n, &mut buffer)
                }
                _ => random::fill(&mut rng, run.ty, run.numbers, n, &mut buffer),
            }
            file.write_all(&buffer).map_err(Error::io(out))?;
            blocks -= n;
            written += buffer.len() as u64;
            progress(written, total);
        }
        let padding = written.next_multiple_of(u64::from(ALIGNMENT)) - written;
        file.write_all(&vec![0; padding as usize]).map_err(Error::io(out))?;
        written += padding;
    }
    assert_eq!(written, total, "the plan and the file agree");
    file.flush().map_err(Error::io(out))?;
    progress(total, total);
    Ok(())
}

/// All metadata of the file.
fn keys(spec: &Spec) -> Vec<(String, Value)> {
    let mut all = vec![
        ("general.architecture".into(), Value::str("deepseek4")),
        ("general.name".into(), Value::str(&spec.name)),
        ("general.alignment".into(), Value::U32(ALIGNMENT)),
        ("general.quantization_version".into(), Value::U32(2)),
    ];
    all.extend(metadata(&spec.config));
    let vocab = &spec.vocab;
    let tokenizer = [
        ("model", Value::str(&vocab.model)),
        ("pre", Value::str(&vocab.pre)),
        ("tokens", Value::strings(&vocab.tokens)),
        ("token_type", Value::i32s(&vocab.token_type)),
        ("merges", Value::strings(&vocab.merges)),
        ("bos_token_id", Value::U32(vocab.bos)),
        ("eos_token_id", Value::U32(vocab.eos)),
        ("add_bos_token", Value::Bool(true)),
    ];
    all.extend(tokenizer.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)));
    all
}

/// Tensors, and the runs of bytes behind them in the order of the file.
fn plan(spec: &Spec) -> Result<(Vec<TensorInfo>, Vec<Filled>)> {
    let (mut infos, mut runs) = (Vec::new(), Vec::<Filled>::new());
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut end = 0;
    for tensor in tensors(&spec.config) {
        let ty = stored_type(spec.mix.scalar(&tensor), &tensor)?;
        let shape: Vec<u64> = tensor.shape.iter().map(|n| u64::from(*n)).collect();
        let key = sharing_key(spec, &tensor, ty);
        let index = *known.entry(key.clone()).or_insert(runs.len());
        if index == runs.len() {
            let bytes = tensor_bytes(ty, &shape);
            let (content, numbers) = (tensor.content(), numbers(&tensor));
            runs.push(Filled { key, content, ty, shape: shape.clone(), numbers, offset: end });
            end = (end + bytes).next_multiple_of(u64::from(ALIGNMENT));
        }
        assert_eq!((runs[index].ty, &runs[index].shape), (ty, &shape), "{}", tensor.name);
        let name = tensor.spellings(crate::Container::Gguf).swap_remove(0);
        infos.push(TensorInfo { name, ty, shape, offset: runs[index].offset });
    }
    Ok((infos, runs))
}

/// The GGUF type of a tensor, if its rows are whole blocks of it.
fn stored_type(scalar: Scalar, tensor: &Tensor) -> Result<StoredType> {
    let ty = match scalar {
        Scalar::F32 => StoredType::F32,
        Scalar::F16 => StoredType::F16,
        Scalar::Bf16 => StoredType::Bf16,
        Scalar::I32 => StoredType::I32,
        Scalar::Q8_0 => StoredType::Q8_0,
        Scalar::Q4K => StoredType::Q4K,
        Scalar::Q2K => StoredType::Q2K,
        Scalar::Iq2Xxs => StoredType::Iq2Xxs,
        Scalar::Mxfp4 => StoredType::Mxfp4,
        other => {
            let why = format!("expected an element type of GGUF, got {other}");
            return Err(Error::Unsupported { thing: tensor.name.clone(), why });
        }
    };
    let width = *tensor.shape.last().expect("no tensor has rank 0") as usize;
    if !width.is_multiple_of(scalar.block()) {
        let why =
            format!("expected rows of whole {scalar} blocks of {}, got rows of {width}", scalar.block());
        return Err(Error::Unsupported { thing: tensor.name.clone(), why });
    }
    Ok(ty)
}

/// Names the bytes of a tensor. Layers of one set share what has the same name, type, and, in a
/// compressor, ratio; expert tables are each layer's own.
fn sharing_key(spec: &Spec, tensor: &Tensor, ty: StoredType) -> String {
    let (Some(alias), Place::Layer(layer)) = (spec.alias, tensor.place) else {
        return tensor.name.clone();
    };
    let sets = match tensor.content() {
        Content::Ids => return tensor.name.clone(),
        Content::Experts => alias.expert_sets,
        _ => alias.dense_sets,
    };
    let leaf = &tensor.name[format!("blk.{layer}.").len()..];
    let ratio = if leaf.contains("compressor") { spec.config.ratio(layer) } else { 0 };
    format!("set{}.{leaf}.{ratio}.{ty}", layer % sets.max(1))
}

/// The distribution of a tensor's numbers: products of a matrix keep the size of its input, norms
/// are near one, gates and sinks are moderate.
fn numbers(tensor: &Tensor) -> Numbers {
    let leaf = tensor.name.rsplit('.').next().expect("names are not empty");
    let fan_in = |gain: f32| gain / (*tensor.shape.last().expect("no tensor has rank 0") as f32).sqrt();
    let (mean, deviation) = match leaf {
        "token_embd" => (0.0, 1.0),
        "output" => (0.0, fan_in(2.0)),
        "exp_probs_b" => (0.0, 0.02),
        "attn_sinks" => (0.0, 0.5),
        "output_hc_base" => (0.0, 0.1),
        "hc_attn_base" | "hc_ffn_base" => (0.0, 0.3),
        _ if leaf.ends_with("_scale") => (1.0, 0.0),
        _ if leaf.ends_with("_ape") => (0.0, 0.2),
        _ if leaf.ends_with("norm") => (1.0, 0.05),
        _ => (0.0, fan_in(1.0)),
    };
    Numbers { mean, deviation }
}

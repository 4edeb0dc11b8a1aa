//! A model on disk: its configuration, and where each of its weights lies.
//!
//! Opening reads headers only. Whatever a file calls a tensor and however it stores it, a weight
//! comes out as one [`WeightEntry`] under the project's name, with its shape checked against the
//! configuration.
mod folder;
mod resolve;

use crate::gguf::{self, GgufVocab};
use crate::{Config, Container, Error, Result, StoredTensor, Tensor, mtp_tensors, tensors};
use ds4_ir::{WeightEntry, WeightTable};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where a model's tokenizer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Words {
    /// A `tokenizer.json`.
    TokenizerJson(PathBuf),
    /// The vocabulary of a GGUF.
    Gguf(GgufVocab),
    /// There is none: the model runs on token ids.
    None,
}

/// An opened model. Holds no file open and no weight in memory.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Config,
    container: Container,
    files: Vec<PathBuf>,
    /// File index and tensor by stored name.
    stored: BTreeMap<String, (u32, StoredTensor)>,
    /// The model's tensors by the project's name.
    model: BTreeMap<String, Tensor>,
    mtp_blocks: u32,
    words: Words,
}

/// What a container's reader found, before the model's tensors are looked for.
struct Contents {
    config: Config,
    container: Container,
    files: Vec<PathBuf>,
    stored: BTreeMap<String, (u32, StoredTensor)>,
    words: Words,
}

impl From<gguf::Model> for Contents {
    fn from(model: gguf::Model) -> Contents {
        Contents {
            config: model.config,
            container: Container::Gguf,
            files: model.files,
            stored: model.tensors,
            words: model.vocab.map_or(Words::None, Words::Gguf),
        }
    }
}

impl Checkpoint {
    /// Opens a Hugging Face folder (`config.json` with `model.safetensors`, or with shards and
    /// their `model.safetensors.index.json`) or a GGUF (one file, or any file of a split one).
    ///
    /// # Errors
    /// Files that cannot be read, break their format, or describe a model that ds4 does not
    /// compute. Missing and misshapen tensors are found by [`Checkpoint::weight`].
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        let contents = match path.file_name().and_then(|n| n.to_str()) {
            _ if metadata.is_dir() => folder::read(path)?,
            Some(name) if name == "config.json" || name.ends_with(".safetensors") => {
                let why = "expected the folder that this file lies in".to_owned();
                return Err(Error::Unsupported { thing: path.display().to_string(), why });
            }
            _ => Contents::from(gguf::open(path)?),
        };
        Ok(Checkpoint::new(path, contents))
    }

    fn new(path: &Path, contents: Contents) -> Checkpoint {
        let Contents { config, container, files, stored, words } = contents;
        let blocks = (0..config.num_nextn_predict_layers).map(|j| mtp_tensors(&config, j));
        let model = tensors(&config).into_iter().chain(blocks.flatten());
        let model = model.map(|t| (t.name.clone(), t)).collect();
        let path = path.to_path_buf();
        let mut checkpoint =
            Checkpoint { path, config, container, files, stored, model, mtp_blocks: 0, words };
        checkpoint.mtp_blocks = checkpoint.count_mtp_blocks();
        checkpoint
    }

    /// MTP blocks whose first own tensor is there. A configuration may speak of blocks that the
    /// files lack: transformers writes none.
    fn count_mtp_blocks(&self) -> u32 {
        let present = |j: &u32| {
            let probe = &self.model[&format!("mtp.{j}.e_proj")];
            self.find(&probe.spellings(self.container)).is_some()
        };
        (0..self.config.num_nextn_predict_layers).take_while(present).count() as u32
    }

    /// The hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The weight files; [`ds4_ir::Part::file`] counts in this order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The naming of the files.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Where the tokenizer is.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// MTP blocks that the files hold.
    pub fn mtp_blocks(&self) -> u32 {
        self.mtp_blocks
    }

    /// Where a weight lies, by the project's name.
    ///
    /// # Errors
    /// [`Error::UnknownWeight`], [`Error::Missing`], [`Error::Misshapen`], [`Error::WrongType`], or
    /// [`Error::Unsupported`] for storage that a weight-table entry cannot express.
    pub fn weight(&self, name: &str) -> Result<WeightEntry> {
        match self.model.get(name) {
            Some(tensor) => self.resolve(tensor),
            None => Err(Error::UnknownWeight { name: crate::error::clip(name) }),
        }
    }

    /// All weights of the main stack, sorted by name.
    ///
    /// # Errors
    /// The first one of [`Checkpoint::weight`].
    pub fn all_weights(&self) -> Result<Vec<WeightEntry>> {
        self.sorted(tensors(&self.config))
    }

    /// All weights of the MTP blocks that the files hold, sorted by name.
    ///
    /// # Errors
    /// The first one of [`Checkpoint::weight`].
    pub fn mtp_weights(&self) -> Result<Vec<WeightEntry>> {
        self.sorted((0..self.mtp_blocks).flat_map(|j| mtp_tensors(&self.config, j)).collect())
    }

    /// The weight table of the main stack and, if the files hold them, the MTP blocks.
    ///
    /// # Errors
    /// Those of [`Checkpoint::weight`], and a path that is not Unicode.
    pub fn table(&self) -> Result<WeightTable> {
        let unicode = |path: &PathBuf| match path.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => {
                let thing = path.display().to_string();
                Err(Error::Unsupported { thing, why: "expected a path in Unicode".into() })
            }
        };
        let files = self.files.iter().map(unicode).collect::<Result<_>>()?;
        let mut entries = self.all_weights()?;
        entries.extend(self.mtp_weights()?);
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(WeightTable { files, entries })
    }

    /// Names of stored tensors that no weight of a table uses, sorted: those of parts that ds4 does
    /// not compute, or misspelled ones.
    pub fn unused(&self, table: &WeightTable) -> Vec<&str> {
        let parts = table.entries.iter().flat_map(|e| &e.parts);
        let starts = |p: &ds4_ir::Part| {
            let (file, offset, stride) = (p.file, p.offset, p.stride);
            (0..u64::from(p.count)).map(move |i| (file, offset + i * stride))
        };
        let used: BTreeSet<(u32, u64)> = parts.flat_map(starts).collect();
        let unused = |(_, (file, t)): &(&String, &(u32, StoredTensor))| !used.contains(&(*file, t.offset));
        self.stored.iter().filter(unused).map(|(name, _)| name.as_str()).collect()
    }

    fn sorted(&self, mut wanted: Vec<Tensor>) -> Result<Vec<WeightEntry>> {
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.iter().map(|t| self.resolve(t)).collect()
    }
}

//! A model in one GGUF or in several that name one another.
use super::{GgufVocab, Header, Metadata, limits::SPLITS_MAX, read_header};
use crate::error::clip;
use crate::{Config, Error, Result, StoredTensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model's configuration, vocabulary and tensors.
#[derive(Clone, Debug)]
pub struct Model {
    /// Hyperparameters.
    pub config: Config,
    /// The vocabulary, if there is one.
    pub vocab: Option<GgufVocab>,
    /// The files in the order of their numbers.
    pub files: Vec<PathBuf>,
    /// File index and tensor by name.
    pub tensors: BTreeMap<String, (u32, StoredTensor)>,
}

/// Opens a model by its file, or by any file of a split one.
///
/// # Errors
/// Those of [`read_header`]; files of a split that are missing or do not fit together; a
/// configuration that ds4 does not compute.
pub fn open(path: &Path) -> Result<Model> {
    let mut header = read_header(path)?;
    let count = split_key(path, &header, "split.count")?.unwrap_or(1);
    let files = if count <= 1 { vec![path.to_path_buf()] } else { names(path, count)? };
    let mut tensors = BTreeMap::new();
    let mut metadata = None;
    for (i, file) in files.iter().enumerate() {
        if file != path {
            header = read_header(file)?;
        } else if 0 < i {
            // The given file was read to learn the count; reading it again keeps one in memory.
            header = read_header(path)?;
        }
        if 1 < count {
            check_number(file, &header, i as u64, count)?;
        }
        for (name, tensor) in std::mem::take(&mut header.tensors) {
            if tensors.contains_key(&name) {
                return Err(Error::damaged(file, name, "each tensor in one file", "a second one"));
            }
            tensors.insert(name, (i as u32, tensor));
        }
        if i == 0 {
            metadata = Some(std::mem::take(&mut header.metadata));
        }
    }
    let mut metadata: Metadata = metadata.expect("there is at least one file");
    let config = super::config::read(&metadata, &|name| tensors.contains_key(name))?;
    let vocab = GgufVocab::take(&mut metadata)?;
    Ok(Model { config, vocab, files, tensors })
}

fn split_key(path: &Path, header: &Header, key: &str) -> Result<Option<u64>> {
    match header.metadata.get(key).map(|v| v.as_u64().ok_or(v)) {
        None => Ok(None),
        Some(Ok(n)) if n <= SPLITS_MAX => Ok(Some(n)),
        Some(Ok(n)) => Err(Error::damaged(path, key, format!("at most {SPLITS_MAX}"), n)),
        Some(Err(_)) => Err(Error::damaged(path, key, "a whole number", "another value")),
    }
}

fn check_number(path: &Path, header: &Header, number: u64, count: u64) -> Result<()> {
    for (key, expected) in [("split.count", count), ("split.no", number)] {
        let got = split_key(path, header, key)?;
        if got != Some(expected) {
            let got = got.map_or("nothing".into(), |n| n.to_string());
            return Err(Error::damaged(path, key, expected.to_string(), got));
        }
    }
    Ok(())
}

/// The paths of all files of a split, from one of them: `…-00002-of-00005.gguf`.
fn names(path: &Path, count: u64) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let ending = format!("-of-{count:05}.gguf");
    let stem = name.strip_suffix(&ending).and_then(|s| s.len().checked_sub(6).and_then(|n| s.get(..n)));
    let Some(stem) = stem else {
        let expected = format!("a name that ends in -NNNNN{ending}");
        return Err(Error::damaged(path, "split.count", expected, clip(name)));
    };
    Ok((1..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}{ending}"))).collect())
}

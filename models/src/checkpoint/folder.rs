//! Hugging Face folders: `config.json` beside one safetensors file or an index of shards.
use super::{Contents, Words};
use crate::config::limits::CONFIG_BYTES_MAX;
use crate::error::{clip, open_file};
use crate::safetensors::{HEADER_BYTES_MAX, read_header};
use crate::{Config, Container, Error, Result, StoredTensor};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most shards of a checkpoint.
const SHARDS_MAX: usize = 4096;

pub(super) fn read(folder: &Path) -> Result<Contents> {
    let config = Config::from_json(&read_text(&folder.join("config.json"), CONFIG_BYTES_MAX)?)?;
    let single = folder.join("model.safetensors");
    let (files, stored) = if single.exists() {
        let tensors = read_header(&single)?;
        let stored = tensors.into_iter().map(|(name, tensor)| (name, (0, tensor))).collect();
        (vec![single], stored)
    } else {
        read_shards(folder)?
    };
    let tokenizer = folder.join("tokenizer.json");
    let words = if tokenizer.is_file() { Words::TokenizerJson(tokenizer) } else { Words::None };
    Ok(Contents { config, container: Container::Safetensors, files, stored, words })
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

type Shards = (Vec<PathBuf>, BTreeMap<String, (u32, StoredTensor)>);

fn read_shards(folder: &Path) -> Result<Shards> {
    let path = folder.join("model.safetensors.index.json");
    let text = read_text(&path, HEADER_BYTES_MAX)?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|e| Error::damaged(&path, "index", "a weight_map", e))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        shards.entry(shard).or_default().push(tensor);
    }
    if SHARDS_MAX < shards.len() {
        return Err(Error::damaged(&path, "index", format!("at most {SHARDS_MAX} files"), shards.len()));
    }
    let mut files = Vec::new();
    let mut stored = BTreeMap::new();
    for (shard, tensors) in shards {
        if !is_plain_name(shard) {
            return Err(Error::damaged(&path, "weight_map", "names of files in the same folder", shard));
        }
        let shard_path = folder.join(shard);
        let mut header = read_header(&shard_path)?;
        let index = files.len() as u32;
        for name in tensors {
            let Some(tensor) = header.remove(name) else {
                let expected = format!("a tensor {} as the index says", clip(name));
                return Err(Error::damaged(&shard_path, "header", expected, "none of that name"));
            };
            stored.insert(name.to_owned(), (index, tensor));
        }
        files.push(shard_path);
    }
    Ok((files, stored))
}

/// Whether a name stays in its folder.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', '\0', ':']) && name != "." && name != ".."
}

/// Reads a text of at most `limit` bytes.
fn read_text(path: &Path, limit: u64) -> Result<String> {
    let (file, _) = open_file(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if limit < bytes.len() as u64 {
        return Err(Error::damaged(path, "file", format!("at most {limit} bytes"), "more"));
    }
    String::from_utf8(bytes).map_err(|e| Error::damaged(path, "file", "UTF-8", e.utf8_error()))
}

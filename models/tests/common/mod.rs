//! What several tests need: fixtures, scratch folders, a safetensors writer of their own.
#![allow(dead_code, reason = "no test uses all of it")]
use ds4_ir::{Role, WeightEntry};
use ds4_models::Checkpoint;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub(crate) const FIXTURES: [&str; 2] = ["flash-bf16", "pro-mixed"];

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// An empty folder of this test's own.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A tensor with its bytes, as a file has it.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) data: Vec<u8>,
}

/// Reads a safetensors file without the code under test.
pub(crate) fn read_raw(path: &Path) -> Vec<Raw> {
    let bytes = fs::read(path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let map: Map<String, Value> = serde_json::from_slice(&bytes[8..header]).unwrap();
    let tensor = |(name, value): (&String, &Value)| {
        let at = |i: usize| header + value["data_offsets"][i].as_u64().unwrap() as usize;
        Raw {
            name: name.clone(),
            dtype: value["dtype"].as_str().unwrap().to_owned(),
            shape: value["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect(),
            data: bytes[at(0)..at(1)].to_vec(),
        }
    };
    map.iter().filter(|(name, _)| *name != "__metadata__").map(tensor).collect()
}

pub(crate) fn write_raw(path: &Path, tensors: &[Raw]) {
    let (mut map, mut end) = (Map::new(), 0);
    for t in tensors {
        let offsets = [end, end + t.data.len()];
        map.insert(t.name.clone(), json!({"dtype": t.dtype, "shape": t.shape, "data_offsets": offsets}));
        end = offsets[1];
    }
    let mut header = serde_json::to_vec(&map).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    tensors.iter().for_each(|t| bytes.extend(&t.data));
    fs::write(path, bytes).unwrap();
}

/// Writes a folder with a config and one safetensors file.
pub(crate) fn write_folder(folder: &Path, config: &str, tensors: &[Raw]) {
    fs::write(folder.join("config.json"), config).unwrap();
    write_raw(&folder.join("model.safetensors"), tensors);
}

/// The bytes an entry points to: codes, then scales, each in expert order.
pub(crate) fn entry_bytes(checkpoint: &Checkpoint, entry: &WeightEntry) -> [Vec<u8>; 2] {
    [Role::Codes, Role::Scales].map(|role| {
        let mut bytes = Vec::new();
        for part in entry.parts.iter().filter(|p| p.role == role) {
            let mut file = fs::File::open(&checkpoint.files()[part.file as usize]).unwrap();
            for i in 0..u64::from(part.count) {
                file.seek(SeekFrom::Start(part.offset + i * part.stride)).unwrap();
                let start = bytes.len();
                bytes.resize(start + part.bytes as usize, 0);
                file.read_exact(&mut bytes[start..]).unwrap();
            }
        }
        bytes
    })
}

/// Every weight's type and bytes by name, MTP blocks included.
pub(crate) fn contents(checkpoint: &Checkpoint) -> BTreeMap<String, (String, [Vec<u8>; 2])> {
    let table = checkpoint.table().unwrap();
    let item = |e: &WeightEntry| (e.name.clone(), (e.ty.to_string(), entry_bytes(checkpoint, e)));
    table.entries.iter().map(item).collect()
}

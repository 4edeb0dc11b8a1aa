//! Weight files that changed, went away or hold what no weight may hold.
use crate::common::{artifact, fixture};
use ds4_ir::Class;
use ds4_runtime::{Artifact, Engine, Want};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A fixture that may be damaged, and its artifact.
struct Lab {
    _folder: TempDir,
    model: PathBuf,
    artifact: Artifact,
}

fn lab() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().to_path_buf();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("flash-bf16").join(name), model.join(name)).unwrap();
    }
    let artifact = artifact(&model, Class::Exact);
    Lab { _folder: folder, model, artifact }
}

impl Lab {
    fn weights(&self) -> PathBuf {
        self.model.join("model.safetensors")
    }

    fn open(&self) -> Result<Engine, String> {
        Engine::new(self.artifact.clone(), &std::env::temp_dir(), 1).map_err(|e| e.to_string())
    }

    fn touch(&self) {
        let file = File::options().write(true).open(self.weights()).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(10)).unwrap();
    }
}

/// Offset and length of a tensor's data.
fn tensor(path: &Path, name: &str) -> (usize, usize) {
    let bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let map: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = |i: usize| map[name]["data_offsets"][i].as_u64().unwrap_or_else(|| panic!("no {name}")) as usize;
    (8 + header + at(0), at(1) - at(0))
}

fn overwrite(path: &Path, at: usize, data: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + data.len()].copy_from_slice(data);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_touched_file_with_the_same_content_is_fine() {
    let lab = lab();
    lab.open().unwrap();
    lab.touch();
    lab.open().unwrap();
}

#[test]
fn another_length_is_told_with_both() {
    let lab = lab();
    let bytes = fs::read(lab.weights()).unwrap();
    fs::write(lab.weights(), [&bytes[..], b"x"].concat()).unwrap();
    let why = lab.open().err().unwrap();
    let lengths = format!("expected {} bytes, got {}; compile the model again", bytes.len(), bytes.len() + 1);
    assert!(why.contains("model.safetensors") && why.ends_with(&lengths), "{why}");
    // Too short for its tensors.
    fs::write(lab.weights(), &bytes[..bytes.len() / 2]).unwrap();
    let why = lab.open().err().unwrap();
    assert!(why.contains("model.safetensors"), "{why}");
    fs::write(lab.weights(), b"").unwrap();
    assert!(lab.open().err().unwrap().contains("model.safetensors"));
}

#[test]
fn a_changed_tensor_is_named() {
    for (name, ours) in [
        ("embed.weight", "token_embd"),
        ("layers.4.attn.attn_sink", "blk.4.attn_sinks"),
        ("norm.weight", "output_norm"),
    ] {
        let lab = lab();
        let (at, len) = tensor(&lab.weights(), name);
        let byte = fs::read(lab.weights()).unwrap()[at + len - 1];
        overwrite(&lab.weights(), at + len - 1, &[byte ^ 1]);
        lab.touch();
        let why = lab.open().err().unwrap();
        let part = format!("{ours}: the content differs from what was compiled; compile the model again");
        assert!(why.contains("model.safetensors") && why.ends_with(&part), "{why}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let lab = lab();
    fs::remove_file(lab.weights()).unwrap();
    assert!(lab.open().err().unwrap().contains("model.safetensors"));
    fs::create_dir(lab.weights()).unwrap();
    assert!(lab.open().err().unwrap().contains("model.safetensors"));
}

#[test]
fn a_hash_table_may_only_name_experts_that_exist() {
    for bad in [10i64, -1, i64::MAX, i64::MIN, 1 << 32] {
        let lab = lab();
        let (at, _) = tensor(&lab.weights(), "layers.0.ffn.gate.tid2eid");
        overwrite(&lab.weights(), at + 8, &bad.to_le_bytes());
        let artifact = artifact(&lab.model, Class::Exact);
        let why = Engine::new(artifact, &std::env::temp_dir(), 1).err().unwrap().to_string();
        assert!(
            why.contains("blk.0.ffn_gate_tid2eid") && why.contains("expected an expert below 10, got"),
            "{why}"
        );
    }
}

#[test]
fn weights_that_are_no_numbers_give_logits_that_are_none_and_no_panic() {
    let lab = lab();
    for name in ["layers.4.ffn.gate.weight", "layers.4.attn.indexer.wq_b.weight", "embed.weight"] {
        let (at, len) = tensor(&lab.weights(), name);
        overwrite(&lab.weights(), at, &[0xff].repeat(len));
        for class in [Class::Exact, Class::Official, Class::Fast] {
            let engine = Engine::new(artifact(&lab.model, class), &std::env::temp_dir(), 2).unwrap();
            let ids: Vec<u32> = (0..160).collect();
            let none = AtomicBool::new(false);
            let logits = engine.session().unwrap().advance(&ids, Want::Last, 64, &none, &mut |_| ()).unwrap();
            assert_eq!(logits.len(), 320, "{name} {class}");
        }
    }
}

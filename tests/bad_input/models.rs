//! Garbage for models, through the program.
use crate::common::fixture;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A copy of a fixture.
fn model() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("flash-bf16").join(name), model.join(name)).unwrap();
    }
    (folder, model)
}

/// Compiles the model, which must fail with one message that holds all of `parts`.
fn refused(model: &Path, parts: &[&str]) {
    let output = model.parent().unwrap().join("out.ds4");
    let args = [
        "compile".as_ref(),
        model.as_os_str(),
        "-o".as_ref(),
        output.as_os_str(),
        "--ctx".as_ref(),
        "64".as_ref(),
    ];
    let done = Command::new(env!("CARGO_BIN_EXE_ds4c")).args(args).output().unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{err}");
    assert_eq!(err.lines().count(), 1, "one message: {err}");
    for part in parts {
        assert!(err.contains(part), "{part:?} is missing: {err}");
    }
    assert!(!output.exists(), "{err}");
}

#[test]
fn configs_that_are_none_are_refused() {
    let (_folder, model) = model();
    let path = model.join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in ["", "garbage", "[]", &good[..good.len() / 2]] {
        fs::write(&path, bad).unwrap();
        refused(&model, &["config.json"]);
    }
    fs::write(&path, "{}").unwrap();
    refused(&model, &["expected", "got nothing"]);
    fs::write(&path, b"\xff\xfe{}").unwrap();
    refused(&model, &["config.json"]);
    fs::remove_file(&path).unwrap();
    refused(&model, &["config.json"]);
}

#[test]
fn a_ratio_that_the_model_does_not_have_is_refused() {
    let (_folder, model) = model();
    let path = model.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for ratio in [1, 2, 8, 64, 127, 129, 256] {
        config["compress_ratios"][3] = ratio.into();
        fs::write(&path, config.to_string()).unwrap();
        refused(&model, &["compress_ratios", "0, 4 or 128", &ratio.to_string()]);
    }
    for bad in
        [serde_json::json!(-4), serde_json::json!("4"), serde_json::json!(1u64 << 40), serde_json::json!(4.5)]
    {
        config["compress_ratios"][3] = bad;
        fs::write(&path, config.to_string()).unwrap();
        refused(&model, &["compress_ratios"]);
    }
}

#[test]
fn weights_that_are_none_are_refused() {
    let (_folder, model) = model();
    let path = model.join("model.safetensors");
    let good = fs::read(&path).unwrap();
    for bad in [&b""[..], b"garbage", &[0xff; 64], &good[..100], &good[..good.len() / 2]] {
        fs::write(&path, bad).unwrap();
        refused(&model, &["model.safetensors"]);
    }
    fs::remove_file(&path).unwrap();
    refused(&model, &["safetensors"]);
}

#[test]
fn tokenizers_that_are_none_are_refused() {
    let (_folder, model) = model();
    let path = model.join("tokenizer.json");
    for bad in [&b""[..], b"garbage", b"{}", b"[1]", b"\xff", b"{\"model\": {\"type\": \"WordPiece\"}}"] {
        fs::write(&path, bad).unwrap();
        refused(&model, &["tokenizer.json"]);
    }
    // A good one with more tokens than the model has.
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/tokenizer.json"), &path).unwrap();
    refused(&model, &["tokenizer.json", "expected at most 320 tokens", "got 2048"]);
}

#[test]
fn a_hash_table_is_looked_at_before_anything_is_computed() {
    let (_folder, model) = model();
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let map: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offsets = &map["layers.1.ffn.gate.tid2eid"]["data_offsets"];
    let at = |i: usize| 8 + header + offsets[i].as_u64().unwrap() as usize;
    for expert in bytes[at(0)..at(1)].chunks_exact_mut(8) {
        expert.copy_from_slice(&77i64.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    refused(&model, &["blk.1.ffn_gate_tid2eid", "expected an expert below 10, got 77"]);
}

#[test]
fn files_of_no_known_kind_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for bad in [&b""[..], b"GGUF", b"garbage that is no model", &[0; 1000]] {
        fs::write(&path, bad).unwrap();
        refused(&path, &["model.gguf"]);
    }
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&empty, &["config.json"]);
}

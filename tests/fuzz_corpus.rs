//! The kept corpora of the fuzz targets, through the same functions as the fuzzer's.
#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the crate of the fuzzer exports it")]
mod targets;

use std::path::Path;

/// Runs every file of a target's corpus.
fn run(target: &str, f: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let (mut files, mut accepted) = (0, 0);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        accepted += usize::from(f(&bytes));
        // What is cut off somewhere is input too.
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 40) {
            f(&bytes[..end]);
        }
        files += 1;
    }
    assert!(accepted > 0, "{}: only {accepted} of {files} files are accepted", folder.display());
}

#[test]
fn safetensors() {
    run("safetensors", targets::safetensors);
}

#[test]
fn gguf() {
    run("gguf", targets::gguf);
}

#[test]
fn artifact() {
    run("artifact", targets::artifact);
}

#[test]
fn module() {
    run("module", targets::module);
}

#[test]
fn tokenizer() {
    run("tokenizer", targets::tokenizer);
}

#[test]
fn chat() {
    run("chat", targets::chat);
}

#[test]
fn store_index() {
    run("store_index", targets::store_index);
}

#[test]
fn store_journal() {
    run("store_journal", targets::store_journal);
}

#[test]
fn store_sealed() {
    run("store_sealed", targets::store_sealed);
}

#[test]
fn store_bundle() {
    run("store_bundle", targets::store_bundle);
}

#[test]
fn store_name() {
    run("store_name", targets::store_name);
}

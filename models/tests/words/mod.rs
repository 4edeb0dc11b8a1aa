//! What the tests of this crate share: fixtures and the official tokenizer, where it is installed.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::path::PathBuf;
use std::sync::OnceLock;

use ds4_models::tokenizer::Tokenizer;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A file of `tests/fixtures` as JSON.
pub(crate) fn fixture(name: &str) -> serde_json::Value {
    let path = root().join("tests/fixtures").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

/// Bytes of the official tokenizer.json, or `None` with a message where it is not installed.
///
/// In CI its absence is a failure.
pub(crate) fn official_json() -> Option<&'static [u8]> {
    static BYTES: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let load = || {
        let path = std::env::var_os("DS4_OFFICIAL_TOKENIZER")
            .map_or_else(|| root().join("target/official-tokenizer/tokenizer.json"), PathBuf::from);
        match std::fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let message = format!(
                    "NOT TESTED against the official tokenizer: {}: {error}; \
                     run .ci/official-tokenizer or set DS4_OFFICIAL_TOKENIZER",
                    path.display()
                );
                assert!(std::env::var_os("CI").is_none(), "{message}");
                eprintln!("{message}");
                None
            }
        }
    };
    BYTES.get_or_init(load).as_deref()
}

/// The official tokenizer, loaded once per test program.
pub(crate) fn official() -> Option<&'static Tokenizer> {
    static TOKENIZER: OnceLock<Option<Tokenizer>> = OnceLock::new();
    let load = || official_json().map(|bytes| Tokenizer::from_json(bytes).unwrap());
    TOKENIZER.get_or_init(load).as_ref()
}

/// The ids of a JSON array.
pub(crate) fn ids(value: &serde_json::Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A small deterministic source of random numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// A tokenizer of 256 bytes, a few merges and a few control tokens, as `tokenizer.json`.
pub(crate) fn tiny_json() -> serde_json::Value {
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut vocab = serde_json::Map::new();
    for byte in 0..256u32 {
        let code = if printable(byte) { byte } else { next };
        next += u32::from(!printable(byte));
        vocab.insert(char::from_u32(code).unwrap().to_string(), byte.into());
    }
    let merges = [["t", "h"], ["th", "e"], ["Ġ", "the"]];
    for (merge, id) in merges.iter().zip(256..) {
        vocab.insert(merge.concat(), id.into());
    }
    let names = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>", "<think>x"];
    let added = names.iter().zip(259..).map(|(name, id)| {
        serde_json::json!({ "id": id, "content": name, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": id < 261 })
    });
    serde_json::json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
        "model": { "type": "BPE", "vocab": vocab, "merges": merges },
    })
}

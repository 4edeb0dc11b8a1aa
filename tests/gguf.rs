//! A model rewritten as GGUF gives exactly the logits of its dequantised weights.
#[path = "../models/tests/common/mod.rs"]
mod common;
#[path = "common/mod.rs"]
mod helpers;
#[path = "../models/tests/common/rewrite.rs"]
mod rewrite;

use ds4_ir::Class;
use ds4_models::gguf::{Value, metadata};
use ds4_models::{Checkpoint, StoredType};
use ds4_runtime::Want;
use rewrite::{Names, Written, convert, write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

const FIXTURES: [&str; 2] = ["flash-bf16", "pro-mixed"];

/// Bits of all logits of the first tokens of the fixture's prompt, in class `exact`.
fn bits(model: &Path, fixture: &str) -> Vec<u32> {
    let engine = helpers::engine(model, Class::Exact, 2);
    let expected = helpers::fixture(fixture).join("expected.safetensors");
    let ids = helpers::Expected::read(&expected).ids("input_ids");
    let none = AtomicBool::new(false);
    // Enough for three blocks of ratio 128 to open and two to close.
    let logits = engine.session().unwrap().advance(&ids[..270], Want::All, 512, &none, &mut |_| ());
    logits.unwrap().iter().map(|x| x.to_bits()).collect()
}

/// What Q8_0 blocks stand for, as F32.
fn dequantised(written: &[Written]) -> Vec<Written> {
    let block = |b: &[u8]| {
        let scale = half(u16::from_le_bytes([b[0], b[1]]));
        b[2..].iter().flat_map(|q| (f32::from(*q as i8) * scale).to_le_bytes()).collect::<Vec<u8>>()
    };
    let plain = |w: &Written| match w.ty {
        StoredType::Q8_0 => {
            let data = w.data.chunks_exact(34).flat_map(block).collect();
            Written { ty: StoredType::F32, data, ..w.clone() }
        }
        _ => w.clone(),
    };
    written.iter().map(plain).collect()
}

/// A normal number of half precision.
fn half(code: u16) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 10 & 31), f32::from(code & 1023));
    assert!((1..31).contains(&exponent) && code < 0x8000, "{code:#x}");
    (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15)
}

fn described(original: &Checkpoint) -> Vec<(String, Value)> {
    let mut keys = vec![("general.architecture".to_owned(), Value::str("deepseek4"))];
    keys.extend(metadata(original.config()));
    keys
}

#[test]
fn f32_files_have_the_logits_of_the_published_types() {
    for name in FIXTURES {
        let original = Checkpoint::open(&helpers::fixture(name)).unwrap();
        let expected = bits(&helpers::fixture(name), name);
        let folder = tempfile::tempdir().unwrap();
        for names in [Names::DwarfStar, Names::LlamaCpp] {
            let written = convert(&original, names, false);
            let file = write(folder.path(), "whole", &described(&original), &[&written]);
            assert!(bits(&file, name) == expected, "{name} {names:?}");
        }
    }
}

#[test]
fn q8_0_files_have_the_logits_of_their_dequantised_weights() {
    for name in FIXTURES {
        let original = Checkpoint::open(&helpers::fixture(name)).unwrap();
        let keys = described(&original);
        let folder = tempfile::tempdir().unwrap();
        let written = convert(&original, Names::DwarfStar, true);
        let blocks = written.iter().filter(|w| w.ty == StoredType::Q8_0).count();
        assert!(20 < blocks && blocks < written.len(), "{blocks} of {}", written.len());
        let plain = write(folder.path(), "plain", &keys, &[&dequantised(&written)]);
        let expected = bits(&plain, name);
        assert!(expected != bits(&helpers::fixture(name), name), "{name}: rounding changes something");
        for names in [Names::DwarfStar, Names::LlamaCpp] {
            let written = convert(&original, names, true);
            let whole = write(folder.path(), "whole", &keys, &[&written]);
            assert!(bits(&whole, name) == expected, "{name} {names:?}");
            let (a, b) = written.split_at(written.len() / 3);
            let split = write(folder.path(), "split", &keys, &[a, b]);
            assert!(bits(&split, name) == expected, "{name} {names:?} in two files");
        }
    }
}

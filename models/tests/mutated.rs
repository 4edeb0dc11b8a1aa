//! Headers with random damage: whatever comes out, nothing panics and nothing lies outside the file.
mod common;
#[path = "common/rewrite.rs"]
mod rewrite;

use common::{fixture, scratch};
use ds4_models::gguf::{Value, header_bytes, metadata};
use ds4_models::{Checkpoint, Config};
use rewrite::{Names, convert};
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;

/// Knuth's linear congruential generator.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    /// A few bytes changed, set to extremes, copied or swapped.
    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..1 + self.below(3) {
            let (i, j) = (self.below(bytes.len()), self.below(bytes.len()));
            match self.below(5) {
                0 => bytes[i] ^= 1 << self.below(8),
                1 => bytes[i] = 0xff,
                2 => bytes[i] = 0,
                3 => bytes[i] = b"0123456789-{}[]\",:e."[self.below(20)],
                _ => bytes.swap(i, j),
            }
        }
    }
}

/// Opens the file with damaged headers; counts those that still make a table.
fn survivors(model: &Path, damaged_file: &Path, header: usize, rounds: usize) -> usize {
    let good = fs::read(damaged_file).unwrap()[..header].to_vec();
    let mut file = File::options().write(true).open(damaged_file).unwrap();
    let length = file.metadata().unwrap().len();
    let mut rng = Rng(rounds as u64);
    let mut n_good = 0;
    for _ in 0..rounds {
        let mut bytes = good.clone();
        rng.damage(&mut bytes);
        file.rewind().unwrap();
        file.write_all(&bytes).unwrap();
        let table = Checkpoint::open(model).and_then(|c| c.table());
        let Ok(table) = table else { continue };
        n_good += 1;
        for part in table.entries.iter().flat_map(|e| &e.parts) {
            let last = part.offset + u64::from(part.count - 1) * part.stride + part.bytes;
            assert!(last <= length, "{part:?}");
        }
    }
    n_good
}

#[test]
fn damaged_gguf_headers() {
    let original = Checkpoint::open(&fixture("flash-bf16")).unwrap();
    let written = convert(&original, Names::DwarfStar, true);
    let mut keys = vec![("general.architecture".to_owned(), Value::str("deepseek4"))];
    keys.extend(metadata(original.config()));
    let header = header_bytes(&keys, &[]).len();
    let path = rewrite::write(&scratch("mutated-gguf"), "model", &keys, &[&written]);
    assert!(0 < survivors(&path, &path, header, 1500));
    let all = fs::read(&path).unwrap().len() - written.iter().map(|w| w.data.len()).sum::<usize>();
    survivors(&path, &path, all, 1500);
}

#[test]
fn damaged_safetensors_headers() {
    let folder = scratch("mutated-safetensors");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture("pro-mixed").join(file), folder.join(file)).unwrap();
        let mut permissions = fs::metadata(folder.join(file)).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "the copy is this test's own")]
        permissions.set_readonly(false);
        fs::set_permissions(folder.join(file), permissions).unwrap();
    }
    let path = folder.join("model.safetensors");
    let length = fs::read(&path).unwrap()[..8].try_into().unwrap();
    let header = 8 + u64::from_le_bytes(length) as usize;
    survivors(&folder, &path, header, 1500);
}

#[test]
fn damaged_configs() {
    let mut rng = Rng(5);
    for text in [
        fs::read(fixture("pro-mixed").join("config.json")).unwrap(),
        include_bytes!("data/transformers-config.json").to_vec(),
    ] {
        let mut n_good = 0;
        for _ in 0..5000 {
            let mut bytes = text.clone();
            rng.damage(&mut bytes);
            let Ok(text) = String::from_utf8(bytes) else { continue };
            if let Ok(config) = Config::from_json(&text) {
                config.check().unwrap();
                n_good += 1;
            }
        }
        assert!(0 < n_good);
    }
}

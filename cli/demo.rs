//! The demo model, bundled with the program.
use anyhow::{Context, Result};
use ds4_runtime::aside;
use std::path::{Path, PathBuf};

/// Name by which a person asks for it.
pub const NAME: &str = "demo";
/// What `ds4 run` continues if nothing else is given.
pub const PROMPT: &str = "And it came to pass in those days,";

/// The files of the model's folder.
const FILES: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../models/demo/config.json")),
    ("tokenizer.json", include_bytes!("../models/demo/tokenizer.json")),
    ("model.safetensors", include_bytes!("../models/demo/model.safetensors")),
];

/// The folder of the demo model below `cache`, unpacked there if it is not yet.
///
/// # Errors
/// The folder cannot be written.
pub fn unpack(cache: &Path) -> Result<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    FILES.iter().for_each(|(_, bytes)| {
        hasher.update(bytes);
    });
    let version = &hasher.finalize().to_hex()[..16];
    let parent = cache.join(format!("model-{version}"));
    let folder = parent.join(NAME);
    let whole = |(name, bytes): &(&str, &[u8])| {
        folder.join(name).metadata().is_ok_and(|m| m.len() == bytes.len() as u64)
    };
    if FILES.iter().all(whole) {
        return Ok(folder);
    }
    // Unpacked aside and renamed, so that a folder of that name is whole.
    let aside = aside(&folder);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&aside)?;
        for (name, bytes) in FILES {
            std::fs::write(aside.join(name), bytes)?;
        }
        if folder.exists() && !FILES.iter().all(whole) {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::rename(&aside, &folder)
    };
    let wrote = write();
    if wrote.is_err() {
        // Nothing to tell if there is nothing to remove.
        let _ = std::fs::remove_dir_all(&aside);
        if FILES.iter().all(whole) {
            // Another was faster.
            return Ok(folder);
        }
    }
    wrote.with_context(|| folder.display().to_string())?;
    Ok(folder)
}

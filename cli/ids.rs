//! Lists of token ids as files hold them.
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Longest list in bytes: ten characters for each token of the longest context.
const BYTES_MAX: u64 = 16 << 20;

/// Reads a JSON array of whole numbers.
///
/// # Errors
/// A file that cannot be read or holds anything else.
pub fn read(path: &Path) -> Result<Vec<u32>> {
    let place = || path.display().to_string();
    let length = std::fs::metadata(path).with_context(place)?.len();
    if length > BYTES_MAX {
        bail!("{}: expected at most {BYTES_MAX} bytes, got {length}", place());
    }
    let text = std::fs::read_to_string(path).with_context(place)?;
    serde_json::from_str(&text).with_context(|| format!("{}: expected a JSON array of token ids", place()))
}

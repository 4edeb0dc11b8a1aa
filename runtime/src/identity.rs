//! Identity of weights: samples of their bytes, and the marks of the files they lie in.
//!
//! A file is taken for unchanged while its length and time of change are those seen by the compiler.
//! With another time its samples are taken again; another length or sample is an error.
use crate::artifact::{FileMark, Meta};
use crate::weights::Weights;
use crate::{Error, Result};
use ds4_ir::{Module, WeightSource, WeightTable};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Places at which a weight is sampled.
const SAMPLES: u64 = 16;
/// Bytes of a sample.
const SAMPLE_BYTES: u64 = 4096;

/// Length and time of change of a file.
///
/// # Errors
/// The file cannot be looked at.
pub fn mark(path: &Path) -> Result<FileMark> {
    let meta = std::fs::metadata(path).map_err(Error::io(path))?;
    let modified = meta.modified().map_err(Error::io(path))?;
    let modified_ns = modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    Ok(FileMark { bytes: meta.len(), modified_ns })
}

/// Hex of a blake3 per weight of the module, in its order: over 4 KiB at 16 offsets that follow from
/// the name, or over all bytes of a weight that is smaller.
pub fn sample_all(module: &Module, weights: &Weights) -> Vec<String> {
    let sample = |i: usize| sample(&module.weights[i].name, weights, i);
    (0..module.weights.len()).map(sample).collect()
}

fn sample(name: &str, weights: &Weights, index: usize) -> String {
    let view = weights.weight(index);
    let pieces: Vec<&[u8]> = view.items.iter().flat_map(|(codes, scales)| [*codes, *scales]).collect();
    let total: u64 = pieces.iter().map(|p| p.len() as u64).sum();
    let mut hasher = blake3::Hasher::new();
    if total <= SAMPLES * SAMPLE_BYTES {
        pieces.iter().for_each(|p| {
            hasher.update(p);
        });
        return hasher.finalize().to_hex().to_string();
    }
    let mut offsets = blake3::Hasher::new();
    offsets.update(name.as_bytes());
    let mut offsets = offsets.finalize_xof();
    for _ in 0..SAMPLES {
        let mut random = [0; 8];
        offsets.fill(&mut random);
        let at = u64::from_le_bytes(random) % (total - SAMPLE_BYTES + 1);
        read(&pieces, at, SAMPLE_BYTES, |bytes| {
            hasher.update(bytes);
        });
    }
    hasher.finalize().to_hex().to_string()
}

/// Shows `visit` the bytes `at..at + len` of the pieces put end to end.
fn read(pieces: &[&[u8]], mut at: u64, mut len: u64, mut visit: impl FnMut(&[u8])) {
    for piece in pieces {
        let size = piece.len() as u64;
        if at < size && len > 0 {
            let take = len.min(size - at);
            visit(&piece[at as usize..(at + take) as usize]);
            len -= take;
            at = 0;
        } else {
            at = at.saturating_sub(size);
        }
    }
}

/// Checks that the mapped weights are those that were compiled.
///
/// # Errors
/// A file of another length, or a weight whose samples differ in a file whose time has changed.
pub(crate) fn check(meta: &Meta, module: &Module, table: &WeightTable, weights: &Weights) -> Result<()> {
    let changed = |path: &Path, message| Error::WeightsChanged { path: path.to_path_buf(), message };
    let files: Vec<&Path> = weights.files().map(|(path, _)| path).collect();
    if meta.files.len() != files.len() || meta.samples.len() != module.weights.len() {
        let got = format!("{} files, {} samples", meta.files.len(), meta.samples.len());
        let expected = format!("{} files, {} samples", files.len(), module.weights.len());
        return Err(Error::Invalid(format!("meta: expected {expected}, got {got}")));
    }
    let mut touched = Vec::new();
    for (path, then) in files.iter().zip(&meta.files) {
        let now = mark(path)?;
        if now.bytes != then.bytes {
            return Err(changed(path, format!("expected {} bytes, got {}", then.bytes, now.bytes)));
        }
        touched.push(now.modified_ns != then.modified_ns);
    }
    for (i, (decl, expected)) in module.weights.iter().zip(&meta.samples).enumerate() {
        let entry = table.entries.iter().find(|e| e.name == decl.name).expect("mapped weights have entries");
        let hit = entry.parts.iter().find(|p| touched[p.file as usize]);
        let Some(part) = hit else { continue };
        if sample(&decl.name, weights, i) != *expected {
            let message = format!("{}: the content differs from what was compiled", decl.name);
            return Err(changed(files[part.file as usize], message));
        }
    }
    Ok(())
}

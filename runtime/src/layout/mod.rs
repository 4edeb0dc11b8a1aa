//! Layout files: weights packed for the kernels that read them, once, in a file beside the artifact.
//!
//! An artifact's [`Layouts`] says which weights are packed, how, and where in the file each of their
//! matrices lies; matrices of equal source bytes and packing lie there once. The file is drawn byte by
//! byte in `docs/formats.md`. Everything in it can be made again from the published weights, and
//! nothing in it is trusted: its header must be the one that the artifact remembers, and each chunk has
//! a checksum in it.
mod build;
mod choose;
mod file;
#[cfg(test)]
mod tests;

use crate::cpu::product::Packing;
use crate::weights::{Weights, packed_sizes};
use crate::{Artifact, Error, FileMark, Result, mark};
use ds4_ir::{Layout, Module, Part, Role, WeightEntry, WeightTable};
use file::Header;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use crate::artifact::Layouts;
pub use build::{Built, build};
pub(crate) use choose::products;
pub use choose::{Choice, choose};

/// Chunks whose checksums are compared on opening if the file's time of change is another.
const SAMPLES: usize = 16;
/// Alignment of chunks in bytes: a page.
const ALIGN: u64 = 4096;

/// One packed matrix: a chunk of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Chunk {
    /// Index of the first weight that it belongs to, and of the matrix in it.
    weight: usize,
    matrix: usize,
    packing: Packing,
    offset: u64,
    bytes: u64,
}

/// Where the packed matrices of some weights of a module will lie in `file`, by name of the weight.
///
/// `table` is the stored weights'; a matrix whose source ranges and packing are those of another one
/// shares its place.
fn lay_out(table: &WeightTable, packings: &BTreeMap<&str, Packing>, file: String) -> Layouts {
    let mut places: BTreeMap<Source, u64> = BTreeMap::new();
    let mut all = Vec::new();
    let chosen = || table.entries.iter().filter_map(|e| Some((e, *packings.get(e.name.as_str())?)));
    for (entry, packing) in chosen() {
        let (_, bytes) = packed_sizes(packing, &entry.ty).expect("chosen for what it takes");
        for source in sources(entry, packing) {
            let next = places.len() as u64;
            places.entry(source).or_insert(next);
        }
        all.push(bytes);
    }
    // A chunk's place is known once the header's size is: in order of first use.
    let mut sizes = vec![0; places.len()];
    for ((entry, packing), bytes) in chosen().zip(&all) {
        sources(entry, packing).for_each(|s| sizes[places[&s] as usize] = *bytes);
    }
    let mut at = Header::bytes(sizes.len()).next_multiple_of(ALIGN);
    let mut offsets = Vec::new();
    for bytes in &sizes {
        offsets.push(at);
        at = (at + bytes).next_multiple_of(ALIGN);
    }
    let entry = |((entry, packing), bytes): ((&WeightEntry, Packing), &u64)| WeightEntry {
        name: entry.name.clone(),
        ty: entry.ty.clone(),
        layout: Layout::Repacked(packing.name().to_string()),
        parts: parts(sources(entry, packing).map(|s| offsets[places[&s] as usize]), *bytes),
    };
    let entries = chosen().zip(&all).map(entry).collect();
    Layouts { header: String::new(), mark: None, table: WeightTable { files: vec![file], entries } }
}

/// What a packed matrix is made of: packing, codes and scales as (file, offset, bytes).
type Source = (&'static str, (u32, u64, u64), Option<(u32, u64, u64)>);

/// The sources of the matrices of a weight, in order.
fn sources(entry: &WeightEntry, packing: Packing) -> impl Iterator<Item = Source> + '_ {
    let ranges = |role: Role| -> Vec<(u32, u64, u64)> {
        let parts = entry.parts.iter().filter(|p| p.role == role);
        let of = |p: &Part| {
            let (file, offset, bytes, stride) = (p.file, p.offset, p.bytes, p.stride);
            (0..u64::from(p.count)).map(move |i| (file, offset + i * stride, bytes))
        };
        parts.flat_map(of).collect()
    };
    let (codes, scales) = (ranges(Role::Codes), ranges(Role::Scales));
    codes.into_iter().enumerate().map(move |(i, c)| (packing.name(), c, scales.get(i).copied()))
}

/// Equally long ranges as parts: neighbours of one distance are one part.
fn parts(offsets: impl Iterator<Item = u64>, bytes: u64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for offset in offsets {
        match parts.last_mut() {
            Some(p) if p.count == 1 && offset > p.offset => (p.stride, p.count) = (offset - p.offset, 2),
            Some(p) if p.count > 1 && offset == p.offset + p.stride * u64::from(p.count) => p.count += 1,
            _ => parts.push(Part { role: Role::Codes, file: 0, offset, bytes, stride: bytes, count: 1 }),
        }
    }
    parts
}

/// The chunks of a layout file in the order of the file.
///
/// # Errors
/// An entry that is no weight of the module, or of a packing that this build does not know.
fn chunks(module: &Module, layouts: &Layouts) -> Result<Vec<Chunk>> {
    let mut found = BTreeMap::new();
    for entry in &layouts.table.entries {
        let wrong = |message: &str| Error::Invalid(format!("layouts: {}: {message}", entry.name));
        let weight = module.weights.iter().position(|w| w.name == entry.name && w.ty == entry.ty);
        let weight = weight.ok_or_else(|| wrong("the module has no such weight"))?;
        let packing = match &entry.layout {
            Layout::Repacked(name) => Packing::parse(name),
            Layout::AsStored => None,
        };
        let packing = packing.ok_or_else(|| wrong("expected a packing of this build"))?;
        let sizes = packed_sizes(packing, &entry.ty);
        let (matrices, bytes) = sizes.ok_or_else(|| wrong("its packing takes no such weight"))?;
        let mut matrix = 0;
        for part in &entry.parts {
            for i in 0..u64::from(part.count) {
                let offset = part.stride.checked_mul(i).and_then(|at| at.checked_add(part.offset));
                let offset = offset.filter(|_| part.bytes == bytes && (matrix as u64) < matrices);
                let offset = offset.ok_or_else(|| wrong("its parts are not those of its packing"))?;
                found.entry(offset).or_insert(Chunk { weight, matrix, packing, offset, bytes });
                matrix += 1;
            }
        }
    }
    Ok(found.into_values().collect())
}

/// What the content of a layout file follows from.
fn key(artifact: &Artifact, layouts: &Layouts) -> [u8; 32] {
    let mut key = blake3::Hasher::new();
    key.update(format!("{}\n", artifact.meta.identity).as_bytes());
    for entry in &layouts.table.entries {
        key.update(format!("{}: {} {:?} {:?}\n", entry.name, entry.ty, entry.layout, entry.parts).as_bytes());
    }
    *key.finalize().as_bytes()
}

fn path(layouts: &Layouts, folder: &Path) -> PathBuf {
    folder.join(&layouts.table.files[0])
}

fn damaged(path: &Path, message: impl Into<String>) -> Error {
    Error::Layout { path: path.to_path_buf(), message: message.into() }
}

/// Maps the layout file of an artifact that lies in `folder` after looking at its header, and at a few
/// chunks if its time of change is not the one seen when it was built.
///
/// # Errors
/// [`Error::Layout`] for a file that is missing, unfinished, or not the one that was built.
pub(crate) fn open(artifact: &Artifact, weights: &mut Weights, folder: &Path) -> Result<()> {
    let Some(layouts) = &artifact.layouts else { return Ok(()) };
    let path = path(layouts, folder);
    let header = remembered(artifact, layouts, &path)?;
    let now = mark(&path)?;
    if layouts.mark.as_ref() != Some(&now) {
        let step = header.chunks.len().div_ceil(SAMPLES).max(1);
        let sampled = (0..header.chunks.len()).step_by(step);
        file::verify(&path, &header, sampled, &mut |_| Ok(()))?;
    }
    weights.add_packed(&artifact.module, &layouts.table, folder)
}

/// The header of the file, which must be the one that the artifact remembers.
fn remembered(artifact: &Artifact, layouts: &Layouts, path: &Path) -> Result<Header> {
    let chunks = chunks(&artifact.module, layouts)?;
    let header = file::read_finished(path, chunks.len())?;
    if header.digest().to_hex().as_str() != layouts.header {
        return Err(damaged(path, "the header is not that of the layout file of this artifact"));
    }
    Ok(header)
}

/// Compares every chunk of the layout file with its checksum; `progress` is told the bytes done and all.
///
/// # Errors
/// A file that is missing or damaged, and [`Error::Cancelled`].
pub fn verify(
    artifact: &Artifact,
    folder: &Path,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let Some(layouts) = &artifact.layouts else { return Ok(()) };
    let path = path(layouts, folder);
    let header = remembered(artifact, layouts, &path)?;
    let total = header.chunks.iter().map(|c| c.bytes).sum();
    let mut done = 0;
    file::verify(&path, &header, 0..header.chunks.len(), &mut |bytes| {
        done += bytes;
        progress(done, total);
        if cancel.load(std::sync::atomic::Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    })
}

/// How many weights have a packing, their bytes in the layout file and as stored. What several weights
/// share counts once in the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Per packing and element type: weights, bytes in the file, bytes as stored.
    pub packings: BTreeMap<(String, String), (usize, u64, u64)>,
    /// Bytes of the chunks of the file.
    pub file_bytes: u64,
}

/// What a layout file holds.
pub fn summary(layouts: &Layouts) -> Summary {
    let mut summary = Summary::default();
    let mut seen = BTreeMap::new();
    for entry in &layouts.table.entries {
        let Layout::Repacked(packing) = &entry.layout else { continue };
        let row = summary.packings.entry((packing.clone(), entry.ty.scalar.to_string())).or_default();
        row.0 += 1;
        row.1 += entry.parts.iter().map(|p| p.bytes * u64::from(p.count)).sum::<u64>();
        row.2 += crate::weights::item_sizes(&entry.ty).map_or(0, |(n, codes, scales)| n * (codes + scales));
        for part in &entry.parts {
            seen.extend((0..u64::from(part.count)).map(|i| (part.offset + i * part.stride, part.bytes)));
        }
    }
    summary.file_bytes = seen.values().sum();
    summary
}

/// The mark of a finished file.
fn marked(path: &Path) -> Result<Option<FileMark>> {
    mark(path).map(Some)
}

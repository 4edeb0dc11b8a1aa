//! Artifacts taken apart and put together again with checksums that hold, so that tests reach what
//! lies behind the checksums.
use crate::common::{artifact, fixture};
use ds4_ir::Class;
use ds4_runtime::Artifact;
use ds4_runtime::artifact::VERSION;
use std::path::Path;

/// Magic, version and number of sections.
pub(crate) const START: usize = 16;
/// Name, offset, length and checksum of a section.
pub(crate) const ENTRY: usize = 56;

/// Sections by name, in order.
#[derive(Clone)]
pub(crate) struct Sealed(pub(crate) Vec<(String, Vec<u8>)>);

/// The file of a compiled fixture, small in context so that it is quick to check.
pub(crate) fn file() -> Vec<u8> {
    bytes(&artifact(&fixture("flash-bf16"), Class::Fast))
}

/// What an artifact looks like in a file.
pub(crate) fn bytes(artifact: &Artifact) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ds4");
    artifact.write(&path).unwrap();
    std::fs::read(path).unwrap()
}

pub(crate) fn long(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// Number of sections.
pub(crate) fn count(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize
}

/// Writes the right checksum over a changed header.
pub(crate) fn reseal_header(bytes: &mut [u8]) {
    let end = START + count(bytes) * ENTRY;
    let sum = *blake3::hash(&bytes[..end]).as_bytes();
    bytes[end..end + 32].copy_from_slice(&sum);
}

impl Sealed {
    pub(crate) fn of(bytes: &[u8]) -> Sealed {
        let section = |i: usize| {
            let entry = START + i * ENTRY;
            let name = std::str::from_utf8(&bytes[entry..entry + 8]).unwrap().to_string();
            let (at, len) = (long(bytes, entry + 8), long(bytes, entry + 16));
            (name, bytes[at..at + len].to_vec())
        };
        Sealed((0..count(bytes)).map(section).collect())
    }

    pub(crate) fn section(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(n, _)| n.trim_end() == name).unwrap().1
    }

    /// Changes a section that holds JSON.
    pub(crate) fn edit(&mut self, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let section = self.section(name);
        let mut value = serde_json::from_slice(section).unwrap();
        change(&mut value);
        *section = serde_json::to_vec(&value).unwrap();
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"DS4ART\r\n".to_vec();
        file.extend(VERSION.to_le_bytes());
        file.extend((self.0.len() as u32).to_le_bytes());
        let mut at = START + self.0.len() * ENTRY + 32;
        let mut body: Vec<u8> = Vec::new();
        for (name, bytes) in &self.0 {
            file.extend(name.as_bytes());
            file.extend((at as u64).to_le_bytes());
            file.extend((bytes.len() as u64).to_le_bytes());
            file.extend(blake3::hash(bytes).as_bytes());
            body.extend(bytes);
            at += bytes.len();
        }
        file.extend(*blake3::hash(&file).as_bytes());
        file.extend(body);
        file
    }

    /// What reading says against it.
    pub(crate) fn refused(&self) -> String {
        Artifact::from_bytes(&self.bytes()).map(|_| ()).expect_err("a bad artifact was read")
    }
}

/// Opens an engine and answers what it says against it.
pub(crate) fn engine_refuses(sealed: &Sealed, base: &Path) -> String {
    let artifact = Artifact::from_bytes(&sealed.bytes()).unwrap_or_else(|e| panic!("{e}"));
    match ds4_runtime::Engine::new(artifact, base, 1) {
        Ok(_) => panic!("an engine was made of a bad artifact"),
        Err(error) => error.to_string(),
    }
}

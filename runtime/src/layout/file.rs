//! The layout file: a header with a checksum per chunk, then the chunks.
use super::damaged;
use crate::{Error, Result};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// First bytes of every layout file.
const MAGIC: [u8; 8] = *b"DS4LAY\r\n";
/// Version of the format and of the packings.
const VERSION: u32 = 1;
/// Bytes before the first chunk's entry: magic, version, number of chunks, key.
const START: usize = 8 + 4 + 4 + 32;
/// Bytes of a chunk's entry.
const ENTRY: usize = 8 + 8 + 32;
/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// A chunk as the header has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Blake3 of its bytes; `None` while it is not written.
    pub(super) hash: Option<[u8; 32]>,
}

/// The header of a layout file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// What the content follows from.
    pub(super) key: [u8; 32],
    pub(super) chunks: Vec<Entry>,
}

impl Header {
    /// Bytes of the header of a file of `n` chunks.
    pub(super) fn bytes(n: usize) -> u64 {
        (START + n * ENTRY + 32) as u64
    }

    /// Bytes of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        let end = self.chunks.last().map(|c| c.offset + c.bytes);
        end.unwrap_or(Header::bytes(0)).next_multiple_of(super::ALIGN)
    }

    /// Where the entry of a chunk lies.
    pub(super) fn entry_at(i: usize) -> u64 {
        (START + i * ENTRY) as u64
    }

    /// The entry of a chunk as it stands in the file.
    pub(super) fn entry(&self, i: usize) -> [u8; ENTRY] {
        let Entry { offset, bytes, hash } = self.chunks[i];
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&offset.to_le_bytes());
        entry[8..16].copy_from_slice(&bytes.to_le_bytes());
        entry[16..].copy_from_slice(&hash.unwrap_or_default());
        entry
    }

    fn body(&self) -> Vec<u8> {
        let n = u32::try_from(self.chunks.len()).expect("fewer than 2^32 chunks");
        let mut body = Vec::from(MAGIC);
        body.extend(VERSION.to_le_bytes());
        body.extend(n.to_le_bytes());
        body.extend(self.key);
        (0..self.chunks.len()).for_each(|i| body.extend(self.entry(i)));
        body
    }

    /// The checksum at the end of the header.
    pub(super) fn digest(&self) -> blake3::Hash {
        blake3::hash(&self.body())
    }

    /// The header's bytes; the checksum at its end says that the file is finished.
    pub(super) fn to_bytes(&self, finished: bool) -> Vec<u8> {
        let mut bytes = self.body();
        bytes.extend(if finished { *self.digest().as_bytes() } else { [0; 32] });
        bytes
    }

    /// Reads a header that must have `n` chunks, and whether its file is finished.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(
        file: &mut impl Read,
        n: usize,
    ) -> io::Result<std::result::Result<(Header, bool), String>> {
        let mut bytes = vec![0; Header::bytes(n) as usize];
        match file.read_exact(&mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Err(format!("expected a header of {} bytes, got fewer", bytes.len())));
            }
            other => other?,
        }
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[..8] != MAGIC {
            return Ok(Err("expected a layout file of ds4c, got another file".to_string()));
        }
        if number(8) != VERSION {
            return Ok(Err(format!("version: expected {VERSION}, got {}", number(8))));
        }
        if number(12) as usize != n {
            return Ok(Err(format!("expected {n} chunks, got {}", number(12))));
        }
        let entry = |i: usize| {
            let at = START + i * ENTRY;
            let hash: [u8; 32] = bytes[at + 16..at + ENTRY].try_into().expect("32 bytes");
            Entry { offset: long(at), bytes: long(at + 8), hash: Some(hash).filter(|h| *h != [0; 32]) }
        };
        let key = bytes[16..START].try_into().expect("32 bytes");
        let header = Header { key, chunks: (0..n).map(entry).collect() };
        let end = &bytes[START + n * ENTRY..];
        if end == [0; 32] {
            return Ok(Ok((header, false)));
        }
        if end != header.digest().as_bytes() {
            return Ok(Err("header: the checksum does not match".to_string()));
        }
        Ok(Ok((header, true)))
    }
}

/// Reads the header of the finished file at `path`.
///
/// # Errors
/// [`Error::Layout`] for a file that is missing, unfinished or damaged.
pub(super) fn read_finished(path: &Path, chunks: usize) -> Result<Header> {
    let mut file = open(path)?;
    let header = Header::read(&mut file, chunks).map_err(Error::io(path))?;
    let (header, finished) = header.map_err(|why| damaged(path, why))?;
    if !finished {
        return Err(damaged(path, "expected a finished layout file, got one that is being built"));
    }
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length != header.file_bytes() {
        return Err(damaged(path, format!("expected {} bytes, got {length}", header.file_bytes())));
    }
    Ok(header)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => damaged(path, "the layout file of this artifact is missing"),
        _ => Error::Io { path: path.to_path_buf(), source: e },
    })
}

/// Compares chunks with their checksums; `progress` is told the bytes read since the last time.
///
/// # Errors
/// A chunk that differs or is not there, and what `progress` answers.
pub(super) fn verify(
    path: &Path,
    header: &Header,
    which: impl Iterator<Item = usize>,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut file = open(path)?;
    for i in which {
        if !matches(&mut file, &header.chunks[i], progress).map_err(|e| e.at(path))? {
            return Err(damaged(path, format!("chunk {i}: the checksum does not match")));
        }
    }
    Ok(())
}

/// Why a chunk could not be looked at.
pub(super) enum Stop {
    Io(io::Error),
    Asked(Error),
}

impl Stop {
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Stop::Io(source) => Error::Io { path: path.to_path_buf(), source },
            Stop::Asked(error) => error,
        }
    }
}

/// Whether a chunk is there and its checksum matches.
pub(super) fn matches(
    file: &mut File,
    entry: &Entry,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> std::result::Result<bool, Stop> {
    let Some(expected) = entry.hash else { return Ok(false) };
    file.seek(SeekFrom::Start(entry.offset)).map_err(Stop::Io)?;
    let (mut hasher, mut left) = (blake3::Hasher::new(), entry.bytes);
    let mut block = vec![0; BLOCK.min(usize::try_from(left).unwrap_or(BLOCK))];
    while left > 0 {
        let n = left.min(block.len() as u64) as usize;
        match file.read_exact(&mut block[..n]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other.map_err(Stop::Io)?,
        }
        hasher.update(&block[..n]);
        left -= n as u64;
        progress(n as u64).map_err(Stop::Asked)?;
    }
    Ok(*hasher.finalize().as_bytes() == expected)
}

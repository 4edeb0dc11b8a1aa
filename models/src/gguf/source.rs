//! A file read front to back, with every length compared with what is left of it.
use crate::error::open_file;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// A position in a file of known length.
pub(super) struct Source {
    path: PathBuf,
    reader: BufReader<File>,
    position: u64,
    bytes: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Source> {
        let (file, bytes) = open_file(path)?;
        Ok(Source { path: path.to_path_buf(), reader: BufReader::new(file), position: 0, bytes })
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Length of the file in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An error about `thing`.
    pub(super) fn damaged(
        &self,
        thing: &str,
        expected: impl Into<String>,
        got: impl std::fmt::Display,
    ) -> Error {
        Error::damaged(&self.path, thing, expected, got)
    }

    /// Fails unless `count` items of at least `size` bytes can still follow.
    pub(super) fn need(&self, thing: &str, count: u64, size: u64) -> Result<()> {
        let left = self.bytes - self.position;
        if count <= left / size {
            return Ok(());
        }
        let got = format!("{left} before the end of the file");
        Err(self.damaged(thing, format!("{count} times {size} bytes"), got))
    }

    pub(super) fn array<const N: usize>(&mut self, thing: &str) -> Result<[u8; N]> {
        self.need(thing, 1, N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, thing: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(thing)?))
    }

    pub(super) fn u64(&mut self, thing: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(thing)?))
    }

    /// A string of at most `limit` bytes.
    pub(super) fn string(&mut self, thing: &str, limit: u64) -> Result<String> {
        let length = self.u64(thing)?;
        if limit < length {
            return Err(self.damaged(thing, format!("a string of at most {limit} bytes"), length));
        }
        self.need(thing, length, 1)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|e| self.damaged(thing, "UTF-8", e.utf8_error()))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes).map_err(Error::io(&self.path))?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

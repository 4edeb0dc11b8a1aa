//! Sealed files: written once, in one pass, then only read. A header says what the file is; chunks
//! of at most 256 KiB carry a checksum each. Nothing is given to the caller before its checksum held.
use super::bytes::{Put, Take};
use super::disk::{Disk, DiskFile, How};
use super::error::{At, StoreError, damaged};
use super::key::Key;
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

/// Bytes of the header.
pub const HEADER: u64 = 192;
/// Payload bytes of a chunk; the last one of a file is shorter.
pub const CHUNK: u64 = 1 << 18;
const MAGIC: [u8; 8] = *b"\x89ds4kv\r\n";
const VERSION: u32 = 1;
const SUM: usize = 8;

/// What a sealed file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Token ids and the entries they closed.
    Rows,
    /// Next-token logits, rings and tails at one position.
    Edge,
}

/// The header of a sealed file.
#[derive(Clone, PartialEq, Debug)]
pub struct Header {
    /// What the body holds.
    pub kind: Kind,
    /// Key of identity and schema.
    pub root: Key,
    /// Key of the tokens `0..end`.
    pub key: Key,
    /// Key of the tokens `0..start`.
    pub parent: Key,
    /// Chain value of the full blocks of `0..end`.
    pub block: Key,
    /// Position of the boundary this one extends.
    pub start: u64,
    /// Position of this boundary.
    pub end: u64,
    /// Bytes of the body, checksums not counted.
    pub body: u64,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Seconds it takes to compute the states of the tokens `start..end`.
    pub seconds: f32,
    /// Number of next-token logits.
    pub logits: u32,
}

impl Header {
    /// Bytes of a file with this header.
    pub fn file_bytes(&self) -> u64 {
        HEADER.saturating_add(self.body).saturating_add(self.body.div_ceil(CHUNK) * SUM as u64)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.u32(VERSION);
        out.u32(if self.kind == Kind::Rows { 1 } else { 2 });
        for key in [self.root, self.key, self.parent, self.block] {
            out.extend(key.0);
        }
        for n in [self.start, self.end, self.body, self.created] {
            out.u64(n);
        }
        out.extend(self.seconds.to_le_bytes());
        out.u32(self.logits);
        out.u64(XxHash3_64::oneshot(&out));
        out
    }

    /// Reads a header; the error says what was expected.
    pub fn parse(bytes: &[u8]) -> Result<Header, String> {
        let short = || format!("expected a header of {HEADER} bytes, got {}", bytes.len());
        let head = bytes.get(..HEADER as usize).ok_or_else(short)?;
        let mut take = Take(head);
        if take.array() != Some(MAGIC) {
            return Err("expected a ds4 state file, got another magic".into());
        }
        match take.u32() {
            Some(VERSION) => {}
            version => return Err(format!("expected version {VERSION}, got {}", version.unwrap_or(0))),
        }
        let (fields, sum) = head.split_at(head.len() - SUM);
        if Take(sum).u64() != Some(XxHash3_64::oneshot(fields)) {
            return Err("header checksum does not hold".into());
        }
        let kind = match take.u32() {
            Some(1) => Kind::Rows,
            Some(2) => Kind::Edge,
            kind => return Err(format!("expected kind 1 or 2, got {}", kind.unwrap_or(0))),
        };
        Header::fields(kind, &mut take).filter(|h| h.start < h.end).ok_or("tokens run backwards".into())
    }

    fn fields(kind: Kind, take: &mut Take) -> Option<Header> {
        let keys = [take.array()?, take.array()?, take.array()?, take.array()?];
        let [root, key, parent, block] = keys.map(Key);
        let (start, end, body, created) = (take.u64()?, take.u64()?, take.u64()?, take.u64()?);
        let (seconds, logits) = (take.f32()?, take.u32()?);
        Some(Header { kind, root, key, parent, block, start, end, body, created, seconds, logits })
    }

    /// Chunks of another file, or in another order, do not pass for ours.
    fn chunk_sum(&self, index: u64, payload: &[u8]) -> u64 {
        let own = u64::from_le_bytes(self.key.0[..8].try_into().expect("8 bytes"));
        let kind = if self.kind == Kind::Rows { 0 } else { 1 << 63 };
        XxHash3_64::oneshot_with_seed(own ^ index ^ kind, payload)
    }
}

/// Writes a sealed file under `path` and returns when it is on the disk; its name is not yet.
pub(crate) fn write(disk: &dyn Disk, path: &Path, header: &Header, body: &[u8]) -> Result<(), StoreError> {
    assert_eq!(header.body, body.len() as u64, "{header:?}");
    let file = disk.open(path, How::Fresh).at(path)?;
    file.write_at(&header.encode(), 0).at(path)?;
    let mut at = HEADER;
    for (index, payload) in body.chunks(CHUNK as usize).enumerate() {
        file.write_at(payload, at).at(path)?;
        file.write_at(&header.chunk_sum(index as u64, payload).to_le_bytes(), at + payload.len() as u64)
            .at(path)?;
        at += (payload.len() + SUM) as u64;
    }
    file.sync().at(path)
}

/// Reads a sealed file from front to back.
pub(crate) struct Reader {
    pub(crate) header: Header,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    base: u64,
    next: u64,
    chunk: Vec<u8>,
    used: usize,
    across: Vec<u8>,
}

impl Reader {
    /// Opens a file that holds one sealed file and nothing else.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Reader, StoreError> {
        let file = disk.open(path, How::Read).at(path)?;
        let len = file.len().at(path)?;
        let reader = Reader::part(file, path, 0)?;
        match reader.header.file_bytes() {
            expected if expected == len => Ok(reader),
            expected => Err(damaged(path, format!("expected {expected} bytes, got {len}"))),
        }
    }

    /// Starts reading the sealed file that lies at `base` in a larger one.
    pub(crate) fn part(file: Box<dyn DiskFile>, path: &Path, base: u64) -> Result<Reader, StoreError> {
        let mut head = [0; HEADER as usize];
        let n = file.read_at(&mut head, base).at(path)?;
        let header = Header::parse(&head[..n]).map_err(|why| damaged(path, why))?;
        let (chunk, across) = (Vec::new(), Vec::new());
        Ok(Reader { header, path: path.to_path_buf(), file, base, next: 0, chunk, used: 0, across })
    }

    /// Gives the file back, to read the next part.
    pub(crate) fn into_file(self) -> Box<dyn DiskFile> {
        self.file
    }

    /// Replaces the contents of `out` by the next `n` bytes of the body.
    pub(crate) fn take(&mut self, n: usize, out: &mut Vec<u8>) -> Result<(), StoreError> {
        out.clear();
        while out.len() < n {
            if self.used == self.chunk.len() && !self.load()? {
                return Err(damaged(&self.path, "body ends before its last row"));
            }
            let end = self.chunk.len().min(self.used + n - out.len());
            out.extend_from_slice(&self.chunk[self.used..end]);
            self.used = end;
        }
        Ok(())
    }

    /// The next rows of the body: at least one and at most `most` of `row` bytes each, as they lie
    /// in the chunk; only a row that lies across two chunks is put together first.
    pub(crate) fn rows(&mut self, row: usize, most: u64) -> Result<&[u8], StoreError> {
        if self.used == self.chunk.len() && !self.load()? {
            return Err(damaged(&self.path, "body ends before its last row"));
        }
        let whole = ((self.chunk.len() - self.used) / row) as u64;
        if whole == 0 {
            let mut across = std::mem::take(&mut self.across);
            self.take(row, &mut across)?;
            self.across = across;
            return Ok(&self.across);
        }
        let start = self.used;
        self.used += whole.min(most) as usize * row;
        Ok(&self.chunk[start..self.used])
    }

    /// Checks what has not been read yet.
    pub(crate) fn check_rest(&mut self) -> Result<(), StoreError> {
        while self.load()? {}
        Ok(())
    }

    /// Loads the next chunk; false at the end of the body.
    fn load(&mut self) -> Result<bool, StoreError> {
        let start = self.next * CHUNK;
        if start >= self.header.body {
            return Ok(false);
        }
        let payload = CHUNK.min(self.header.body - start) as usize;
        self.chunk.resize(payload + SUM, 0);
        let at = self.base + HEADER + start + self.next * SUM as u64;
        let n = self.file.read_at(&mut self.chunk, at).at(&self.path)?;
        let whole = n == payload + SUM && {
            let (bytes, sum) = self.chunk.split_at(payload);
            Take(sum).u64() == Some(self.header.chunk_sum(self.next, bytes))
        };
        if !whole {
            return Err(damaged(&self.path, format!("checksum of chunk {} does not hold", self.next)));
        }
        self.chunk.truncate(payload);
        (self.next, self.used) = (self.next + 1, 0);
        Ok(true)
    }
}

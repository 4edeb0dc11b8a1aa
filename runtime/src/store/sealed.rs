//! Sealed files: written once, in one pass, then only read. A header says what the file is; chunks
//! of at most 256 KiB carry a checksum each. Nothing is given to the caller before its checksum held.
use super::bytes::{Put, Take, other_version};
use super::disk::{Disk, DiskFile, How};
use super::error::{At, StoreError};
use super::key::Key;
use std::io;
use std::path::Path;
use twox_hash::XxHash3_64;

/// Bytes of the header.
pub const HEADER: u64 = 192;
/// Payload bytes of a chunk; the last one of a file is shorter.
pub const CHUNK: u64 = 1 << 18;
/// Bytes written by one call.
const BLOCK: usize = 1 << 20;
/// Bytes after which the disk is told to begin: it works while the rest is being written.
const BEGIN: u64 = 4 << 20;
const MAGIC: [u8; 8] = *b"\x89ds4kv\r\n";
const VERSION: u32 = 1;
/// Bytes of a chunk's checksum.
pub(crate) const SUM: usize = 8;

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

    /// The error of the file that begins with `bytes` if its header is whole and of another version.
    pub(crate) fn other_version(file: &Path, bytes: &[u8]) -> Option<StoreError> {
        other_version(file, bytes.get(..HEADER as usize)?, MAGIC, VERSION)
    }

    fn fields(kind: Kind, take: &mut Take) -> Option<Header> {
        let keys = [take.array()?, take.array()?, take.array()?, take.array()?];
        let [root, key, parent, block] = keys.map(Key);
        let (start, end, body, created) = (take.u64()?, take.u64()?, take.u64()?, take.u64()?);
        let (seconds, logits) = (take.f32()?, take.u32()?);
        Some(Header { kind, root, key, parent, block, start, end, body, created, seconds, logits })
    }

    /// Chunks of another file, or in another order, do not pass for ours.
    pub(crate) fn chunk_sum(&self, index: u64, payload: &[u8]) -> u64 {
        let own = u64::from_le_bytes(self.key.0[..8].try_into().expect("8 bytes"));
        let kind = if self.kind == Kind::Rows { 0 } else { 1 << 63 };
        XxHash3_64::oneshot_with_seed(own ^ index ^ kind, payload)
    }
}

/// Writes a sealed file under `path`, with a pause after each [`BLOCK`]. Neither it nor its name are on the
/// disk yet.
pub(crate) fn write(
    disk: &dyn Disk,
    path: &Path,
    header: &Header,
    body: &[u8],
    pause: &dyn Fn(),
) -> Result<Box<dyn DiskFile>, StoreError> {
    assert_eq!(header.body, body.len() as u64, "{header:?}");
    let file = disk.open(path, How::Fresh).at(path)?;
    let capacity = BLOCK.min(header.file_bytes() as usize);
    let mut blocks = Blocks { file: &*file, block: Vec::with_capacity(capacity), at: 0, begun: 0, pause };
    let done = blocks.push(&header.encode()).and_then(|()| {
        body.chunks(CHUNK as usize).enumerate().try_for_each(|(index, payload)| {
            blocks.push(payload)?;
            blocks.push(&header.chunk_sum(index as u64, payload).to_le_bytes())
        })
    });
    done.and_then(|()| blocks.flush()).at(path)?;
    Ok(file)
}

/// Gathers bytes into blocks that begin where pages do: written as they come, in odd lengths, they cost
/// the system half as much again.
struct Blocks<'a> {
    file: &'a dyn DiskFile,
    block: Vec<u8>,
    /// Where the block belongs in the file.
    at: u64,
    /// The disk has been told to begin up to here.
    begun: u64,
    pause: &'a dyn Fn(),
}

impl Blocks<'_> {
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                self.flush()?;
                (self.pause)();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.block, self.at)?;
        self.at += self.block.len() as u64;
        self.block.clear();
        if self.at - self.begun >= BEGIN {
            self.file.begin_sync(self.begun..self.at);
            self.begun = self.at;
        }
        Ok(())
    }
}

//! The index on the disk. Readers follow it without a lock; only the holder of the folder's lock
//! appends to it, and each append is on the disk before the next begins.
use super::disk::{Disk, How};
use super::error::{At, StoreError};
use super::index::{Index, Record};
use super::key::Key;
use super::log::{FRAME_MAX, LOG_HEADER, LOG_MAX, LogHeader, LogKind};
use std::path::PathBuf;

const RECORDS: u32 = 1;
/// A log shorter than this is not worth compacting.
const COMPACT_MIN: u64 = 1 << 20;
/// Bytes of a record of the longest kind, at most.
const RECORD_MAX: usize = 192;

/// What reading the index file found.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// All of it is known now.
    Whole,
    /// Behind what is known lies something unfinished: by a writer at work or one that died.
    Torn,
    /// There is no file yet.
    Missing,
    /// What it said once is lost.
    Damaged(String),
}

/// The index and how far its file has been read.
pub(crate) struct IndexFile {
    pub(crate) path: PathBuf,
    pub(crate) index: Index,
    header: Option<LogHeader>,
    end: u64,
    /// Known in memory only.
    unwritten: Vec<Record>,
}

impl IndexFile {
    pub(crate) fn new(path: PathBuf) -> IndexFile {
        IndexFile { path, index: Index::default(), header: None, end: 0, unwritten: Vec::new() }
    }

    /// Makes a change, to be written by the next [`Write`].
    pub(crate) fn log(&mut self, record: Record) {
        self.index.apply(&record);
        self.unwritten.push(record);
    }

    /// Reads what others appended, or everything if the file was replaced.
    pub(crate) fn refresh(&mut self, disk: &dyn Disk) -> Result<Found, StoreError> {
        let file = match disk.open(&self.path, How::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Missing),
            file => file.at(&self.path)?,
        };
        let len = file.len().at(&self.path)?;
        if len > LOG_MAX {
            return Ok(Found::Damaged(format!("expected at most {LOG_MAX} bytes, got {len}")));
        }
        let mut head = [0; LOG_HEADER];
        let n = file.read_at(&mut head, 0).at(&self.path)?;
        let header = match LogHeader::parse(&head[..n], LogKind::Index) {
            Ok(header) => header,
            Err(why) => {
                return LogHeader::other_version(&self.path, &head[..n]).map_or(Ok(Found::Damaged(why)), Err);
            }
        };
        if self.header != Some(header) {
            self.restart(header);
        } else if len < self.end {
            return Ok(Found::Damaged(format!("expected at least {} bytes, got {len}", self.end)));
        }
        let mut bytes = vec![0; (len - self.end) as usize];
        let n = file.read_at(&mut bytes, self.end).at(&self.path)?;
        bytes.truncate(n);
        let scan = header.scan(&bytes, self.end);
        for (tag, range) in scan.frames {
            match Record::parse_all(&bytes[range]).filter(|_| tag == RECORDS) {
                Some(records) => records.iter().for_each(|r| self.index.apply(r)),
                None => return Ok(Found::Damaged(format!("expected frames of records, got tag {tag}"))),
            }
        }
        self.end = scan.end;
        Ok(match (scan.torn, scan.damaged) {
            (_, true) => Found::Damaged(format!("checksum of the frame at {} does not hold", scan.end)),
            (true, _) => Found::Torn,
            _ => Found::Whole,
        })
    }

    fn restart(&mut self, header: LogHeader) {
        self.index = Index::default();
        (self.header, self.end) = (Some(header), LOG_HEADER as u64);
        for record in std::mem::take(&mut self.unwritten) {
            self.log(record); // Changes that are not of the replaced file remain ours to write.
        }
    }

    /// Cuts the unfinished tail of a dead writer. The caller holds the lock.
    pub(crate) fn cut(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let file = disk.open(&self.path, How::Write).at(&self.path)?;
        file.truncate(self.end).and_then(|()| file.sync()).at(&self.path)
    }

    /// What is to be written so that the disk knows all changes; `None` if it does. With `anew`, all
    /// that is known replaces the file, as it does when the log has grown long. The caller holds the
    /// lock, has refreshed, and tells [`IndexFile::written`] once it is done.
    pub(crate) fn next_write(&self, disk: &dyn Disk, anew: bool) -> Option<Write> {
        let live = (self.index.len() * RECORD_MAX) as u64;
        let header = self.header.filter(|_| !anew && self.end < COMPACT_MIN + 4 * live);
        let records = self.unwritten.len();
        let path = self.path.clone();
        if let Some(header) = header {
            let (bytes, end) = frames(&header, self.end, &self.unwritten);
            let write = Write { path, header, bytes, at: Some(self.end), end, records };
            return (records > 0).then_some(write);
        }
        let created = disk.now();
        let last = self.header.map_or([0; 32], |h| h.id.0);
        let seed = [&last[..], &created.to_le_bytes(), &std::process::id().to_le_bytes()].concat();
        let id = Key(*blake3::hash(&seed).as_bytes());
        let header = LogHeader { kind: LogKind::Index, id, created };
        let mut bytes = header.encode();
        let (log, end) = frames(&header, LOG_HEADER as u64, &self.index.snapshot());
        bytes.extend(log);
        Some(Write { path, header, bytes, at: None, end, records })
    }

    /// The write was done. Changes made meanwhile are still to be written.
    pub(crate) fn written(&mut self, write: &Write) {
        // A refresh in between may have read what was written, and more cannot be there.
        (self.header, self.end) = (Some(write.header), write.end);
        self.unwritten.drain(..write.records);
    }
}

/// Bytes for the index file, made while it was locked in memory and written while it is not: those who
/// look something up do not wait for the disk.
pub(crate) struct Write {
    path: PathBuf,
    header: LogHeader,
    bytes: Vec<u8>,
    /// Where they go; absent if they are a new file.
    at: Option<u64>,
    end: u64,
    records: usize,
}

impl Write {
    /// Puts the bytes on the disk, a new file under the index's name. After an error all changes are
    /// still to be written.
    pub(crate) fn put(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        if let Some(at) = self.at {
            let file = disk.open(&self.path, How::Write).at(&self.path)?;
            return file.write_at(&self.bytes, at).and_then(|()| file.sync()).at(&self.path);
        }
        let temp = self.path.with_extension("tmp");
        let file = disk.open(&temp, How::Fresh).at(&temp)?;
        file.write_at(&self.bytes, 0).and_then(|()| file.sync()).at(&temp)?;
        disk.rename(&temp, &self.path).at(&self.path)
    }

    /// Makes the name of a new file durable. Others see the new file before that, so that
    /// [`IndexFile::written`] comes first.
    pub(crate) fn settle(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let folder = self.path.parent().expect("the index lies in a folder");
        if self.at.is_none() { disk.sync_dir(folder).at(folder) } else { Ok(()) }
    }
}

/// The frames that hold `records`, from `at` on, and where they end.
fn frames(header: &LogHeader, at: u64, records: &[Record]) -> (Vec<u8>, u64) {
    let mut out = Vec::new();
    for group in records.chunks(FRAME_MAX / RECORD_MAX) {
        let mut payload = Vec::new();
        group.iter().for_each(|r| r.encode(&mut payload));
        out.extend(header.frame(at + out.len() as u64, at, RECORDS, &payload));
    }
    let end = at + out.len() as u64;
    (out, end)
}

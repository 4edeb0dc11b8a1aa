//! Reading sealed files from front to back; nothing is given to the caller before its checksum held.
//!
//! The system reads ahead within a file; [`Files`] has it begin with the files behind as well. So the disk
//! works while the caller does, and one thread restores as fast as a disk of some GB/s reads.
use super::bytes::{Take, tokens};
use super::disk::{Disk, DiskFile, How};
use super::error::{At, StoreError, damaged};
use super::sealed::{CHUNK, HEADER, Header, SUM};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes read by one call: some chunks with their sums.
const PIECE: u64 = 2 * (CHUNK + SUM as u64);
/// Bytes of files behind the one being read that the disk is told to read.
const AHEAD: u64 = 8 << 20;
/// Linux begins with no more than a transfer of the disk at one telling, on most disks 1,280 KiB.
const STEP: u64 = 1 << 20;
/// Files opened before they are asked for, at most.
const FILES: usize = 16;

/// Sealed files that will be read one after the other.
pub(crate) struct Files<'a> {
    disk: &'a dyn Disk,
    /// Not opened yet.
    paths: std::slice::Iter<'a, PathBuf>,
    open: VecDeque<(&'a Path, io::Result<Opened>)>,
}

struct Opened {
    file: Box<dyn DiskFile>,
    len: u64,
}

impl Opened {
    fn new(disk: &dyn Disk, path: &Path) -> io::Result<Opened> {
        let file = disk.open(path, How::Read)?;
        let len = file.len()?;
        Ok(Opened { file, len })
    }
}

impl<'a> Files<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, paths: &'a [PathBuf]) -> Files<'a> {
        Files { disk, paths: paths.iter(), open: VecDeque::new() }
    }

    /// The next file. There has to be one.
    pub(crate) fn next(&mut self) -> Result<Reader, StoreError> {
        let (path, opened) = self.open.pop_front().unwrap_or_else(|| {
            let path = self.paths.next().expect("a file is left");
            (path, Opened::new(self.disk, path))
        });
        self.begin();
        Reader::opened(opened.at(path)?, path)
    }

    /// Has the disk begin with the next files.
    fn begin(&mut self) {
        let bytes = |o: &(&Path, io::Result<Opened>)| o.1.as_ref().map_or(0, |o| o.len);
        while self.open.len() < FILES && self.open.iter().map(bytes).sum::<u64>() < AHEAD {
            let Some(path) = self.paths.next() else { return };
            let opened = Opened::new(self.disk, path);
            if let Ok(Opened { file, len }) = &opened {
                (0..(*len).min(AHEAD)).step_by(STEP as usize).for_each(|at| file.begin_read(at..at + STEP));
            }
            self.open.push_back((path, opened));
        }
    }
}

/// Reads a sealed file from front to back.
pub(crate) struct Reader {
    pub(crate) header: Header,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// Where in the file the next piece begins.
    at: u64,
    /// The last piece, and where in it the next chunk begins.
    piece: Vec<u8>,
    next: usize,
    /// Number of the next chunk.
    index: u64,
    /// The unread rest of the chunk before it, as a range of the piece.
    rest: Range<usize>,
    across: Vec<u8>,
}

impl Reader {
    /// Opens a file that holds one sealed file and nothing else.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Reader, StoreError> {
        Reader::opened(Opened::new(disk, path).at(path)?, path)
    }

    fn opened(opened: Opened, path: &Path) -> Result<Reader, StoreError> {
        let reader = Reader::part(opened.file, path, 0)?;
        match reader.header.file_bytes() {
            expected if expected == opened.len => Ok(reader),
            expected => Err(damaged(path, format!("expected {expected} bytes, got {}", opened.len))),
        }
    }

    /// Starts reading the sealed file that lies at `base` in a larger one.
    pub(crate) fn part(file: Box<dyn DiskFile>, path: &Path, base: u64) -> Result<Reader, StoreError> {
        let mut head = [0; HEADER as usize];
        let n = file.read_at(&mut head, base).at(path)?;
        let header = Header::parse(&head[..n]).map_err(|why| damaged(path, why))?;
        let (path, at) = (path.to_path_buf(), base + HEADER);
        let (piece, across) = (Vec::new(), Vec::new());
        Ok(Reader { header, path, file, at, piece, next: 0, index: 0, rest: 0..0, across })
    }

    /// Gives the file back, to read the next part.
    pub(crate) fn into_file(self) -> Box<dyn DiskFile> {
        self.file
    }

    /// Replaces the contents of `out` by the next `n` bytes of the body.
    pub(crate) fn take(&mut self, n: usize, out: &mut Vec<u8>) -> Result<(), StoreError> {
        out.clear();
        while out.len() < n {
            if self.rest.is_empty() && !self.load()? {
                return Err(damaged(&self.path, "body ends before its last row"));
            }
            let end = self.rest.end.min(self.rest.start + n - out.len());
            out.extend_from_slice(&self.piece[self.rest.start..end]);
            self.rest.start = end;
        }
        Ok(())
    }

    /// The first `most` tokens, or all, of a file of rows that nothing has been read from.
    pub(crate) fn tokens(&mut self, most: u64) -> Result<Vec<u32>, StoreError> {
        let n = most.min(self.header.end - self.header.start);
        // Not even a header that holds is believed: the body has to be long enough.
        if n > self.header.body / 4 {
            return Err(damaged(&self.path, "body ends before its last token"));
        }
        let mut bytes = Vec::new();
        self.take(4 * n as usize, &mut bytes)?;
        Ok(tokens(&bytes).collect())
    }

    /// The next rows of the body: at least one and at most `most` of `row` bytes each, as they lie
    /// in the chunk; only a row that lies across two chunks is put together first.
    pub(crate) fn rows(&mut self, row: usize, most: u64) -> Result<&[u8], StoreError> {
        if self.rest.is_empty() && !self.load()? {
            return Err(damaged(&self.path, "body ends before its last row"));
        }
        let whole = (self.rest.len() / row) as u64;
        if whole == 0 {
            let mut across = std::mem::take(&mut self.across);
            self.take(row, &mut across)?;
            self.across = across;
            return Ok(&self.across);
        }
        let start = self.rest.start;
        self.rest.start += whole.min(most) as usize * row;
        Ok(&self.piece[start..self.rest.start])
    }

    /// Checks what has not been read yet.
    pub(crate) fn check_rest(&mut self) -> Result<(), StoreError> {
        while self.load()? {}
        Ok(())
    }

    /// Goes on to the next chunk; false at the end of the body.
    fn load(&mut self) -> Result<bool, StoreError> {
        let start = self.index.saturating_mul(CHUNK);
        if start >= self.header.body {
            return Ok(false);
        }
        if self.next == self.piece.len() {
            // The header's length is no reason to allocate more than a piece.
            let left = self.header.file_bytes() - HEADER - self.index * (CHUNK + SUM as u64);
            self.piece.resize(left.min(PIECE) as usize, 0);
            let n = self.file.read_at(&mut self.piece, self.at).at(&self.path)?;
            self.piece.truncate(n);
            (self.at, self.next) = (self.at + n as u64, 0);
        }
        let payload = CHUNK.min(self.header.body - start) as usize;
        let chunk = self.piece.get(self.next..self.next + payload + SUM);
        let whole = chunk.is_some_and(|chunk| {
            let (bytes, sum) = chunk.split_at(payload);
            Take(sum).u64() == Some(self.header.chunk_sum(self.index, bytes))
        });
        if !whole {
            return Err(damaged(&self.path, format!("checksum of chunk {} does not hold", self.index)));
        }
        self.rest = self.next..self.next + payload;
        self.next += payload + SUM;
        self.index += 1;
        Ok(true)
    }
}

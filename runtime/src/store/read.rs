//! Reading sealed files from front to back; nothing is given to the caller before its checksum held.
use super::ahead::{Ahead, Lane};
use super::bytes::{Take, tokens};
use super::disk::{Disk, DiskFile, How};
use super::error::{At, StoreError, damaged};
use super::sealed::{CHUNK, HEADER, Header, SUM};
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::thread::Scope;

/// Bytes read by one call: a chunk with its sum.
pub(crate) const PIECE: u64 = CHUNK + SUM as u64;

/// Sealed files that will be read one after the other.
pub(crate) struct Files<'a> {
    disk: &'a dyn Disk,
    paths: &'a [PathBuf],
    ahead: Option<Ahead>,
    next: usize,
}

impl<'a> Files<'a> {
    /// Files of about `bytes` bytes in all. Threads that read ahead end with `scope`.
    pub(crate) fn new<'scope>(
        disk: &'a dyn Disk,
        paths: &'a [PathBuf],
        bytes: u64,
        scope: &'scope Scope<'scope, 'a>,
    ) -> Files<'a> {
        Files { disk, paths, ahead: Ahead::start(disk, paths, bytes, scope), next: 0 }
    }

    /// The next file. There has to be one.
    pub(crate) fn next(&mut self) -> Result<Reader, StoreError> {
        let (i, path) = (self.next, &self.paths[self.next]);
        self.next += 1;
        match &self.ahead {
            None => Reader::open(self.disk, path),
            Some(ahead) => {
                let (len, lane) = ahead.file(i).at(path)?;
                Reader::whole(Source::Ahead(lane), len, path)
            }
        }
    }
}

/// Bytes of a file, in a buffer that is used again: made anew for each piece, or filled with zeros
/// before it is read into, it would cost more than the reading.
#[derive(Default)]
pub(crate) struct Piece {
    buffer: Vec<u8>,
    len: usize,
    home: Option<Sender<Vec<u8>>>,
}

impl Piece {
    /// A piece in `buffer`, which goes back to `home` in the end.
    pub(crate) fn recycled(buffer: Vec<u8>, home: &Sender<Vec<u8>>) -> Piece {
        Piece { buffer, len: 0, home: Some(home.clone()) }
    }

    /// Becomes the `n` bytes at `at`; fewer at the end of the file.
    pub(crate) fn read(&mut self, file: &dyn DiskFile, at: u64, n: u64) -> io::Result<()> {
        let n = n as usize;
        self.buffer.resize(self.buffer.len().max(n), 0);
        self.len = file.read_at(&mut self.buffer[..n], at)?;
        Ok(())
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            // A thread that is gone needs no buffers.
            let _ = home.send(std::mem::take(&mut self.buffer));
        }
    }
}

/// Where a reader's bytes come from.
enum Source {
    /// A file, from this byte on.
    File(Box<dyn DiskFile>, u64),
    Ahead(Rc<Lane>),
}

impl Source {
    /// Replaces `piece` by the next `n` bytes; fewer at the end of the file.
    fn read(&mut self, n: u64, piece: &mut Piece) -> io::Result<()> {
        match self {
            Source::Ahead(lane) => *piece = lane.next()?,
            Source::File(file, at) => {
                piece.read(&**file, *at, n)?;
                *at += piece.len() as u64;
            }
        }
        Ok(())
    }
}

/// Reads a sealed file from front to back.
pub(crate) struct Reader {
    pub(crate) header: Header,
    path: PathBuf,
    source: Source,
    /// The last piece, and where in it the next chunk begins.
    piece: Piece,
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
        let file = disk.open(path, How::Read).at(path)?;
        let len = file.len().at(path)?;
        Reader::whole(Source::File(file, 0), len, path)
    }

    fn whole(source: Source, len: u64, path: &Path) -> Result<Reader, StoreError> {
        let reader = Reader::new(source, path)?;
        match reader.header.file_bytes() {
            expected if expected == len => Ok(reader),
            expected => Err(damaged(path, format!("expected {expected} bytes, got {len}"))),
        }
    }

    /// Starts reading the sealed file that lies at `base` in a larger one.
    pub(crate) fn part(file: Box<dyn DiskFile>, path: &Path, base: u64) -> Result<Reader, StoreError> {
        Reader::new(Source::File(file, base), path)
    }

    fn new(mut source: Source, path: &Path) -> Result<Reader, StoreError> {
        let mut piece = Piece::default();
        source.read(HEADER, &mut piece).at(path)?;
        let header = Header::parse(&piece)
            .map_err(|why| Header::other_version(path, &piece).unwrap_or_else(|| damaged(path, why)))?;
        let (path, next, across) = (path.to_path_buf(), piece.len(), Vec::new());
        Ok(Reader { header, path, source, piece, next, index: 0, rest: 0..0, across })
    }

    /// Gives the file of a [`Reader::part`] back, to read the next one.
    pub(crate) fn into_file(self) -> Box<dyn DiskFile> {
        match self.source {
            Source::File(file, _) => file,
            Source::Ahead(_) => unreachable!("read to its end by who opened it"),
        }
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
            self.source.read(left.min(PIECE), &mut self.piece).at(&self.path)?;
            self.next = 0;
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

//! Reading sealed files that will be wanted one after the other, ahead of who wants them.
//!
//! Some threads read, the caller checks and copies: the disk always has work, whether a session lies in
//! one file or, having grown, in hundreds.
use super::disk::{Disk, DiskFile, How};
use super::read::{PIECE, Piece};
use super::sealed::HEADER;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

/// Reading fewer bytes than this takes no longer than starting threads does.
const WORTH: u64 = 4 << 20;
/// Threads that read. They wait more than they work, so their number is that of the disk, not of the cores.
const THREADS: usize = 6;
/// Pieces that a thread has read and nobody has asked for, at most.
const WAITING: usize = 16;

/// Files read ahead: the threads have them in turn.
pub(crate) struct Ahead(Vec<Rc<Lane>>);

/// What one thread reads.
pub(crate) struct Lane(Receiver<Part>);

enum Part {
    /// A file begins, of this length.
    File(io::Result<u64>),
    /// Its header, then pieces of its body.
    Piece(io::Result<Piece>),
}

impl Ahead {
    /// Starts to read `paths`, of about `bytes` bytes in all; `None` if that is not worth it or the system
    /// has no more threads.
    pub(crate) fn start<'scope, 'env>(
        disk: &'env dyn Disk,
        paths: &'env [PathBuf],
        bytes: u64,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Option<Ahead> {
        let lane = |first: usize| {
            let (parts, read) = sync_channel(WAITING);
            let reader =
                std::thread::Builder::new().name("store read".into()).spawn_scoped(scope, move || {
                    let (spare, mut own) = (channel(), paths.iter().skip(first).step_by(THREADS));
                    // Who asks no more has hung up.
                    own.try_for_each(|path| send(disk.open(path, How::Read), &parts, &spare))
                });
            reader.map(|_| Rc::new(Lane(read)))
        };
        let worth = bytes >= WORTH;
        // Without threads the caller reads by itself.
        worth
            .then(|| (0..THREADS.min(paths.len())).map(lane).collect::<io::Result<_>>().ok())
            .flatten()
            .map(Ahead)
    }

    /// Goes on to the file number `i`, the one behind that of the call before: its length, and who
    /// gives its pieces.
    pub(crate) fn file(&self, i: usize) -> io::Result<(u64, Rc<Lane>)> {
        let lane = &self.0[i % self.0.len()];
        loop {
            match lane.0.recv().expect("one begins for each path") {
                Part::File(len) => return len.map(|len| (len, Rc::clone(lane))),
                Part::Piece(_) => {} // Of the file before: not all of it was wanted.
            }
        }
    }
}

impl Lane {
    /// The next piece; an empty one at the end of the file.
    pub(crate) fn next(&self) -> io::Result<Piece> {
        match self.0.recv() {
            Ok(Part::Piece(read)) => read,
            _ => Ok(Piece::default()),
        }
    }
}

/// Buffers that were used, and where they come back to.
type Spare = (Sender<Vec<u8>>, Receiver<Vec<u8>>);

/// Reads a file and sends it; `None` once nobody listens.
fn send(file: io::Result<Box<dyn DiskFile>>, parts: &SyncSender<Part>, spare: &Spare) -> Option<()> {
    let opened = file.and_then(|file| Ok((file.len()?, file)));
    let (len, file) = match opened {
        Ok((len, file)) => (len, file),
        Err(error) => return parts.send(Part::File(Err(error))).ok(),
    };
    parts.send(Part::File(Ok(len))).ok()?;
    let mut at = 0;
    while at < len {
        // The header by itself: for a file read from its first byte in small steps Linux reads ahead in
        // growing steps and in large pages, which cost it a third of what small ones do.
        let (wanted, mut piece) = match at {
            0 => (HEADER, Piece::default()),
            _ => (PIECE, Piece::recycled(spare.1.try_recv().unwrap_or_default(), &spare.0)),
        };
        let read = piece.read(&*file, at, wanted.min(len - at)).map(|()| piece);
        // Whoever gets less than the length promised needs no more.
        at = if read.is_ok() { at + wanted } else { len };
        parts.send(Part::Piece(read)).ok()?;
    }
    Some(())
}

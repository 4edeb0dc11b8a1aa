//! The store's own index. Files behind it are written, not synced: only the index waits for the disk.
use crate::{Index, LONG, SHARED, STEP, layout, text};
use ds4_runtime::store::{Boundary, Disk, DiskFile, How, Lock, Node, Options, RealDisk, StateRows, Store};
use std::io::Result;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub struct Log(pub Store);

/// The disk of this machine, on which nothing waits but, if asked for, the file of the index.
struct Waits {
    index: bool,
}

struct Quick(Box<dyn DiskFile>);

impl Disk for Waits {
    fn open(&self, path: &Path, how: How) -> Result<Box<dyn DiskFile>> {
        let file = RealDisk.open(path, how)?;
        if self.index && path.ends_with("index") { Ok(file) } else { Ok(Box::new(Quick(file))) }
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        RealDisk.remove(path)
    }
    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        RealDisk.names(folder)
    }
    fn private_dir(&self, folder: &Path) -> Result<std::result::Result<(), String>> {
        RealDisk.private_dir(folder)
    }
    fn sync_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn try_lock(&self, path: &Path) -> Result<Option<Lock>> {
        RealDisk.try_lock(path)
    }
    fn now(&self) -> u64 {
        RealDisk.now()
    }
}

impl DiskFile for Quick {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read_at(buf, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.0.write_at(bytes, at)
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.0.truncate(len)
    }
}

struct Nothing;

impl StateRows for Nothing {
    fn read(&self, _: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        out.resize(out.len() + 4 * (rows.end - rows.start) as usize, 0);
    }
    fn write(&mut self, _: usize, _: Range<u64>, _: &[u8]) {}
}

fn open(folder: &Path, index: bool) -> Log {
    let options = Options { budget: u64::MAX / 2, ..Options::default() };
    Log(Store::open(Arc::new(Waits { index }), &folder.join("kv"), options).expect("a folder of ours"))
}

impl Index for Log {
    fn open(folder: &Path) -> Log {
        open(folder, true)
    }

    fn find(&self, tokens: &[u32]) -> u64 {
        self.0.find(&layout(), tokens)
    }

    fn put(&self, tokens: &[u32]) {
        let boundary = Boundary { tokens, logits: &[0.0], seconds_per_token: 1.0 };
        let capture = self.0.capture(&layout(), boundary, &Nothing).expect("a disk that works");
        self.0.commit(&capture.expect("a new boundary")).expect("a disk that works");
    }
}

/// An index of so many sessions, and the boundaries in it.
pub fn lay_down(folder: &Path, sessions: u32) -> Vec<Node> {
    let log = open(folder, false);
    log.put(&text(0)[..SHARED]);
    for session in 0..sessions {
        let tokens = text(session);
        log.put(&tokens[..SHARED + STEP]);
        log.put(&tokens[..LONG]);
    }
    // As `gc` leaves it: without the history of its growth.
    log.0.gc(u64::MAX).expect("a disk that works");
    log.0.list().expect("a disk that works")
}

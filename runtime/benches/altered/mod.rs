//! The disk of this machine, with a say in what waits: to lay down many sessions quickly, or to hold a
//! save up.
#![allow(dead_code, reason = "each bench uses its part")]
use ds4_runtime::store::{Disk, DiskFile, How, Lock, RealDisk};
use std::io::Result;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What is asked before bytes are written; it may take its time.
type BeforeWrite = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Altered {
    /// Whether the file or folder of this name is synced when the store asks for it.
    pub(crate) syncs: fn(&Path) -> bool,
    pub(crate) before_write: BeforeWrite,
}

impl Altered {
    /// A disk that does not wait, but for what has this name.
    pub(crate) fn unsynced(but: fn(&Path) -> bool) -> Altered {
        Altered { syncs: but, before_write: Arc::new(|| ()) }
    }
}

impl Disk for Altered {
    fn open(&self, path: &Path, how: How) -> Result<Box<dyn DiskFile>> {
        let (file, syncs) = (RealDisk.open(path, how)?, (self.syncs)(path));
        Ok(Box::new(AlteredFile { file, syncs, before_write: Arc::clone(&self.before_write) }))
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
    fn sync_dir(&self, folder: &Path) -> Result<()> {
        if (self.syncs)(folder) { RealDisk.sync_dir(folder) } else { Ok(()) }
    }
    fn try_lock(&self, path: &Path) -> Result<Option<Lock>> {
        RealDisk.try_lock(path)
    }
    fn now(&self) -> u64 {
        RealDisk.now()
    }
}

struct AlteredFile {
    file: Box<dyn DiskFile>,
    syncs: bool,
    before_write: BeforeWrite,
}

impl DiskFile for AlteredFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.file.read_at(buf, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        (self.before_write)();
        self.file.write_at(bytes, at)
    }
    fn sync(&self) -> Result<()> {
        if self.syncs { self.file.sync() } else { Ok(()) }
    }
    fn begin_sync(&self, bytes: Range<u64>) {
        if self.syncs {
            self.file.begin_sync(bytes);
        }
    }
    fn len(&self) -> Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.file.truncate(len)
    }
}

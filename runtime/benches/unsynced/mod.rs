//! A disk that does not wait: to lay down many sessions quickly, or to see what waits.
use ds4_runtime::store::{Disk, DiskFile, How, Lock, RealDisk};
use std::io::Result;
use std::path::Path;

/// The disk of this machine; nothing is synced but the file of this name.
pub(crate) struct Unsynced {
    pub(crate) but: Option<&'static str>,
}

impl Disk for Unsynced {
    fn open(&self, path: &Path, how: How) -> Result<Box<dyn DiskFile>> {
        let file = RealDisk.open(path, how)?;
        if self.but.is_some_and(|name| path.ends_with(name)) {
            Ok(file)
        } else {
            Ok(Box::new(UnsyncedFile(file)))
        }
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

struct UnsyncedFile(Box<dyn DiskFile>);

impl DiskFile for UnsyncedFile {
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

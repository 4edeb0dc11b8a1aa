//! A disk in memory that never fails: the store's parsers are fuzzed without files.
use ds4_runtime::store::{Disk, DiskFile, How, Lock};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A handle on the disk; clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<World>);

#[derive(Default)]
struct World {
    files: Mutex<BTreeMap<PathBuf, Bytes>>,
    /// Of the files themselves, whatever they are called by now.
    locks: Mutex<BTreeSet<usize>>,
    clock: AtomicU64,
}

const WHOLE: &str = "no panic while locked";

impl Memory {
    fn find(&self, path: &Path) -> Result<Bytes> {
        let files = self.0.files.lock().expect(WHOLE);
        files.get(path).cloned().ok_or_else(|| Error::from(ErrorKind::NotFound))
    }

    /// Another disk with the same files.
    pub(crate) fn copy(&self) -> Memory {
        let copy = Memory::default();
        copy.0.clock.store(self.0.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        self.paths().iter().for_each(|path| copy.put(path, self.get(path)));
        copy
    }

    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.0.files.lock().expect(WHOLE).insert(path.to_path_buf(), Arc::new(Mutex::new(bytes)));
    }

    pub(crate) fn get(&self, path: &Path) -> Vec<u8> {
        self.find(path).expect("it is there").lock().expect(WHOLE).clone()
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.0.files.lock().expect(WHOLE).keys().cloned().collect()
    }
}

struct Held(Memory, Bytes);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.locks.lock().expect(WHOLE).remove(&id(&self.1));
    }
}

fn id(file: &Bytes) -> usize {
    Arc::as_ptr(file).addr()
}

struct MemoryFile(Bytes);

impl Disk for Memory {
    fn open(&self, path: &Path, how: How) -> Result<Box<dyn DiskFile>> {
        let found = match self.find(path) {
            Err(_) if how != How::Read => {
                self.put(path, Vec::new());
                self.find(path)
            }
            found => found,
        }?;
        if how == How::Fresh {
            found.lock().expect(WHOLE).clear();
        }
        Ok(Box::new(MemoryFile(found)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut files = self.0.files.lock().expect(WHOLE);
        let file = files.remove(from).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let removed = self.0.files.lock().expect(WHOLE).remove(path);
        removed.map(drop).ok_or_else(|| Error::from(ErrorKind::NotFound))
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        let name = |path: &PathBuf| path.strip_prefix(folder).ok()?.to_str().map(String::from);
        Ok(self.paths().iter().filter(|p| p.parent() == Some(folder)).filter_map(name).collect())
    }

    fn private_dir(&self, _: &Path) -> Result<std::result::Result<(), String>> {
        Ok(Ok(()))
    }

    fn sync_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Lock>> {
        let file = self.find(path)?;
        let free = self.0.locks.lock().expect(WHOLE).insert(id(&file));
        Ok(free.then(|| Lock::new(Held(self.clone(), file))))
    }

    fn now(&self) -> u64 {
        self.0.clock.fetch_add(1, Ordering::Relaxed)
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let bytes = self.0.lock().expect(WHOLE);
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, new: &[u8], at: u64) -> Result<()> {
        let mut bytes = self.0.lock().expect(WHOLE);
        let (start, end) = (at as usize, at as usize + new.len());
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[start..end].copy_from_slice(new);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.0.lock().expect(WHOLE).len() as u64)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.0.lock().expect(WHOLE).resize(len as usize, 0);
        Ok(())
    }
}

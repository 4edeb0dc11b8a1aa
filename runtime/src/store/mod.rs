//! The store: a folder of snapshots that survive the process, restore exactly, and never lie.
//!
//! What it guarantees. What [`Store::commit`] reported saved is on the disk and stays until it is
//! evicted. [`Store::restore`] gives back, byte for byte, the rows that were valid at the longest
//! kept boundary that is a prefix of the request, for the same identity and schema, or a miss
//! with its [`Reason`]. A damaged file costs the boundaries that need it and a warning, never an
//! answer. Any number of processes may use the folder; readers never wait for writers.
//!
//! How: a boundary is a node of a trie over token prefixes, named by a hash of identity, schema and
//! tokens ([`key`](Key)). Its file of rows holds the entries closed since its parent, its file of
//! the edge what is valid only there ([`Layout`]). Both are written beside, synced, renamed and
//! never changed; then the index, a log, gets a record. `docs/store.md` draws the files.
mod ahead;
mod beside;
mod bundle;
mod bytes;
mod check;
mod disk;
mod error;
mod evict;
mod index;
mod index_file;
mod journal;
mod key;
mod layout;
mod list;
mod log;
mod read;
mod remove;
mod restore;
mod save;
mod sealed;
mod sweep;
mod threads;

pub use check::{Problem, Report};
pub use disk::{Disk, DiskFile, How, Lock, RealDisk};
pub use error::StoreError;
pub use index::{Gone, Node};
pub use journal::{Journal, SessionFile};
pub use key::{BLOCK, Chain, Key};
pub use layout::{Layout, StateRows};
pub use list::Entry;
pub use log::{FRAME_MAX, LOG_HEADER, LOG_MAX, LogHeader, LogKind, Scan};
pub use restore::{Reason, Restored};
pub use save::{Boundary, Capture, Saved};
pub use sealed::{CHUNK, HEADER, Header, Kind};
pub use threads::{Ticket, Writer};

use error::At;
use index_file::{Found, IndexFile};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The file that makes a folder a store; who has it locked is the only writer.
const LOCK: &str = "lock";
/// What lies in a store's folder.
const PARTS: [&str; 6] = [LOCK, "index", "index.tmp", "nodes", "sessions", "quarantine"];

/// What the owner of a store decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that snapshots may take, all models together. Journals are not counted.
    pub budget: u64,
    /// How long to wait for a lock that another process holds.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { budget: 32 << 30, patience: Duration::from_secs(10) }
    }
}

/// An open store. All methods may be called from any thread.
pub struct Store {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    options: Options,
    file: Mutex<IndexFile>,
    /// Whether this process has compared the index with the folder.
    swept: AtomicBool,
    warnings: Mutex<Vec<String>>,
    /// Boundaries captured and not yet committed.
    pending: save::Pending,
    /// The journals that this process has open.
    journals: journal::Journals,
}

impl Store {
    /// Whether a folder is a store already.
    pub fn exists(folder: &Path) -> bool {
        folder.join(LOCK).is_file()
    }

    /// Opens the store in `folder`, making it if it is absent.
    ///
    /// Refuses a folder that others can write, and one that holds files and is no store. A damaged index
    /// is put aside and rebuilt from the headers of the files, with a warning.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, options: Options) -> Result<Store, StoreError> {
        let private = |folder: &Path| {
            let found = disk.private_dir(folder).at(folder)?;
            found.map_err(|got| StoreError::NotPrivate { folder: folder.to_path_buf(), got })
        };
        private(folder)?;
        let names = disk.names(folder).at(folder)?;
        let foreign = names.iter().find(|name| !PARTS.contains(&name.as_str()) && !name.starts_with('.'));
        if let Some(name) = foreign.filter(|_| !names.iter().any(|name| name == LOCK)) {
            return Err(StoreError::Foreign { folder: folder.to_path_buf(), got: name.clone() });
        }
        for part in ["nodes", "sessions", "quarantine"] {
            private(&folder.join(part))?;
        }
        let lock = folder.join(LOCK);
        match disk.open(&lock, How::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => disk.open(&lock, How::Write).at(&lock)?,
            file => file.at(&lock)?, // So a store that cannot be written can be read.
        };
        let store = Store {
            file: Mutex::new(IndexFile::new(folder.join("index"))),
            folder: folder.to_path_buf(),
            disk,
            options,
            swept: AtomicBool::new(false),
            warnings: Mutex::default(),
            pending: save::Pending::default(),
            journals: journal::Journals::default(),
        };
        let found = store.file().refresh(store.disk())?;
        if matches!(found, Found::Missing | Found::Damaged(_)) {
            store.locked(|_| Ok(()))?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the owner decided.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Bytes of all snapshots.
    pub fn bytes(&self) -> u64 {
        self.file().index.bytes()
    }

    /// The warnings since the last call, oldest first; each names a file.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().expect("no panic while locked"))
    }

    fn warn(&self, text: String) {
        self.warnings.lock().expect("no panic while locked").push(text);
    }

    fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    fn file(&self) -> MutexGuard<'_, IndexFile> {
        self.file.lock().expect("no panic while locked")
    }

    /// Reads what other processes appended to the index. Never waits for them.
    fn refresh(&self) -> Result<(), StoreError> {
        let found = self.file().refresh(self.disk())?;
        match found {
            Found::Whole | Found::Torn => Ok(()),
            Found::Missing | Found::Damaged(_) => self.locked(|_| Ok(())),
        }
    }

    /// Runs `work` as the only writer among all processes, with an index that is whole on the disk.
    /// Lookups go on meanwhile, so the index itself is not kept locked.
    fn locked<T>(&self, work: impl FnOnce(&Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _lock = self.lock(&self.folder.join(LOCK))?;
        let found = self.file().refresh(self.disk())?;
        let crashed = found != Found::Whole;
        match found {
            Found::Whole => {}
            Found::Torn => self.file().cut(self.disk())?,
            Found::Missing => self.write_index(true)?,
            Found::Damaged(why) => {
                let path = self.file().path.clone();
                self.quarantine(&path, &why)?;
                self.write_index(true)?;
            }
        }
        if crashed || !self.swept.load(Ordering::Acquire) {
            self.sweep()?;
            self.swept.store(true, Ordering::Release);
        }
        let done = work(self);
        // What was evicted on the way to a failure is written all the same.
        let flushed = self.flush();
        done.and_then(|value| flushed.map(|()| value))
    }

    /// Puts all changes of the index on the disk. The caller holds the folder's lock.
    fn flush(&self) -> Result<(), StoreError> {
        self.write_index(false)
    }

    /// As [`Store::flush`]; with `anew` as a new file.
    fn write_index(&self, anew: bool) -> Result<(), StoreError> {
        let Some(write) = self.file().next_write(self.disk(), anew) else { return Ok(()) };
        write.put(self.disk())?;
        self.file().written(&write);
        write.settle(self.disk())
    }

    fn lock(&self, path: &Path) -> Result<Lock, StoreError> {
        let start = Instant::now();
        loop {
            if let Some(lock) = self.disk.try_lock(path).at(path)? {
                return Ok(lock);
            }
            if start.elapsed() >= self.options.patience {
                return Err(StoreError::Busy { file: path.to_path_buf() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn node_file(&self, key: &Key, kind: Kind) -> PathBuf {
        let suffix = if kind == Kind::Rows { "rows" } else { "edge" };
        self.folder.join("nodes").join(format!("{key}.{suffix}"))
    }
}

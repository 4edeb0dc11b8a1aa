//! What can go wrong with a store. A miss is not an error; it is a [`super::Reason`].
use std::io;
use std::path::{Path, PathBuf};

/// Errors of the store. Nothing stored before is lost by any of them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused; the disk may be full.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what its name and checksums say.
    #[error("{file}: {why}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was expected and what was found.
        why: String,
    },
    /// Another ds4 wrote it, and may read it again: it is left as it is.
    #[error("{file}: expected version {expected}, got version {got}, of another ds4")]
    Version {
        /// The file.
        file: PathBuf,
        /// The version that this ds4 reads and writes.
        expected: u32,
        /// The version of the file.
        got: u32,
    },
    /// Somebody else could plant or change states.
    #[error("{folder}: expected a folder that only its owner can write, got {got}")]
    NotPrivate {
        /// The folder.
        folder: PathBuf,
        /// Its mode or owner.
        got: String,
    },
    /// Files of somebody else would be taken for ours.
    #[error("{folder}: expected an empty folder or one of kept sessions, got one that holds {got}")]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// A file in it.
        got: String,
    },
    /// Another process holds the lock for too long.
    #[error("{file}: locked by another process")]
    Busy {
        /// The locked file.
        file: PathBuf,
    },
    /// Everything that could be evicted belongs to requests being served.
    #[error("store budget: expected room for {needed} bytes, got {budget} in all, {kept} of them in use")]
    Budget {
        /// Bytes of the new entry.
        needed: u64,
        /// The budget.
        budget: u64,
        /// Bytes that may not be evicted.
        kept: u64,
    },
    /// The entry a save builds on was evicted or failed to be saved; the next save starts below it.
    #[error("state at {position} tokens: the entry at {parent} tokens that it extends is gone")]
    ParentGone {
        /// Position of the refused save.
        position: u64,
        /// Position it builds on.
        parent: u64,
    },
    /// The device that holds the session's states failed.
    #[error("states: {0}")]
    Device(String),
    /// The tokens of this session were recorded for another model, numeric class or schema.
    #[error("session {name}: recorded for another model, numeric class or state schema")]
    OtherIdentity {
        /// The session.
        name: String,
    },
    /// Session names become file names.
    #[error("session name {name:?}: expected 1 to 64 of a-z A-Z 0-9 . _ - and no leading dot")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// No entry or session is called that.
    #[error("{what}: not in the store")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// A session of this name exists.
    #[error("session {name}: exists already")]
    Exists {
        /// The session.
        name: String,
    },
    /// The writer thread is gone.
    #[error("store writer: stopped before this save was done")]
    Stopped,
}

/// Names the file of a failed call.
pub(crate) trait At<T> {
    fn at(self, file: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, file: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { file: file.to_path_buf(), source })
    }
}

/// Says that `file` is damaged.
pub(crate) fn damaged(file: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Damaged { file: file.to_path_buf(), why: why.into() }
}

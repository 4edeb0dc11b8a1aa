//! Files on their way into the folder: written under names of their own without the folder's lock, so
//! that nobody waits for their bytes, then given their names under it.
use super::Store;
use super::disk::Lock;
use super::error::{At, StoreError};
use super::save::publish;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file being written beside its name. Dropping it removes it, unless it was published.
///
/// It is locked: by that a sweep tells it from what a dead process left.
pub(crate) struct Beside<'a> {
    store: &'a Store,
    temp: PathBuf,
    path: PathBuf,
    published: bool,
    _lock: Lock,
}

impl<'a> Beside<'a> {
    /// Makes the file that is to become `path`. The caller holds the folder's lock, so that no sweep
    /// comes before this file's own.
    pub(crate) fn new(store: &'a Store, path: PathBuf) -> Result<Beside<'a>, StoreError> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        // Two may save the same boundary at once.
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let temp = path.with_added_extension(format!("{:x}-{number:x}.tmp", std::process::id()));
        drop(store.disk().open(&temp, super::How::Fresh).at(&temp)?);
        match store.disk().try_lock(&temp).at(&temp) {
            Ok(Some(lock)) => Ok(Beside { store, temp, path, published: false, _lock: lock }),
            failed => {
                drop(store.disk().remove(&temp));
                failed.and(Err(StoreError::Busy { file: temp }))
            }
        }
    }

    /// Where its bytes go.
    pub(crate) fn temp(&self) -> &Path {
        &self.temp
    }

    /// Gives the synced files of `nodes/` that are still `lacking` their names, durably, and answers true;
    /// false, with nothing done, if one that is lacking is not among `files`. The caller holds the
    /// folder's lock.
    pub(crate) fn publish<'b>(
        files: impl Iterator<Item = &'b mut Beside<'a>>,
        lacking: &[PathBuf],
    ) -> Result<bool, StoreError>
    where
        'a: 'b,
    {
        let mut files: Vec<_> = files.filter(|f| lacking.contains(&f.path)).collect();
        if files.len() < lacking.len() {
            return Ok(false);
        }
        let Some(store) = files.first().map(|f| f.store) else { return Ok(true) };
        let names: Vec<_> = files.iter().map(|f| (f.temp.clone(), f.path.clone())).collect();
        publish(store.disk(), &names, &store.folder.join("nodes"))?;
        files.iter_mut().for_each(|f| f.published = true);
        Ok(true)
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if !self.published {
            // A full disk needs the room back now; what cannot be removed is swept later.
            drop(self.store.disk().remove(&self.temp));
        }
    }
}

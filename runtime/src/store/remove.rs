//! Removing what somebody no longer wants kept.
use super::Store;
use super::error::StoreError;
use super::index::Gone;
use super::key::Key;
use std::collections::HashSet;
use std::path::PathBuf;

impl Store {
    /// Removes a session: its journal, and the boundaries that nothing but it stands on. Returns the
    /// bytes of snapshots freed. One that some process has open is refused.
    pub fn forget_session(&self, name: &str) -> Result<u64, StoreError> {
        let lock = self.lock_session(name)?;
        let own = self.prefixes_of(name);
        let freed = self.freeing(|store| {
            let names = store.session_names()?;
            let others: HashSet<Key> =
                names.iter().filter(|n| *n != name).flat_map(|n| store.prefixes_of(n)).collect();
            // From its end to its beginning, up to what others share.
            let mut files = Vec::new();
            for key in own {
                let alone = {
                    let index = &store.file().index;
                    index.node(&key).is_some() && !index.has_children(&key) && !others.contains(&key)
                };
                if alone {
                    files.extend(store.forget(&key, Gone::Missing));
                }
            }
            Ok(files)
        })?;
        // Last: what is cut short here can be begun anew.
        self.remove_journal(name, lock)?;
        Ok(freed)
    }

    /// Removes one kept boundary, with its rows if no other extends it. Returns the bytes freed.
    pub fn forget_entry(&self, key: &Key) -> Result<u64, StoreError> {
        self.freeing(|store| {
            if store.file().index.node(key).is_none_or(|n| n.edge == 0) {
                return Err(StoreError::NotFound { what: format!("kept entry {key}") });
            }
            Ok(store.forget(key, Gone::Missing))
        })
    }

    /// Removes the files that `forget` answers, and what is of no use without them; the bytes freed.
    fn freeing(
        &self,
        forget: impl FnOnce(&Store) -> Result<Vec<PathBuf>, StoreError>,
    ) -> Result<u64, StoreError> {
        self.locked(|store| {
            let before = store.bytes();
            store.unlink(&forget(store)?)?;
            store.drop_dead_ends(&Default::default())?;
            Ok(before.saturating_sub(store.bytes()))
        })
    }
}

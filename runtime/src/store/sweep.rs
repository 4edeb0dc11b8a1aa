//! Bringing folder and index together after somebody died, and putting damaged files aside.
use super::Store;
use super::error::{At, StoreError};
use super::index::{Gone, Node, Record};
use super::key::Key;
use super::read::Reader;
use super::sealed::{Header, Kind};
use std::collections::BTreeSet;
use std::path::Path;

impl Store {
    /// Compares the folder with the index. The caller holds the lock, so nobody else is writing.
    ///
    /// Removes what dead writers left unfinished; takes whole files the index does not know back in;
    /// forgets boundaries whose files are gone. Reads headers of unknown files only.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        for (part, suffix) in [("", "index.tmp"), ("nodes", ".tmp"), ("sessions", ".tmp")] {
            let folder = if part.is_empty() { self.folder.clone() } else { self.folder.join(part) };
            for name in self.disk.names(&folder).at(&folder)?.iter().filter(|n| n.ends_with(suffix)) {
                let path = folder.join(name);
                // What is being written right now is locked, and may be published or given up meanwhile.
                let removed = match self.disk.try_lock(&path) {
                    Ok(Some(_lock)) => self.disk.remove(&path),
                    locked => locked.map(drop),
                };
                match removed {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    done => done.at(&path)?,
                }
            }
        }
        let folder = self.folder.join("nodes");
        let (mut rows, mut edges) = (BTreeSet::new(), BTreeSet::new());
        let names = self.disk.names(&folder).at(&folder)?;
        for name in names.into_iter().filter(|name| !name.ends_with(".tmp")) {
            match name.split_once('.').map(|(key, suffix)| (Key::parse(key), suffix)) {
                Some((Some(key), "rows")) => drop(rows.insert(key)),
                Some((Some(key), "edge")) => drop(edges.insert(key)),
                _ => self.quarantine(&folder.join(&name), "is none of the store's files")?,
            }
        }
        let known: Vec<Node> = self.file().index.nodes().cloned().collect();
        for node in known {
            if !rows.contains(&node.key) {
                self.file().log(Record::Drop(node.key, Gone::Missing));
            } else if node.edge > 0 && !edges.contains(&node.key) {
                self.file().log(Record::Unedge(node.key, Gone::Missing));
            }
        }
        let mut others = BTreeSet::new();
        for key in &rows {
            let known = self.file().index.node(key).map(|n| n.edge > 0);
            if known != Some(true) && !self.adopt(key, known.is_some(), edges.contains(key))? {
                others.insert(*key);
            }
        }
        for key in edges.difference(&rows) {
            let path = self.node_file(key, Kind::Edge);
            self.disk.remove(&path).at(&path)?;
        }
        self.drop_dead_ends(&others)
    }

    /// Takes the files of one boundary into the index, by their headers; false if they are of another
    /// version, whose business they remain.
    fn adopt(&self, key: &Key, known: bool, edge: bool) -> Result<bool, StoreError> {
        if known && !edge {
            return Ok(true);
        }
        let rows = match self.header(key, Kind::Rows) {
            Err(StoreError::Version { .. }) => return Ok(false),
            rows => rows?,
        };
        let Some(rows) = rows else { return Ok(true) };
        let (edge, ours) = match if edge { self.header(key, Kind::Edge) } else { Ok(None) } {
            Err(StoreError::Version { .. }) => (None, false),
            edge => (edge?, true),
        };
        let node = Node::new(&rows, edge.map_or(0, |h| h.file_bytes()), rows.created);
        self.file().log(Record::Put(node));
        Ok(ours)
    }

    /// The header of a file that fits its name and length; quarantines any other of this version.
    fn header(&self, key: &Key, kind: Kind) -> Result<Option<Header>, StoreError> {
        let path = self.node_file(key, kind);
        match Reader::open(self.disk(), &path) {
            Ok(reader) if (reader.header.key, reader.header.kind) == (*key, kind) => Ok(Some(reader.header)),
            Ok(_) => self.quarantine(&path, "is not the file that its name says").map(|()| None),
            Err(StoreError::Damaged { why, .. }) => self.quarantine(&path, &why).map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// Removes leaves that are not kept: nothing can be restored with them. Not those of `others`.
    pub(crate) fn drop_dead_ends(&self, others: &BTreeSet<Key>) -> Result<(), StoreError> {
        loop {
            let dead: Vec<Key> = {
                let index = &self.file().index;
                let dead = index.nodes().filter(|n| n.edge == 0 && !index.has_children(&n.key));
                dead.map(|n| n.key).filter(|key| !others.contains(key)).collect()
            };
            if dead.is_empty() {
                return Ok(());
            }
            let files: Vec<_> = dead.iter().flat_map(|key| self.forget(key, Gone::Evicted)).collect();
            self.unlink(&files)?;
        }
    }

    /// Acts on what reading a file of `node` found. The caller holds the lock.
    pub(crate) fn note(
        &self,
        node: &Node,
        kind: Kind,
        found: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let why = match found {
            Ok(()) => return Ok(()),
            Err(StoreError::Damaged { file, why }) => {
                self.quarantine(&file, &why)?;
                Gone::Quarantined
            }
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Gone::Missing
            }
            Err(StoreError::Version { .. }) => Gone::Missing,
            Err(error) => return Err(error),
        };
        self.file().log(match kind {
            Kind::Rows => Record::Drop(node.key, why),
            Kind::Edge => Record::Unedge(node.key, why),
        });
        Ok(())
    }

    /// Moves a file to the folder `quarantine`, with a warning that names it.
    pub(crate) fn quarantine(&self, path: &Path, why: &str) -> Result<(), StoreError> {
        let name = path.file_name().expect("a file has a name").to_string_lossy();
        let aside = self.folder.join("quarantine").join(format!("{}-{name}", self.disk.now()));
        self.disk.rename(path, &aside).at(path)?;
        self.warn(format!("{}: {why}; put aside as {}", path.display(), aside.display()));
        [&aside, path].iter().try_for_each(|p| {
            let folder = p.parent().expect("a file lies in a folder");
            self.disk.sync_dir(folder).at(folder)
        })
    }

    /// Removes what was put aside before, sweeps, evicts down to `budget` bytes and compacts the
    /// index; returns the bytes of snapshots freed.
    pub fn gc(&self, budget: u64) -> Result<u64, StoreError> {
        let before = self.bytes();
        let aside = self.folder.join("quarantine");
        for name in self.disk.names(&aside).at(&aside)? {
            let path = aside.join(name);
            self.disk.remove(&path).at(&path)?;
        }
        self.locked(|store| {
            store.sweep()?;
            let excess = store.options.budget.saturating_sub(budget);
            store.make_room(excess, &Default::default())?;
            store.write_index(true)
        })?;
        Ok(before.saturating_sub(self.bytes()))
    }
}

//! Saving: rows are copied out at the boundary, then written and made known in the background.
use super::disk::Disk;
use super::error::{At, StoreError};
use super::index::{Gone, Node, Record};
use super::key::{Chain, Key};
use super::sealed::{self, Header, Kind};
use super::{Layout, StateRows, Store};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The keys of boundaries on their way to the disk: later ones may extend them.
pub(crate) type Pending = Arc<Mutex<HashSet<Key>>>;

/// A position of a session whose states are worth keeping.
#[derive(Clone, Copy, Debug)]
pub struct Boundary<'a> {
    /// All tokens of the session up to here.
    pub tokens: &'a [u32],
    /// Logits of the next token.
    pub logits: &'a [f32],
    /// Seconds that computing one of the newest tokens took: what eviction weighs bytes against.
    pub seconds_per_token: f32,
}

/// The header and body of a sealed file.
type Part = Box<(Header, Vec<u8>)>;

/// A boundary copied out of its session, ready to be written.
pub struct Capture {
    rows: Option<Part>,
    edge: Part,
    /// Keys of the prefixes of the session it was taken from.
    keep: HashSet<Key>,
    pending: Pending,
}

/// What a save did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved {
    /// Position of the boundary.
    pub position: u64,
    /// Bytes written; 0 if another session or process had saved it meanwhile.
    pub bytes: u64,
}

impl Capture {
    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.rows.as_ref().map_or(0, |part| part.0.file_bytes()) + self.edge.0.file_bytes()
    }

    /// Position of the boundary.
    pub fn position(&self) -> u64 {
        self.edge.0.end
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.pending.lock().expect("no panic while locked").remove(&self.edge.0.key);
    }
}

impl Store {
    /// Copies out what the store lacks to keep this boundary; `None` if it lacks nothing.
    ///
    /// Reads the entries closed since the longest stored or captured prefix, and the edge. Takes no
    /// lock that a writer holds for long.
    pub fn capture(
        &self,
        layout: &Layout,
        boundary: Boundary,
        state: &dyn StateRows,
    ) -> Result<Option<Capture>, StoreError> {
        assert!(!boundary.tokens.is_empty(), "the empty prefix needs no state");
        assert_eq!(boundary.logits.len(), layout.logits() as usize);
        let chain = Chain::new(layout.root(), boundary.tokens);
        let (end, key) = (chain.len(), chain.key(chain.len()));
        let mut file = self.file();
        file.refresh(self.disk())?;
        let mut pending = self.pending.lock().expect("no panic while locked");
        // A boundary above a lost one cannot be reached: it is saved anew, with other rows.
        let known = file.index.reach(&key, &chain.block(end), end);
        if pending.contains(&key) || known.as_ref().is_some_and(|n| n.edge > 0) {
            file.log(Record::Used(key, self.disk.now()));
            return Ok(None);
        }
        let keep: Vec<(u64, Key)> = file.index.prefixes(&chain).collect();
        let stored = |(p, k): &&(u64, Key)| {
            *p < end && (pending.contains(k) || file.index.reach(k, &chain.block(*p), *p).is_some())
        };
        let parent = keep.iter().find(stored).copied().unwrap_or((0, layout.root()));
        let (start, parent) = known.as_ref().map_or(parent, |n| (n.start, n.parent));
        file.index.expect(chain.block(end), end);
        pending.insert(key);
        drop((file, pending));

        let header = |kind, body: &Vec<u8>| Header {
            kind,
            root: layout.root(),
            key,
            parent,
            block: chain.block(end),
            start,
            end,
            body: body.len() as u64,
            created: self.disk.now(),
            seconds: boundary.seconds_per_token * (end - start) as f32,
            logits: layout.logits(),
        };
        let rows = known.is_none().then(|| {
            let mut body = Vec::with_capacity(layout.rows_bytes(&(start..end)) as usize);
            super::bytes::put_tokens(&mut body, &boundary.tokens[start as usize..]);
            layout.entries(&(start..end)).iter().for_each(|s| s.read(state, &mut body));
            Box::new((header(Kind::Rows, &body), body))
        });
        let mut body = Vec::with_capacity(layout.edge_bytes(end) as usize);
        body.extend(boundary.logits.iter().flat_map(|l| l.to_le_bytes()));
        layout.edge(end).iter().for_each(|s| s.read(state, &mut body));
        let edge = Box::new((header(Kind::Edge, &body), body));
        let keep = keep.into_iter().map(|(_, key)| key).collect();
        Ok(Some(Capture { rows, edge, keep, pending: Arc::clone(&self.pending) }))
    }

    /// Writes a captured boundary; when this returns it survives a loss of power.
    ///
    /// Evicts what is worth less per byte if the budget asks for it, but nothing that the session it
    /// was taken from or any open session stands on. After an error the store is as it was, except
    /// for what was evicted.
    pub fn commit(&self, capture: &Capture) -> Result<Saved, StoreError> {
        self.commit_with(capture, &|| ())
    }

    /// As [`Store::commit`], with a pause after each megabyte.
    pub(crate) fn commit_with(&self, capture: &Capture, pause: &dyn Fn()) -> Result<Saved, StoreError> {
        let edge = &capture.edge.0;
        self.locked(|store| {
            let known = store.stored(edge)?;
            if known.as_ref().is_some_and(|n| n.edge > 0) {
                return Ok(Saved { position: edge.end, bytes: 0 });
            }
            let rows = capture.rows.as_ref().filter(|_| known.is_none());
            let used = store.disk.now();
            // If the rows are there, they may have been saved in other pieces than the captured ones.
            let node = match (known, rows) {
                (Some(known), _) => Some(Node { edge: edge.file_bytes(), used, ..known }),
                (None, rows) => rows.map(|part| Node::new(&part.0, edge.file_bytes(), used)),
            };
            let joins = |n: &Node| n.start == 0 || store.file().index.path(&n.parent).is_some();
            let Some(node) = node.filter(joins) else {
                return Err(StoreError::ParentGone { position: edge.end, parent: edge.start });
            };
            let bytes = edge.file_bytes() + rows.map_or(0, |part| part.0.file_bytes());
            store.make_room(bytes, &capture.keep)?;
            store.write_files(rows.into_iter().chain([&capture.edge]), pause)?;
            store.file().log(Record::Put(node));
            Ok(Saved { position: edge.end, bytes })
        })
    }

    /// The boundary that a file with this header belongs to, if it can be reached. One above a lost
    /// boundary is forgotten, for its files are about to be replaced by others and the index may not
    /// promise the old ones.
    pub(crate) fn stored(&self, header: &Header) -> Result<Option<Node>, StoreError> {
        let mut file = self.file();
        let found = file.index.reach(&header.key, &header.block, header.end);
        if found.is_none() && file.index.node(&header.key).is_some() {
            file.log(Record::Drop(header.key, Gone::Missing));
            drop(file);
            self.flush()?;
        }
        Ok(found)
    }

    /// Writes sealed files beside, then gives them their names, durably.
    fn write_files<'a>(
        &self,
        files: impl Iterator<Item = &'a Part>,
        pause: &dyn Fn(),
    ) -> Result<(), StoreError> {
        let mut beside: Vec<(PathBuf, PathBuf)> = Vec::new();
        let mut written = Vec::new();
        let done = files.into_iter().try_for_each(|part| {
            let (header, body) = &**part;
            let path = self.node_file(&header.key, header.kind);
            let temp = path.with_added_extension("tmp");
            beside.push((temp.clone(), path));
            written.push((sealed::write(self.disk(), &temp, header, body, pause)?, temp));
            Ok(())
        });
        // The disk has all there is to do before it is waited for.
        let done = done.and_then(|()| written.iter().try_for_each(|(file, temp)| file.sync().at(temp)));
        let done = done.and_then(|()| publish(self.disk(), &beside, &self.folder.join("nodes")));
        if done.is_err() {
            // A full disk needs the room back now; what cannot be removed is swept later.
            beside.iter().for_each(|(temp, _)| drop(self.disk.remove(temp)));
        }
        done
    }
}

/// Gives synced files their names.
pub(crate) fn publish(
    disk: &dyn Disk,
    files: &[(PathBuf, PathBuf)],
    folder: &Path,
) -> Result<(), StoreError> {
    files.iter().try_for_each(|(temp, path)| disk.rename(temp, path).at(path))?;
    disk.sync_dir(folder).at(folder)
}

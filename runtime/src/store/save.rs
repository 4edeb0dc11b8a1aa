//! Saving: rows are copied out at the boundary, then written and made known in the background.
use super::beside::Beside;
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

/// How a capture will be saved.
struct Plan {
    /// The boundary as the index will know it.
    node: Node,
    /// Its rows are not there yet.
    rows: bool,
    /// Bytes of the files to be written.
    bytes: u64,
}

impl Plan {
    /// The files to be written, in the order of their publishing.
    fn parts<'a>(&self, capture: &'a Capture) -> impl Iterator<Item = &'a Part> + use<'a> {
        capture.rows.as_ref().filter(|_| self.rows).into_iter().chain([&capture.edge])
    }
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
    ///
    /// The folder is locked twice, before the files are written and to publish them; not meanwhile.
    pub(crate) fn commit_with(&self, capture: &Capture, pause: &dyn Fn()) -> Result<Saved, StoreError> {
        let position = capture.position();
        let beside = |part| Ok((part, Beside::new(self, self.part_file(part))?));
        let begun = self.locked(|store| match store.plan(capture)? {
            Some(plan) => plan.parts(capture).map(beside).collect::<Result<Vec<_>, _>>().map(Some),
            None => Ok(None),
        })?;
        let Some(mut files) = begun else { return Ok(Saved { position, bytes: 0 }) };
        let mut written = Vec::new();
        for (part, file) in &files {
            let open = sealed::write(self.disk(), file.temp(), &part.0, &part.1, pause)?;
            written.push((open, file.temp()));
        }
        // The disk has all there is to do before it is waited for.
        written.iter().try_for_each(|(file, temp)| file.sync().at(temp))?;
        self.locked(|store| store.make_known(capture, &mut files))
    }

    /// Publishes the files that are still lacking: others may have saved or evicted meanwhile.
    fn make_known(&self, capture: &Capture, files: &mut [(&Part, Beside)]) -> Result<Saved, StoreError> {
        let position = capture.position();
        let Some(plan) = self.plan(capture)? else { return Ok(Saved { position, bytes: 0 }) };
        let lacking: Vec<PathBuf> = plan.parts(capture).map(|part| self.part_file(part)).collect();
        if !Beside::publish(files.iter_mut().map(|(_, file)| file), &lacking)? {
            // Its rows were there before and have been evicted since.
            return Err(StoreError::ParentGone { position, parent: position });
        }
        self.file().log(Record::Put(plan.node));
        Ok(Saved { position, bytes: plan.bytes })
    }

    /// What saving a capture takes; `None` if it was saved meanwhile. Makes room for it. The caller
    /// holds the folder's lock.
    fn plan(&self, capture: &Capture) -> Result<Option<Plan>, StoreError> {
        let edge = &capture.edge.0;
        let known = self.stored(edge)?;
        if known.as_ref().is_some_and(|n| n.edge > 0) {
            return Ok(None);
        }
        let rows = capture.rows.as_ref().filter(|_| known.is_none());
        let used = self.disk.now();
        // If the rows are there, they may have been saved in other pieces than the captured ones.
        let node = match (known, rows) {
            (Some(known), _) => Some(Node { edge: edge.file_bytes(), used, ..known }),
            (None, rows) => rows.map(|part| Node::new(&part.0, edge.file_bytes(), used)),
        };
        let joins = |n: &Node| n.start == 0 || self.file().index.path(&n.parent).is_some();
        let Some(node) = node.filter(joins) else {
            return Err(StoreError::ParentGone { position: edge.end, parent: edge.start });
        };
        let bytes = edge.file_bytes() + rows.map_or(0, |part| part.0.file_bytes());
        self.make_room(bytes, &capture.keep)?;
        Ok(Some(Plan { node, rows: rows.is_some(), bytes }))
    }

    fn part_file(&self, part: &Part) -> PathBuf {
        self.node_file(&part.0.key, part.0.kind)
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

//! Keeping the budget: what saves the fewest seconds per byte goes first.
//!
//! A boundary saves the seconds from the nearest kept boundary below it; its bytes are what its
//! removal frees: rows and edge of a leaf, the edge alone where others extend it. Both shrink
//! with disuse, so that old conversations make way for new ones of the same shape.
use super::error::{At, StoreError};
use super::index::{Gone, Index, Node, Record};
use super::key::{Chain, Key};
use super::sealed::Kind;
use super::{SessionFile, Store};
use std::collections::HashSet;
use std::path::PathBuf;

/// Milliseconds of disuse that halve the worth of a boundary: a day.
const HALF_LIFE: f64 = 24.0 * 3600.0 * 1000.0;

/// What one removal frees and loses.
struct Candidate {
    key: Key,
    /// Seconds saved per byte, weighted by disuse.
    worth: f64,
}

impl Store {
    /// Evicts until `need` more bytes fit the budget. Nothing in `keep` and no prefix of an open
    /// session, of this process or another, is touched. The caller holds the lock.
    pub(crate) fn make_room(&self, need: u64, keep: &HashSet<Key>) -> Result<(), StoreError> {
        let budget = self.options.budget;
        let fits = |index: &Index| index.bytes().saturating_add(need) <= budget;
        if fits(&self.file().index) {
            return Ok(());
        }
        let mut keep = keep.clone();
        self.keep_open_sessions(&mut keep)?;
        loop {
            let ranked = rank(&self.file().index, &keep, self.disk.now());
            if ranked.is_empty() {
                let kept = self.file().index.bytes();
                return Err(StoreError::Budget { needed: need, budget, kept });
            }
            // One removal may change the worth of its neighbours, so a round takes at most an eighth
            // of the candidates before they are ranked anew.
            let round = ranked.len().div_ceil(8);
            let mut going = Vec::new();
            for candidate in ranked.iter().take(round) {
                if fits(&self.file().index) {
                    break;
                }
                going.extend(self.forget(&candidate.key, Gone::Evicted));
            }
            self.unlink(&going)?;
            if fits(&self.file().index) {
                return Ok(());
            }
        }
    }

    /// Takes a leaf, or the edge of a boundary that others extend, out of the index; returns the
    /// files that are to be unlinked.
    pub(crate) fn forget(&self, key: &Key, why: Gone) -> Vec<PathBuf> {
        let mut file = self.file();
        let leaf = !file.index.has_children(key);
        file.log(if leaf { Record::Drop(*key, why) } else { Record::Unedge(*key, why) });
        let kinds: &[Kind] = if leaf { &[Kind::Edge, Kind::Rows] } else { &[Kind::Edge] };
        kinds.iter().map(|kind| self.node_file(key, *kind)).collect()
    }

    /// Unlinks files that the index has forgotten.
    pub(crate) fn unlink(&self, files: &[PathBuf]) -> Result<(), StoreError> {
        // The index is told first, so that a crash in between leaves no entry without its files.
        // A full disk may refuse that; then making room matters more, and it is told afterwards.
        drop(self.flush());
        for path in files {
            match self.disk.remove(path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                done => done.at(path)?,
            }
        }
        Ok(())
    }

    /// Adds the stored prefixes of all sessions whose journal somebody has open.
    fn keep_open_sessions(&self, keep: &mut HashSet<Key>) -> Result<(), StoreError> {
        for name in self.session_names()? {
            let path = self.session_path(&name);
            if !matches!(self.disk.try_lock(&path), Ok(None)) {
                continue; // Nobody has it open, or it was removed meanwhile.
            }
            keep.extend(self.prefixes_of(&name));
        }
        Ok(())
    }

    /// The keys of what may be stored of a session, the longest first; none if it cannot be read.
    pub(crate) fn prefixes_of(&self, name: &str) -> Vec<Key> {
        let Ok(SessionFile { root, tokens, .. }) = self.session(name) else { return Vec::new() };
        let file = self.file();
        file.index.prefixes(&Chain::new(root, &tokens)).map(|(_, key)| key).collect()
    }
}

/// What may go, the least worth first.
fn rank(index: &Index, keep: &HashSet<Key>, now: u64) -> Vec<Candidate> {
    let reachable = index.reachable();
    let mut ranked: Vec<Candidate> = index
        .nodes()
        .filter(|n| !keep.contains(&n.key) && (n.edge > 0 || !index.has_children(&n.key)))
        .map(|n| {
            let saves = if reachable.contains(&n.key) { seconds(index, n) } else { 0.0 };
            Candidate { key: n.key, worth: worth(index, n, saves, now) }
        })
        .collect();
    ranked.sort_by(|a, b| a.worth.total_cmp(&b.worth).then(a.key.cmp(&b.key)));
    ranked
}

fn worth(index: &Index, node: &Node, saves: f64, now: u64) -> f64 {
    let frees = if index.has_children(&node.key) { node.edge } else { node.rows + node.edge };
    let idle = now.saturating_sub(node.used) as f64;
    saves * (-idle / HALF_LIFE).exp2() / frees.max(1) as f64
}

/// Seconds that this boundary saves: from the nearest kept one below it, or from zero.
fn seconds(index: &Index, node: &Node) -> f64 {
    let mut saved = 0.0;
    if node.edge == 0 {
        return saved; // It cannot be restored.
    }
    let mut at = Some(node);
    while let Some(n) = at {
        saved += f64::from(n.seconds.max(0.0));
        at = index.node(&n.parent).filter(|p| p.edge == 0);
    }
    saved
}

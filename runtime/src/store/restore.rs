//! Restoring: the longest kept boundary that is a prefix of the request, or why there is none.
use super::bytes::tokens;
use super::error::{StoreError, damaged};
use super::index::{Gone, Node, Record};
use super::key::{Chain, Key};
use super::layout::Section;
use super::read::{Files, Reader};
use super::sealed::{Header, Kind};
use super::{Layout, StateRows, Store};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Stored continuations that are compared with the request to explain a miss.
const COMPARED: usize = 4;

/// What a restore found.
#[derive(Clone, PartialEq, Debug)]
pub struct Restored {
    /// Tokens whose states were restored; computing goes on from here.
    pub tokens: u64,
    /// Tokens of the request.
    pub of: u64,
    /// Why not all.
    pub reason: Reason,
    /// Logits of the token behind the restored ones; empty if there are none.
    pub logits: Vec<f32>,
}

/// Why a request was not restored whole.
#[derive(Clone, PartialEq, Debug)]
pub enum Reason {
    /// It was.
    Whole,
    /// There is nothing in the store.
    Empty,
    /// Nothing is stored for this model, numeric class and schema.
    OtherIdentity,
    /// The stored continuation has another token at `at`.
    Differs {
        /// Position of the first other token.
        at: u64,
    },
    /// The stored continuation goes on to `next`, and no boundary before it was kept.
    Between {
        /// Position of the next kept boundary.
        next: u64,
    },
    /// Nothing longer was stored.
    Ends,
    /// The device that holds the session's states failed.
    Device(String),
    /// The boundary at `at` was there once.
    Gone {
        /// Its position.
        at: u64,
        /// What happened to it.
        why: Gone,
    },
    /// A file could not be used; a warning names it.
    Damaged,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Whole => f.write_str("all of them"),
            Reason::Empty => f.write_str("nothing is stored"),
            Reason::OtherIdentity => {
                f.write_str("what is stored is for another model, numeric class or state schema")
            }
            Reason::Differs { at } => write!(f, "the stored tokens differ from token {at} on"),
            Reason::Between { next } => write!(f, "no boundary was kept from here to token {next}"),
            Reason::Ends => f.write_str("nothing longer is stored"),
            Reason::Gone { at, why } => {
                let why = match why {
                    Gone::Evicted => "evicted to keep the budget",
                    Gone::Quarantined => "damaged and put aside",
                    Gone::Missing => "removed",
                };
                write!(f, "the state at token {at} was {why}")
            }
            Reason::Device(why) => f.write_str(why),
            Reason::Damaged => f.write_str("a stored file could not be used"),
        }
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "restored {} of {} tokens", self.tokens, self.of)?;
        if self.reason == Reason::Whole { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// Takes rows and forgets them.
struct Nowhere;

impl StateRows for Nowhere {
    fn read(&self, _: usize, _: Range<u64>, _: &mut Vec<u8>) {
        unreachable!("only written to");
    }
    fn write(&mut self, _: usize, _: Range<u64>, _: &[u8]) {}
}

impl Store {
    /// Restores the longest kept prefix of `tokens` into `state`.
    ///
    /// The rows valid at the returned position are those that were captured there, except that
    /// lane B of the closed block of an overlapping tail is zero, which nothing reads. Other rows of
    /// `state` may have been written. A file that cannot be used is a warning and a shorter prefix.
    pub fn restore(&self, layout: &Layout, tokens: &[u32], state: &mut dyn StateRows) -> Restored {
        let chain = Chain::new(layout.root(), tokens);
        self.follow();
        let mut unusable = HashSet::new();
        while let Some(path) = self.longest(&chain, &unusable) {
            match self.read_path(layout, &chain, &path, state) {
                Ok(logits) => {
                    let last = path.last().expect("a path has a boundary");
                    self.file().log(Record::Used(last.key, self.disk.now()));
                    let reason = self.reason(&chain, last.end, last.key, !unusable.is_empty());
                    return Restored { tokens: last.end, of: chain.len(), reason, logits };
                }
                Err((at, kind, _)) if self.evicted(&path[at], kind) => {}
                Err((at, kind, error)) => {
                    self.warn(error.to_string());
                    self.put_aside(layout, &chain, &path[at], kind);
                    unusable.insert(path[at].key);
                }
            }
        }
        let reason = self.reason(&chain, 0, layout.root(), !unusable.is_empty());
        Restored { tokens: 0, of: chain.len(), reason, logits: Vec::new() }
    }

    /// The length of the longest kept prefix of `tokens`, by the index alone.
    pub fn find(&self, layout: &Layout, tokens: &[u32]) -> u64 {
        self.follow();
        let path = self.longest(&Chain::new(layout.root(), tokens), &HashSet::new());
        path.and_then(|p| p.last().map(|n| n.end)).unwrap_or(0)
    }

    /// Reads what other processes have saved since. If that fails, what is known already still serves.
    fn follow(&self) {
        if let Err(error) = self.refresh() {
            self.warn(error.to_string());
        }
    }

    /// The boundaries up to the longest kept prefix that needs no file of `unusable`.
    fn longest(&self, chain: &Chain, unusable: &HashSet<Key>) -> Option<Vec<Node>> {
        let file = self.file();
        let kept = |(p, key): (u64, Key)| {
            let node = file.index.node(&key).filter(|n| n.edge > 0 && n.end == p)?;
            let path = file.index.path(&node.key)?;
            path.iter().all(|n| !unusable.contains(&n.key)).then_some(path)
        };
        file.index.prefixes(chain).find_map(kept)
    }

    /// Whether the index has forgotten this file since it was looked up.
    fn evicted(&self, node: &Node, kind: Kind) -> bool {
        let mut file = self.file();
        // An index that cannot be read tells nothing new.
        drop(file.refresh(self.disk()));
        file.index.node(&node.key).is_none_or(|n| kind == Kind::Edge && n.edge == 0)
    }

    fn read_path(
        &self,
        layout: &Layout,
        chain: &Chain,
        path: &[Node],
        state: &mut dyn StateRows,
    ) -> Result<Vec<f32>, (usize, Kind, StoreError)> {
        let last = path.len() - 1;
        let parts = path.iter().map(|node| (node, Kind::Rows)).chain([(&path[last], Kind::Edge)]);
        let paths: Vec<PathBuf> = parts.map(|(node, kind)| self.node_file(&node.key, kind)).collect();
        let bytes = path.iter().map(|n| n.rows).sum::<u64>() + path[last].edge;
        std::thread::scope(|scope| {
            let mut files = Files::new(self.disk(), &paths, bytes, scope);
            for (i, node) in path.iter().enumerate() {
                let read = files.next().and_then(|file| self.read_rows(layout, chain, node, file, state));
                read.map_err(|e| (i, Kind::Rows, e))?;
            }
            let read = files.next().and_then(|file| self.read_edge(layout, &path[last], file, state));
            read.map_err(|e| (last, Kind::Edge, e))
        })
    }

    fn read_rows(
        &self,
        layout: &Layout,
        chain: &Chain,
        node: &Node,
        mut reader: Reader,
        state: &mut dyn StateRows,
    ) -> Result<(), StoreError> {
        let path = self.node_file(&node.key, Kind::Rows);
        let span = node.start..node.end;
        expect(node, Kind::Rows, layout.rows_bytes(&span), &reader.header).map_err(|w| damaged(&path, w))?;
        let own = &chain.tokens()[span.start as usize..span.end as usize];
        if reader.tokens(u64::MAX)? != own {
            return Err(damaged(&path, "holds other tokens than its key says"));
        }
        read_sections(&mut reader, &layout.entries(&span), state)
    }

    fn read_edge(
        &self,
        layout: &Layout,
        node: &Node,
        mut reader: Reader,
        state: &mut dyn StateRows,
    ) -> Result<Vec<f32>, StoreError> {
        let path = self.node_file(&node.key, Kind::Edge);
        expect(node, Kind::Edge, layout.edge_bytes(node.end), &reader.header)
            .map_err(|w| damaged(&path, w))?;
        let mut bytes = Vec::new();
        reader.take(4 * layout.logits() as usize, &mut bytes)?;
        let logits = tokens(&bytes).map(f32::from_bits).collect();
        read_sections(&mut reader, &layout.edge(node.end), state)?;
        Ok(logits)
    }

    /// Quarantines a file that could not be used, unless it has been replaced by a good one
    /// meanwhile, and takes note of one that is gone. What fails here is a warning.
    fn put_aside(&self, layout: &Layout, chain: &Chain, node: &Node, kind: Kind) {
        let done = self.locked(|store| {
            let reader = Reader::open(store.disk(), &store.node_file(&node.key, kind));
            let found = reader.and_then(|reader| match kind {
                Kind::Rows => store.read_rows(layout, chain, node, reader, &mut Nowhere),
                Kind::Edge => store.read_edge(layout, node, reader, &mut Nowhere).map(drop),
            });
            store.note(node, kind, found)
        });
        if let Err(error) = done {
            self.warn(error.to_string());
        }
    }

    fn reason(&self, chain: &Chain, position: u64, key: Key, unusable: bool) -> Reason {
        if position == chain.len() {
            return Reason::Whole;
        }
        if unusable {
            return Reason::Damaged;
        }
        let next: Vec<Node> = {
            let index = &self.file().index;
            let longer = index.prefixes(chain).take_while(|(p, _)| *p > position);
            let gone = longer.filter_map(|(at, k)| Some(Reason::Gone { at, why: index.gone(&k)? })).last();
            if let Some(gone) = gone {
                return gone;
            }
            if position == 0 && !index.knows(&chain.block(0)) {
                return if index.len() == 0 { Reason::Empty } else { Reason::OtherIdentity };
            }
            index.children(&key).filter(|n| n.start == position).take(COMPARED).cloned().collect()
        };
        let shared = |n: &Node| Some((self.shared(chain, n)?, n.end));
        match next.iter().filter_map(shared).max() {
            Some((at, end)) if at < chain.len().min(end) => Reason::Differs { at },
            Some((_, next)) => Reason::Between { next },
            None => Reason::Ends,
        }
    }

    /// How many tokens the request shares with a stored continuation.
    fn shared(&self, chain: &Chain, node: &Node) -> Option<u64> {
        let mut reader = Reader::open(self.disk(), &self.node_file(&node.key, Kind::Rows)).ok()?;
        let own = chain.tokens().get(node.start as usize..)?;
        let stored = reader.tokens(own.len() as u64).ok()?;
        let same = stored.iter().zip(own).take_while(|(a, b)| a == b).count();
        Some(node.start + same as u64)
    }
}

/// Whether a file is the one that the index means and this layout reads.
fn expect(node: &Node, kind: Kind, body: u64, header: &Header) -> Result<(), String> {
    match (node.fits(kind, header), header.body == body) {
        (false, _) => Err("is not the file that its name and the index say".into()),
        (_, false) => Err(format!("expected a body of {body} bytes, got {}", header.body)),
        _ => Ok(()),
    }
}

fn read_sections(
    reader: &mut Reader,
    sections: &[Section],
    state: &mut dyn StateRows,
) -> Result<(), StoreError> {
    for section in sections.iter().filter(|s| s.bytes() > 0) {
        let (row, mut at) = (section.stored_row(), section.rows.start);
        while at < section.rows.end {
            let bytes = reader.rows(row, section.rows.end - at)?;
            let rows = at..at + (bytes.len() / row) as u64;
            at = rows.end;
            section.write(rows, bytes, state);
        }
    }
    Ok(())
}

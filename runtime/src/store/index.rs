//! Which boundaries are stored: in memory a trie whose nodes are found by their keys, on the disk
//! the log of its changes. Everything in it can be rebuilt from the headers of the sealed files.
use super::bytes::{Put, Take};
use super::key::{BLOCK, Chain, Key};
use super::sealed::{Header, Kind};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// One boundary of the trie: a file of rows and, while the boundary is kept, a file of its edge.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Key of the tokens `0..end`; names the files.
    pub key: Key,
    /// Key of the boundary this one extends; the root for the first.
    pub parent: Key,
    /// Chain value of the full blocks of `0..end`.
    pub block: Key,
    /// Key of identity and schema.
    pub root: Key,
    /// Position of the parent.
    pub start: u64,
    /// Position of this boundary.
    pub end: u64,
    /// Bytes of the file of rows.
    pub rows: u64,
    /// Bytes of the file of the edge; 0 when the boundary is no longer kept.
    pub edge: u64,
    /// When it was last saved or restored, in milliseconds since 1970.
    pub used: u64,
    /// Seconds it takes to compute the states of `start..end`.
    pub seconds: f32,
}

impl Node {
    /// The boundary whose rows have this header.
    pub(crate) fn new(rows: &Header, edge: u64, used: u64) -> Node {
        let Header { root, key, parent, block, start, end, seconds, .. } = *rows;
        Node { key, parent, block, root, start, end, rows: rows.file_bytes(), edge, used, seconds }
    }

    fn extends(&self, parent: &Node) -> bool {
        (self.start, self.root, self.parent) == (parent.end, parent.root, parent.key)
    }

    /// Whether a file's header is that of this boundary. An edge does not depend on where the
    /// boundary's rows begin: the same tokens may have been saved in other pieces before.
    pub(crate) fn fits(&self, kind: Kind, header: &Header) -> bool {
        (kind, self.root, self.key, self.end) == (header.kind, header.root, header.key, header.end)
            && (kind == Kind::Edge || (self.parent, self.start) == (header.parent, header.start))
    }
}

/// Why a boundary is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// To keep the budget.
    Evicted,
    /// Its file was damaged and put aside.
    Quarantined,
    /// Its file was removed by somebody else.
    Missing,
}

/// One change of the index.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Record {
    Put(Node),
    /// The boundary is no longer kept; its rows remain for those that extend it.
    Unedge(Key, Gone),
    Drop(Key, Gone),
    Used(Key, u64),
}

const GONE: [Gone; 3] = [Gone::Evicted, Gone::Quarantined, Gone::Missing];

impl Record {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let gone = |why| GONE.iter().position(|g| *g == why).expect("listed") as u8;
        match self {
            Record::Put(n) => {
                out.push(1);
                for key in [n.key, n.parent, n.block, n.root] {
                    out.extend(key.0);
                }
                for v in [n.start, n.end, n.rows, n.edge, n.used] {
                    out.u64(v);
                }
                out.extend(n.seconds.to_le_bytes());
            }
            Record::Unedge(key, why) => {
                out.extend([2, gone(*why)]);
                out.extend(key.0);
            }
            Record::Drop(key, why) => {
                out.extend([3, gone(*why)]);
                out.extend(key.0);
            }
            Record::Used(key, at) => {
                out.push(4);
                out.extend(key.0);
                out.u64(*at);
            }
        }
    }

    /// Reads the records of one frame; `None` if it is not made of records.
    pub(crate) fn parse_all(payload: &[u8]) -> Option<Vec<Record>> {
        let mut take = Take(payload);
        let mut records = Vec::new();
        while !take.0.is_empty() {
            records.push(Record::parse(&mut take)?);
        }
        Some(records)
    }

    fn parse(take: &mut Take) -> Option<Record> {
        Some(match take.u8()? {
            1 => {
                let [key, parent, block, root] =
                    [take.array()?, take.array()?, take.array()?, take.array()?].map(Key);
                let [start, end, rows, edge, used] =
                    [take.u64()?, take.u64()?, take.u64()?, take.u64()?, take.u64()?];
                let seconds = take.f32()?;
                let sane = start < end && rows.checked_add(edge).is_some_and(|n| n < 1 << 40);
                let node = Node { key, parent, block, root, start, end, rows, edge, used, seconds };
                sane.then_some(Record::Put(node))?
            }
            kind @ (2 | 3) => {
                let why = *GONE.get(usize::from(take.u8()?))?;
                let key = Key(take.array()?);
                if kind == 2 { Record::Unedge(key, why) } else { Record::Drop(key, why) }
            }
            4 => Record::Used(Key(take.array()?), take.u64()?),
            _ => return None,
        })
    }
}

/// The trie in memory.
#[derive(Default)]
pub(crate) struct Index {
    nodes: HashMap<Key, Node>,
    /// Parent, when the child was last used, child: the most recent child of a parent is its first.
    children: BTreeSet<(Key, Reverse<u64>, Key)>,
    /// How many boundaries each identity has.
    roots: HashMap<Key, u32>,
    /// By chain value: bit i is set if a boundary i tokens behind it is, was or will be stored.
    bits: HashMap<Key, u128>,
    gone: HashMap<Key, Gone>,
    bytes: u64,
}

impl Index {
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Put(node) => {
                self.remove(&node.key);
                self.gone.remove(&node.key);
                self.expect(node.block, node.end);
                self.children.insert((node.parent, Reverse(node.used), node.key));
                *self.roots.entry(node.root).or_default() += 1;
                self.bytes = self.bytes.saturating_add(node.rows + node.edge);
                self.nodes.insert(node.key, node.clone());
            }
            Record::Unedge(key, why) => {
                if let Some(node) = self.nodes.get_mut(key) {
                    self.bytes -= std::mem::take(&mut node.edge);
                    self.gone.insert(*key, *why);
                }
            }
            Record::Drop(key, why) => {
                if self.remove(key) {
                    self.gone.insert(*key, *why);
                }
            }
            Record::Used(key, at) => {
                if let Some(node) = self.nodes.get_mut(key).filter(|n| n.used < *at) {
                    self.children.remove(&(node.parent, Reverse(node.used), *key));
                    self.children.insert((node.parent, Reverse(*at), *key));
                    node.used = *at;
                }
            }
        }
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(node) = self.nodes.remove(key) else { return false };
        self.bytes -= node.rows + node.edge;
        assert!(self.children.remove(&(node.parent, Reverse(node.used), *key)), "{key}");
        match self.roots.get_mut(&node.root) {
            Some(1) => drop(self.roots.remove(&node.root)),
            n => *n.expect("counted when it was put") -= 1,
        }
        true
    }

    /// Makes [`Index::prefixes`] look at this position, before the boundary is stored.
    pub(crate) fn expect(&mut self, block: Key, position: u64) {
        *self.bits.entry(block).or_default() |= 1 << (position % BLOCK);
    }

    /// Positions and keys of the prefixes that may be known, the longest first.
    pub(crate) fn prefixes(&self, chain: &Chain) -> impl Iterator<Item = (u64, Key)> {
        let blocks = (0..=chain.len() / BLOCK).rev();
        blocks.flat_map(move |i| {
            let bits = self.bits.get(&chain.block(i * BLOCK)).copied().unwrap_or(0);
            let offsets = (0..BLOCK).rev().filter(move |o| bits >> o & 1 == 1);
            let positions = offsets.map(move |o| i * BLOCK + o).filter(|p| (1..=chain.len()).contains(p));
            positions.map(|p| (p, chain.key(p)))
        })
    }

    pub(crate) fn node(&self, key: &Key) -> Option<&Node> {
        self.nodes.get(key)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(crate) fn gone(&self, key: &Key) -> Option<Gone> {
        self.gone.get(key).copied()
    }

    pub(crate) fn has_children(&self, key: &Key) -> bool {
        self.children(key).next().is_some()
    }

    /// The boundaries that extend `key`, the most recently used first.
    pub(crate) fn children(&self, key: &Key) -> impl Iterator<Item = &Node> {
        let first = (*key, Reverse(u64::MAX), Key([0; 32]));
        let own = self.children.range(first..).take_while(move |(parent, ..)| parent == &first.0);
        own.map(|(.., key)| &self.nodes[key])
    }

    /// Whether anything is stored for an identity.
    pub(crate) fn knows(&self, root: &Key) -> bool {
        self.roots.contains_key(root)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The boundaries from the first to `key`, `None` if one of them is missing.
    pub(crate) fn path(&self, key: &Key) -> Option<Vec<Node>> {
        let mut path: Vec<&Node> = Vec::new();
        let mut next = key;
        loop {
            let node = self.nodes.get(next)?;
            if path.last().is_some_and(|child| !child.extends(node)) {
                return None; // Positions fall strictly, so a hostile cycle ends here too.
            }
            path.push(node);
            if node.start == 0 {
                return (node.parent == node.root).then(|| path.into_iter().rev().cloned().collect());
            }
            next = &node.parent;
        }
    }

    /// The boundary `key` at `position` behind the blocks of chain value `block`, if all it stands on is
    /// there. One that says otherwise of itself could not be found.
    pub(crate) fn reach(&self, key: &Key, block: &Key, position: u64) -> Option<Node> {
        self.path(key)?.pop().filter(|n| (n.end, &n.block) == (position, block))
    }

    /// The keys of all boundaries that have all they stand on.
    pub(crate) fn reachable(&self) -> HashSet<Key> {
        let mut order: Vec<&Node> = self.nodes.values().collect();
        order.sort_by_key(|n| n.end);
        let mut reached = HashSet::new();
        for node in order {
            let below = self.nodes.get(&node.parent).filter(|p| reached.contains(&p.key));
            let first = node.start == 0 && node.parent == node.root;
            if first || node.start > 0 && below.is_some_and(|p| node.extends(p)) {
                reached.insert(node.key);
            }
        }
        reached
    }

    /// The frames' payloads of an index that holds just what is known now.
    pub(crate) fn snapshot(&self) -> Vec<Record> {
        let order: BTreeMap<(u64, Key), &Node> = self.nodes.values().map(|n| ((n.end, n.key), n)).collect();
        order.into_values().map(|n| Record::Put(n.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_nothing_else_does() {
        let key = |b| Key([b; 32]);
        let node = Node {
            key: key(1),
            parent: key(2),
            block: key(3),
            root: key(2),
            start: 0,
            end: 200,
            rows: 10,
            edge: 20,
            used: 5,
            seconds: 1.5,
        };
        let records = [
            Record::Put(node),
            Record::Unedge(key(1), Gone::Evicted),
            Record::Drop(key(1), Gone::Missing),
            Record::Used(key(1), 77),
        ];
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for record in &records {
            record.encode(&mut bytes);
            ends.push(bytes.len());
        }
        assert_eq!(Record::parse_all(&bytes).as_deref(), Some(&records[..]));
        for cut in 0..bytes.len() {
            assert_eq!(Record::parse_all(&bytes[..cut]).is_some(), ends.contains(&cut), "{cut}");
        }
    }
}

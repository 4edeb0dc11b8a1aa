//! The same index in redb, shared by processes: boundaries by their keys, and for each block of tokens the
//! offsets at which boundaries were kept.
use crate::{Failure, Index, LONG, layout};
use ds4_runtime::store::{BLOCK, Chain, Key, Node};
use redb::{Builder, ConcurrencyMode, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;

/// Parent, then what else the record of a boundary says.
type Record = [u8; 148];

pub const NODES: TableDefinition<[u8; 32], Record> = TableDefinition::new("nodes");
const BITS: TableDefinition<[u8; 32], u128> = TableDefinition::new("bits");

pub struct Tree(Database);

/// As [`Tree`]; opening verifies every checksum, as opening the log does.
pub struct Checked(#[expect(dead_code, reason = "only opened")] Database);

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    builder
}

/// Opens a database; `checked` verifies every page of it.
pub fn open(path: &Path, checked: bool) -> Result<Database, Failure> {
    Ok(builder().set_check_integrity_on_open(checked).open(path)?)
}

pub fn record(parent: &Key, rest: &Key) -> Record {
    let mut record = [0; 148];
    record[..32].copy_from_slice(&parent.0);
    record[32..64].copy_from_slice(&rest.0);
    record
}

pub fn lay_down(folder: &Path, nodes: &[Node]) -> Result<(), Failure> {
    let path = folder.join("redb");
    drop(std::fs::remove_file(&path));
    insert(&builder().create(path)?, nodes.iter().map(|n| (n.key, n.parent, n.block, n.end)))
}

fn insert(db: &Database, nodes: impl Iterator<Item = (Key, Key, Key, u64)>) -> Result<(), Failure> {
    let write = db.begin_write()?;
    {
        let (mut records, mut all) = (write.open_table(NODES)?, write.open_table(BITS)?);
        for (key, parent, block, end) in nodes {
            records.insert(key.0, record(&parent, &block))?;
            let bits = all.get(block.0)?.map_or(0, |bits| bits.value());
            all.insert(block.0, bits | 1 << (end % BLOCK))?;
        }
    }
    Ok(write.commit()?)
}

impl Tree {
    fn longest(&self, tokens: &[u32]) -> Result<u64, Failure> {
        let root = layout().root();
        let chain = Chain::new(root, tokens);
        let read = self.0.begin_read()?;
        let (nodes, all) = (read.open_table(NODES)?, read.open_table(BITS)?);
        for block in (0..=chain.len() / BLOCK).rev() {
            let bits = all.get(chain.block(block * BLOCK).0)?.map_or(0, |bits| bits.value());
            let offsets = (0..BLOCK).rev().filter(|o| bits >> o & 1 == 1);
            for position in offsets.map(|o| block * BLOCK + o).filter(|p| *p <= chain.len()) {
                // All that it stands on has to be there.
                let mut key = chain.key(position).0;
                while key != root.0 {
                    let Some(node) = nodes.get(key)? else { break };
                    key.copy_from_slice(&node.value()[..32]);
                }
                if key == root.0 {
                    return Ok(position);
                }
            }
        }
        Ok(0)
    }
}

impl Index for Tree {
    fn open(folder: &Path) -> Tree {
        Tree(open(&folder.join("redb"), false).expect("a whole file"))
    }

    fn find(&self, tokens: &[u32]) -> u64 {
        self.longest(tokens).expect("a whole file")
    }

    fn put(&self, tokens: &[u32]) {
        let chain = Chain::new(layout().root(), tokens);
        let (end, start) = (chain.len(), LONG as u64);
        let node = (chain.key(end), chain.key(start), chain.block(end), end);
        insert(&self.0, std::iter::once(node)).expect("a disk that works");
    }
}

impl Index for Checked {
    fn open(folder: &Path) -> Checked {
        Checked(open(&folder.join("redb"), true).expect("a whole file"))
    }

    fn find(&self, _: &[u32]) -> u64 {
        unreachable!("only opened")
    }

    fn put(&self, _: &[u32]) {
        unreachable!("only opened")
    }
}

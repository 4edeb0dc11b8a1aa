//! What is stored, for people.
use super::Store;
use super::error::StoreError;
use super::index::Node;
use super::key::Key;
use super::read::Reader;
use super::sealed::Kind;

/// A boundary and the tokens that lead to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The boundaries from the first to this one.
    pub path: Vec<Node>,
    /// All tokens.
    pub tokens: Vec<u32>,
}

impl Store {
    /// All boundaries, the most recently used first. Those with an edge can be restored.
    pub fn list(&self) -> Result<Vec<Node>, StoreError> {
        self.refresh()?;
        let mut nodes: Vec<Node> = self.file().index.nodes().cloned().collect();
        nodes.sort_by_key(|n| (std::cmp::Reverse(n.used), n.key));
        Ok(nodes)
    }

    /// The boundary whose key begins with `prefix`, in hexadecimal, if just one does.
    pub fn lookup(&self, prefix: &str) -> Result<Key, StoreError> {
        let nodes = self.list()?;
        let mut hits = nodes.iter().filter(|n| n.key.to_string().starts_with(prefix));
        match (hits.next(), hits.next()) {
            (Some(node), None) => Ok(node.key),
            (None, _) => Err(StoreError::NotFound { what: format!("entry {prefix}") }),
            _ => Err(StoreError::NotFound { what: format!("a single entry {prefix}") }),
        }
    }

    /// One boundary with its tokens.
    pub fn show(&self, key: &Key) -> Result<Entry, StoreError> {
        let path = self.file().index.path(key);
        let path = path.ok_or_else(|| StoreError::NotFound { what: format!("entry {key}") })?;
        let mut all = Vec::new();
        for node in &path {
            let mut reader = Reader::open(self.disk(), &self.node_file(&node.key, Kind::Rows))?;
            all.extend(reader.tokens(u64::MAX)?);
        }
        Ok(Entry { path, tokens: all })
    }
}

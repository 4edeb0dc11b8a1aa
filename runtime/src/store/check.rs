//! Whether all that the store promised to keep is whole.
use super::Store;
use super::error::{StoreError, damaged};
use super::index::Node;
use super::index_file::{Found, IndexFile};
use super::read::Reader;
use super::sealed::Kind;
use std::path::PathBuf;

/// What [`Store::verify`] found.
#[derive(Default, Debug)]
pub struct Report {
    /// Boundaries and sessions looked at.
    pub entries: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Files that are not whole.
    pub problems: Vec<Problem>,
}

/// A file that is not whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Report {
    fn note(&mut self, error: StoreError) {
        let (file, why) = match error {
            StoreError::Damaged { file, why } => (file, why),
            StoreError::Io { file, source } => (file, source.to_string()),
            other => (PathBuf::new(), other.to_string()),
        };
        self.problems.push(Problem { file, why });
    }
}

impl Store {
    /// Reads every file of every committed entry and checks it. Changes nothing and takes no lock;
    /// what a dead writer left unfinished is no problem.
    pub fn verify(&self) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut fresh = IndexFile::new(self.folder.join("index"));
        if let Found::Damaged(why) = fresh.refresh(self.disk())? {
            report.note(damaged(&fresh.path, why));
        }
        let mut nodes: Vec<&Node> = fresh.index.nodes().collect();
        nodes.sort_by_key(|n| (n.end, n.key));
        for node in nodes {
            report.entries += 1;
            let kinds = [(Kind::Rows, node.rows), (Kind::Edge, node.edge)];
            for (kind, bytes) in kinds.into_iter().filter(|(_, bytes)| *bytes > 0) {
                report.bytes += bytes;
                match self.check_file(node, kind, bytes) {
                    Err(_) if self.evicted_meanwhile(node, kind)? => {}
                    found => found.unwrap_or_else(|error| report.note(error)),
                }
            }
        }
        for name in self.session_names()? {
            report.entries += 1;
            match self.session(&name) {
                Ok(session) => {
                    let why = session.damaged.into_iter();
                    why.for_each(|why| report.note(damaged(&self.session_path(&name), why)));
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => report.note(error),
            }
        }
        Ok(report)
    }

    fn check_file(&self, node: &Node, kind: Kind, bytes: u64) -> Result<(), StoreError> {
        let path = self.node_file(&node.key, kind);
        let mut reader = Reader::open(self.disk(), &path)?;
        if !node.fits(kind, &reader.header) || reader.header.file_bytes() != bytes {
            return Err(damaged(&path, "is not the file that its name and the index say"));
        }
        reader.check_rest()
    }

    /// Whether another process has dropped this file from the index since.
    fn evicted_meanwhile(&self, node: &Node, kind: Kind) -> Result<bool, StoreError> {
        let mut fresh = IndexFile::new(self.folder.join("index"));
        fresh.refresh(self.disk())?;
        let now = fresh.index.node(&node.key);
        Ok(now.is_none_or(|n| kind == Kind::Edge && n.edge == 0))
    }
}

//! Bundles: one kept boundary with all it stands on, as one file to carry elsewhere.
//!
//! A bundle is the sealed files of the path, the rows of each boundary first to last, then the
//! edge of the last, one behind the other. Each says its own length, so nothing else is needed.
use super::Store;
use super::disk::How;
use super::error::{At, StoreError, damaged};
use super::index::{Node, Record};
use super::key::Key;
use super::save::publish;
use super::sealed::{self, Header, Kind, Reader};
use std::path::Path;

impl Store {
    /// Writes the boundary `key` and all it stands on to the file `to`, durably.
    pub fn export(&self, key: &Key, to: &Path) -> Result<u64, StoreError> {
        self.refresh()?;
        let path = self.file().index.path(key).filter(|p| p.last().is_some_and(|n| n.edge > 0));
        let path = path.ok_or_else(|| StoreError::NotFound { what: format!("kept entry {key}") })?;
        let parts = path.iter().map(|n| (n.key, Kind::Rows)).chain([(*key, Kind::Edge)]);
        let temp = to.with_added_extension("tmp");
        let out = self.disk.open(&temp, How::Fresh).at(&temp)?;
        let mut at = 0;
        for (key, kind) in parts {
            let from = self.node_file(&key, kind);
            Reader::open(self.disk(), &from)?.check_rest()?;
            let file = self.disk.open(&from, How::Read).at(&from)?;
            let mut bytes = vec![0; 1 << 20];
            let mut read = 0;
            loop {
                let n = file.read_at(&mut bytes, read).at(&from)?;
                out.write_at(&bytes[..n], at).at(&temp)?;
                (read, at) = (read + n as u64, at + n as u64);
                if n < bytes.len() {
                    break;
                }
            }
        }
        out.sync().at(&temp)?;
        self.disk.rename(&temp, to).at(to)?;
        let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.disk.sync_dir(folder).at(folder)?;
        Ok(at)
    }

    /// Takes the boundary in the bundle `from` into the store and returns its key.
    ///
    /// Every byte is checked before anything is kept. That it fits the session is checked, as
    /// always, when it is restored.
    pub fn import(&self, from: &Path) -> Result<Key, StoreError> {
        let headers = self.bundle(from)?;
        let last = headers.last().expect("a bundle ends with an edge").key;
        self.locked(|store| {
            let mut parts: Vec<(Header, u64)> = Vec::new();
            for (header, at) in with_offsets(&headers) {
                let known = store.stored(&header.key)?;
                if known.is_none_or(|n| header.kind == Kind::Edge && n.edge == 0) {
                    parts.push((header, at));
                }
            }
            let keep = headers.iter().map(|h| h.key).collect();
            store.make_room(parts.iter().map(|(h, _)| h.file_bytes()).sum(), &keep)?;
            for (header, at) in &parts {
                store.copy_in(from, header, *at)?;
            }
            for (header, _) in &parts {
                store.take_in(header);
            }
            Ok(last)
        })
    }

    /// The headers of a bundle whose parts are whole and make a path.
    fn bundle(&self, from: &Path) -> Result<Vec<Header>, StoreError> {
        let mut file = self.disk.open(from, How::Read).at(from)?;
        let len = file.len().at(from)?;
        let mut headers: Vec<Header> = Vec::new();
        let mut at = 0;
        while at < len {
            let mut reader = Reader::part(file, from, at)?;
            let header = reader.header.clone();
            if header.file_bytes() > len - at {
                return Err(damaged(
                    from,
                    format!("expected {} bytes at {at}, got {}", header.file_bytes(), len - at),
                ));
            }
            let (start, parent) = headers.last().map_or((0, header.root), |h| (h.end, h.key));
            let joins = match header.kind {
                Kind::Rows => (header.start, header.parent) == (start, parent),
                Kind::Edge => headers.last().is_some_and(|h| (h.key, h.end) == (header.key, header.end)),
            };
            let ended = headers.last().is_some_and(|h| h.kind == Kind::Edge);
            if ended || !joins || headers.first().is_some_and(|h| h.root != header.root) {
                return Err(damaged(from, format!("the part at {at} does not continue the one before it")));
            }
            reader.check_rest()?;
            at += header.file_bytes();
            headers.push(header);
            file = reader.into_file();
        }
        match headers.last() {
            Some(h) if h.kind == Kind::Edge => Ok(headers),
            _ => Err(damaged(from, "expected a bundle that ends with an edge")),
        }
    }

    fn copy_in(&self, from: &Path, header: &Header, at: u64) -> Result<(), StoreError> {
        let mut reader = Reader::part(self.disk.open(from, How::Read).at(from)?, from, at)?;
        let mut body = Vec::new();
        reader.take(header.body as usize, &mut body)?;
        let path = self.node_file(&header.key, header.kind);
        let temp = path.with_added_extension("tmp");
        sealed::write(self.disk(), &temp, header, &body)?;
        publish(self.disk(), &[(temp, path)], &self.folder.join("nodes"))
    }

    fn take_in(&self, header: &Header) {
        let mut file = self.file();
        let (bytes, used) = (header.file_bytes(), self.disk.now());
        let node = match header.kind {
            Kind::Rows => Node::new(header, 0, used),
            Kind::Edge => {
                let rows = file.index.node(&header.key).expect("its rows come first").clone();
                Node { edge: bytes, used, ..rows }
            }
        };
        file.log(Record::Put(node));
    }
}

fn with_offsets(headers: &[Header]) -> impl Iterator<Item = (Header, u64)> {
    headers.iter().scan(0, |at, h| {
        let own = *at;
        *at += h.file_bytes();
        Some((h.clone(), own))
    })
}

//! Bundles: one kept boundary with all it stands on, as one file to carry elsewhere.
//!
//! A bundle is the sealed files of the path, the rows of each boundary first to last, then the
//! edge of the last, one behind the other. Each says its own length, so nothing else is needed.
use super::Store;
use super::beside::Beside;
use super::disk::{DiskFile, How};
use super::error::{At, StoreError, damaged};
use super::index::{Node, Record};
use super::key::{Chain, Key};
use super::read::Reader;
use super::sealed::{Header, Kind};
use std::ops::Range;
use std::path::Path;

/// Bytes copied at once.
const COPIED: usize = 1 << 20;

impl Store {
    /// Writes the boundary `key` and all it stands on to the file `to`, durably.
    pub fn export(&self, key: &Key, to: &Path) -> Result<u64, StoreError> {
        self.refresh()?;
        let path = self.file().index.path(key).filter(|p| p.last().is_some_and(|n| n.edge > 0));
        let path = path.ok_or_else(|| StoreError::NotFound { what: format!("kept entry {key}") })?;
        let parts = path.iter().map(|n| (n.key, Kind::Rows)).chain([(*key, Kind::Edge)]);
        let temp = to.with_added_extension("tmp");
        let done = self.write_bundle(parts, &temp).and_then(|bytes| {
            self.disk.rename(&temp, to).at(to)?;
            let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            self.disk.sync_dir(folder).at(folder)?;
            Ok(bytes)
        });
        if done.is_err() {
            drop(self.disk.remove(&temp));
        }
        done
    }

    fn write_bundle(&self, parts: impl Iterator<Item = (Key, Kind)>, temp: &Path) -> Result<u64, StoreError> {
        let out = self.disk.open(temp, How::Fresh).at(temp)?;
        let mut at = 0;
        for (key, kind) in parts {
            let from = self.node_file(&key, kind);
            Reader::open(self.disk(), &from)?.check_rest()?;
            let file = self.disk.open(&from, How::Read).at(&from)?;
            let len = file.len().at(&from)?;
            copy(&*file, &from, 0..len, &*out, temp, at)?;
            at += len;
        }
        out.sync().at(temp)?;
        Ok(at)
    }

    /// Takes the boundary in the bundle `from` into the store and returns its key.
    ///
    /// Every byte is checked before anything is kept, and that each key is the one of the tokens it
    /// comes with. That it fits a session is checked, as always, when it is restored. That its states
    /// are those of its tokens cannot be checked: whoever made the bundle is believed.
    pub fn import(&self, from: &Path) -> Result<Key, StoreError> {
        let headers = self.bundle(from)?;
        let last = headers.last().expect("a bundle ends with an edge").key;
        let beside = |(header, at): (Header, u64)| {
            Ok((Beside::new(self, self.node_file(&header.key, header.kind))?, header, at))
        };
        let begun = self.locked(|store| store.lacking(&headers)?.into_iter().map(beside).collect());
        let mut files: Vec<(Beside, Header, u64)> = begun?;
        files.iter().try_for_each(|(file, header, at)| self.copy_in(from, header, *at, file.temp()))?;
        self.locked(|store| {
            let lacking = store.lacking(&headers)?;
            let paths: Vec<_> = lacking.iter().map(|(h, _)| store.node_file(&h.key, h.kind)).collect();
            if !Beside::publish(files.iter_mut().map(|f| &mut f.0), &paths)? {
                let (position, parent) = (headers.last().map_or(0, |h| h.end), lacking[0].0.end);
                return Err(StoreError::ParentGone { position, parent });
            }
            lacking.iter().for_each(|(header, _)| store.take_in(header));
            Ok(last)
        })
    }

    /// The parts of a bundle that the store lacks, and where in it they lie. Makes room for them. The
    /// caller holds the folder's lock.
    fn lacking(&self, headers: &[Header]) -> Result<Vec<(Header, u64)>, StoreError> {
        let mut parts: Vec<(Header, u64)> = Vec::new();
        for (header, at) in with_offsets(headers) {
            let known = self.stored(&header)?;
            if known.is_none_or(|n| header.kind == Kind::Edge && n.edge == 0) {
                parts.push((header, at));
            }
        }
        let keep = headers.iter().map(|h| h.key).collect();
        self.make_room(parts.iter().map(|(h, _)| h.file_bytes()).sum(), &keep)?;
        Ok(parts)
    }

    /// The headers of a bundle whose parts are whole and make a path.
    fn bundle(&self, from: &Path) -> Result<Vec<Header>, StoreError> {
        let mut file = self.disk.open(from, How::Read).at(from)?;
        let len = file.len().at(from)?;
        let (mut headers, mut tokens): (Vec<Header>, Vec<u32>) = Default::default();
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
            if header.kind == Kind::Rows {
                tokens.extend(reader.tokens(u64::MAX)?);
            }
            reader.check_rest()?;
            at += header.file_bytes();
            headers.push(header);
            file = reader.into_file();
        }
        let Some(last) = headers.last().filter(|h| h.kind == Kind::Edge) else {
            return Err(damaged(from, "expected a bundle that ends with an edge"));
        };
        let chain = Chain::new(last.root, &tokens);
        match headers.iter().find(|h| (h.key, h.block) != (chain.key(h.end), chain.block(h.end))) {
            Some(other) => {
                Err(damaged(from, format!("holds other tokens than the key at {} says", other.end)))
            }
            None => Ok(headers),
        }
    }

    /// Copies one part of a bundle to a file of its own, durably, whatever the bundle has become meanwhile.
    fn copy_in(&self, from: &Path, header: &Header, at: u64, temp: &Path) -> Result<(), StoreError> {
        let (file, out) =
            (self.disk.open(from, How::Read).at(from)?, self.disk.open(temp, How::Fresh).at(temp)?);
        copy(&*file, from, at..at + header.file_bytes(), &*out, temp, 0)?;
        let mut copied = Reader::open(self.disk(), temp)?;
        if copied.header != *header {
            return Err(damaged(from, "changed while it was read"));
        }
        copied.check_rest()?;
        out.sync().at(temp)
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

/// Copies a range of one file to a place in another.
fn copy(
    from: &dyn DiskFile,
    from_path: &Path,
    range: Range<u64>,
    to: &dyn DiskFile,
    to_path: &Path,
    at: u64,
) -> Result<(), StoreError> {
    let mut block = vec![0; COPIED];
    let mut next = range.start;
    while next < range.end {
        let n = block.len().min((range.end - next) as usize);
        let n = from.read_at(&mut block[..n], next).at(from_path)?;
        if n == 0 {
            return Err(damaged(from_path, format!("expected {} bytes, got {next}", range.end)));
        }
        to.write_at(&block[..n], at + (next - range.start)).at(to_path)?;
        next += n as u64;
    }
    Ok(())
}

fn with_offsets(headers: &[Header]) -> impl Iterator<Item = (Header, u64)> {
    headers.iter().scan(0, |at, h| {
        let own = *at;
        *at += h.file_bytes();
        Some((h.clone(), own))
    })
}

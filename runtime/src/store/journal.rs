//! Journals: the tokens of each session, handed to the system before they are shown.
//!
//! The end of the process loses none of them; a loss of power loses at most what was appended in
//! the last seconds, because [`super::Writer`] syncs open journals. Who has a journal open holds
//! its lock, which tells evictors of all processes what is being served.
use super::bytes::{put_tokens, tokens};
use super::disk::{Disk, DiskFile, How, Lock};
use super::error::{At, StoreError, damaged};
use super::key::Key;
use super::log::{FRAME_MAX, LOG_HEADER, LOG_MAX, LogHeader, LogKind};
use super::save::publish;
use super::{Layout, Store};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

const TOKENS: u32 = 1;
/// The session went back to a length and on from there; its payload is that length and the new tokens.
const REWIND: u32 = 2;
/// Bytes of that length.
const REWIND_MIN: usize = 8;
const SUFFIX: &str = ".journal";

/// The journals that are to be synced.
pub(crate) type Journals = Mutex<Vec<Weak<Tail>>>;

/// What a journal says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionFile {
    /// Key of the identity and schema it was recorded for.
    pub root: Key,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// All its tokens.
    pub tokens: Vec<u32>,
    /// Where the file is damaged: tokens behind are lost.
    pub damaged: Option<String>,
}

/// The journal of a session that goes on. One at a time, among all processes.
pub struct Journal {
    name: String,
    tail: Arc<Tail>,
    tokens: u64,
    /// The last frame says that all before it is on the disk.
    closed: bool,
    _lock: Lock,
}

/// The end of a journal, shared with who syncs it.
pub(crate) struct Tail {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    header: LogHeader,
    /// Bytes handed to the system, and of those the bytes on the disk.
    written: Mutex<(u64, u64)>,
}

impl Tail {
    fn append(&self, tag: u32, payload: &[u8]) -> Result<(), StoreError> {
        let mut written = self.written.lock().expect("no panic while locked");
        let frame = self.header.frame(written.0, written.1, tag, payload);
        self.file.write_at(&frame, written.0).at(&self.path)?;
        written.0 += frame.len() as u64;
        Ok(())
    }

    /// Appends go on while the disk is busy.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let (end, durable) = *self.written.lock().expect("no panic while locked");
        if end > durable {
            self.file.sync().at(&self.path)?;
            let mut written = self.written.lock().expect("no panic while locked");
            written.1 = written.1.max(end);
        }
        Ok(())
    }
}

impl Journal {
    /// The session's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens in the journal.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Appends tokens. When this returns they survive the process; show them after, not before.
    pub fn append(&mut self, new: &[u32]) -> Result<(), StoreError> {
        for part in new.chunks(FRAME_MAX / 4) {
            let mut payload = Vec::with_capacity(4 * part.len());
            put_tokens(&mut payload, part);
            self.closed = false;
            self.tail.append(TOKENS, &payload)?;
            self.tokens += part.len() as u64;
        }
        Ok(())
    }

    /// Takes back all tokens from `len` on.
    pub fn rewind(&mut self, len: u64) -> Result<(), StoreError> {
        self.replace(len, &[])
    }

    /// Replaces all tokens from `len` on by `new`. The end of the process in between loses none of the old
    /// ones but for the new: they come in one frame, as far as one holds them.
    pub fn replace(&mut self, len: u64, new: &[u32]) -> Result<(), StoreError> {
        assert!(len <= self.tokens, "{len} of {}", self.tokens);
        let (first, rest) = new.split_at(new.len().min((FRAME_MAX - REWIND_MIN) / 4));
        let mut payload = len.to_le_bytes().to_vec();
        put_tokens(&mut payload, first);
        self.closed = false;
        self.tail.append(REWIND, &payload)?;
        self.tokens = len + first.len() as u64;
        self.append(rest)
    }

    /// Returns when all tokens are on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.tail.sync()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Nobody else would sync it from here on. Then a frame without tokens says that this was done:
        // a byte that changes from now on cannot pass for a tail that was never written.
        if self.sync().is_ok() && !self.closed && self.tail.append(TOKENS, &[]).is_ok() {
            drop(self.sync());
        }
    }
}

impl Store {
    /// Starts a session called `name` with `first` as its tokens, durably: a new one, or a fork.
    pub fn create_session(&self, layout: &Layout, name: &str, first: &[u32]) -> Result<Journal, StoreError> {
        let path = self.named(name)?;
        self.write_session(layout.root(), first, &path, |store| {
            match store.session_names()?.contains(&name.into()) {
                true => Err(StoreError::Exists { name: name.into() }),
                false => Ok(()),
            }
        })?;
        self.open_session(layout, name).map(|(journal, _)| journal)
    }

    /// Goes on with a session: its journal and its tokens.
    ///
    /// A damaged journal is put aside, with a warning, and a copy of what it still says goes on; if
    /// that is nothing, the damage is the error and the name is free again.
    pub fn open_session(&self, layout: &Layout, name: &str) -> Result<(Journal, Vec<u32>), StoreError> {
        let path = self.named(name)?;
        let lock = self.lock(&path).map_err(|error| no_session(error, name))?;
        let found = read(self.disk(), &path);
        if let Err(StoreError::Damaged { why, .. }) = &found {
            self.quarantine(&path, why)?;
        }
        let Found { header, session, end, closed } = found?;
        if session.root != layout.root() {
            return Err(StoreError::OtherIdentity { name: name.into() });
        }
        if let Some(why) = session.damaged {
            self.quarantine(&path, &why)?;
            self.write_session(session.root, &session.tokens, &path, |_| Ok(()))?;
            return self.open_session(layout, name);
        }
        let file = self.disk.open(&path, How::Write).at(&path)?;
        file.truncate(end).and_then(|()| file.sync()).at(&path)?;
        let tail = Arc::new(Tail { path, file, header, written: Mutex::new((end, end)) });
        let mut open = self.journals.lock().expect("no panic while locked");
        open.retain(|t| t.strong_count() > 0);
        open.push(Arc::downgrade(&tail));
        let tokens = session.tokens.len() as u64;
        Ok((Journal { name: name.into(), tail, tokens, closed, _lock: lock }, session.tokens))
    }

    /// What a session's journal says now, whoever has it open.
    pub fn session(&self, name: &str) -> Result<SessionFile, StoreError> {
        let path = self.named(name)?;
        let found = read(self.disk(), &path).map_err(|error| no_session(error, name));
        found.map(|found| found.session)
    }

    /// The names of all sessions, sorted.
    pub fn session_names(&self) -> Result<Vec<String>, StoreError> {
        let folder = self.folder.join("sessions");
        let files = self.disk.names(&folder).at(&folder)?;
        let mut names: Vec<String> =
            files.iter().filter_map(|f| f.strip_suffix(SUFFIX)).map(String::from).collect();
        names.sort();
        Ok(names)
    }

    /// Removes a session's journal. Its snapshots stay until they are evicted.
    pub fn remove_session(&self, name: &str) -> Result<(), StoreError> {
        let lock = self.lock_session(name)?;
        self.remove_journal(name, lock)
    }

    /// Keeps all others from opening a session.
    pub(crate) fn lock_session(&self, name: &str) -> Result<Lock, StoreError> {
        self.lock(&self.named(name)?).map_err(|error| no_session(error, name))
    }

    pub(crate) fn remove_journal(&self, name: &str, _held: Lock) -> Result<(), StoreError> {
        let path = self.named(name)?;
        self.disk.remove(&path).at(&path)?;
        let folder = self.folder.join("sessions");
        self.disk.sync_dir(&folder).at(&folder)
    }

    /// Puts the tokens of all open journals of this process on the disk.
    pub fn sync_sessions(&self) -> Result<(), StoreError> {
        let open: Vec<_> = {
            let open = self.journals.lock().expect("no panic while locked");
            open.iter().filter_map(Weak::upgrade).collect()
        };
        let results: Vec<_> = open.iter().map(|tail| tail.sync()).collect();
        results.into_iter().collect()
    }

    pub(crate) fn session_path(&self, name: &str) -> PathBuf {
        self.folder.join("sessions").join(format!("{name}{SUFFIX}"))
    }

    fn named(&self, name: &str) -> Result<PathBuf, StoreError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good = (1..=64).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('.');
        if good { Ok(self.session_path(name)) } else { Err(StoreError::Name { name: name.into() }) }
    }

    /// Writes a journal beside and, if `allowed` says so, gives it its name, durably.
    ///
    /// Waits for no save: the lock of the file beside keeps others from making the same name and
    /// a sweep from taking it for what a dead process left.
    fn write_session(
        &self,
        root: Key,
        first: &[u32],
        path: &Path,
        allowed: impl FnOnce(&Store) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let header = LogHeader { kind: LogKind::Journal, id: root, created: self.disk.now() };
        let mut bytes = header.encode();
        for part in first.chunks(FRAME_MAX / 4) {
            let mut payload = Vec::new();
            put_tokens(&mut payload, part);
            let at = bytes.len() as u64;
            bytes.extend(header.frame(at, LOG_HEADER as u64, TOKENS, &payload));
        }
        let temp = path.with_added_extension("tmp");
        let file = self.disk.open(&temp, How::Write).at(&temp)?;
        let _lock = self.lock(&temp)?;
        let done = allowed(self).and_then(|()| {
            file.truncate(0).and_then(|()| file.write_at(&bytes, 0)).and_then(|()| file.sync()).at(&temp)?;
            publish(self.disk(), &[(temp.clone(), path.to_path_buf())], &self.folder.join("sessions"))
        });
        if done.is_err() {
            drop(self.disk.remove(&temp));
        }
        done
    }
}

/// Names the session instead of the file that is not there.
fn no_session(error: StoreError, name: &str) -> StoreError {
    match error {
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            StoreError::NotFound { what: format!("session {name}") }
        }
        error => error,
    }
}

/// What reading a journal finds.
struct Found {
    header: LogHeader,
    session: SessionFile,
    /// Where its last whole frame ends.
    end: u64,
    /// Whether that frame ends the work of a process that closed it.
    closed: bool,
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Found, StoreError> {
    let file = disk.open(path, How::Read).at(path)?;
    let len = file.len().at(path)?;
    if len > LOG_MAX {
        return Err(damaged(path, format!("expected at most {LOG_MAX} bytes, got {len}")));
    }
    let mut bytes = vec![0; len as usize];
    let n = file.read_at(&mut bytes, 0).at(path)?;
    bytes.truncate(n);
    let header = LogHeader::parse(&bytes, LogKind::Journal);
    let header =
        header.map_err(|why| LogHeader::other_version(path, &bytes).unwrap_or_else(|| damaged(path, why)))?;
    let scan = header.scan(&bytes[LOG_HEADER..], LOG_HEADER as u64);
    let why = format!("checksum of the frame at {} does not hold", scan.end);
    let mut session = SessionFile {
        root: header.id,
        created: header.created,
        tokens: Vec::new(),
        damaged: scan.damaged.then_some(why),
    };
    let closed = scan.frames.last().is_some_and(|(tag, range)| *tag == TOKENS && range.is_empty());
    for (tag, range) in scan.frames {
        let payload = &bytes[LOG_HEADER..][range];
        match (tag, payload.len()) {
            (TOKENS, n) if n.is_multiple_of(4) => session.tokens.extend(tokens(payload)),
            (REWIND, n) if n >= REWIND_MIN && n.is_multiple_of(4) => {
                let (len, new) = payload.split_at(REWIND_MIN);
                let len = u64::from_le_bytes(len.try_into().expect("8 bytes"));
                session.tokens.truncate(usize::try_from(len).unwrap_or(usize::MAX));
                session.tokens.extend(tokens(new));
            }
            _ => {
                session.damaged = Some(format!("holds a frame of unknown tag {tag}"));
                break;
            }
        }
    }
    Ok(Found { header, session, end: scan.end, closed })
}

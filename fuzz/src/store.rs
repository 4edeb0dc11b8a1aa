//! The parsers of the store. Whatever a file holds, the store does not panic, restores what was saved or
//! less, and is whole again once it has been saved to.
use super::memory::Memory;
use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{Boundary, Disk, How, Key, Layout, Options, StateRows, Store, StoreError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use twox_hash::XxHash3_64;

const LOGITS: usize = 3;
const TOKENS: u32 = 300;
/// Payload of a chunk of a sealed file.
const CHUNK: usize = 1 << 18;

/// The rows that every session of these targets has; what is written has to be the same.
struct Rows {
    /// Whether another row is a bug. Files with checksums made to hold may say anything.
    strict: bool,
}

fn schema() -> [(String, StateType); 3] {
    let state = |name: &str, kind, width| (name.to_string(), StateType { kind, scalar: Scalar::F32, width });
    [
        state("ring", StateKind::Ring(4), 1),
        state("rows", StateKind::Entries(4), 2),
        state("tail", StateKind::Tail(4), 4),
    ]
}

fn row(state: usize, row: u64) -> Vec<u8> {
    let width = schema()[state].1.width as u64;
    (0..4 * width).map(|i| (1 + state as u64 + 3 * row + 7 * i) as u8).collect()
}

impl StateRows for Rows {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        rows.for_each(|i| out.extend(row(state, i)));
    }

    fn write(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) {
        let size = row(state, 0).len();
        assert_eq!(bytes.len() as u64, (rows.end - rows.start) * size as u64);
        for (i, got) in rows.zip(bytes.chunks_exact(size)) {
            let own = row(state, i);
            // Lane B of a closed block is not kept.
            let lane = |b: &[u8]| [&b[..size / 4], &b[size / 2..3 * size / 4]].concat();
            let same = got == own || state == 2 && lane(got) == lane(&own);
            assert!(same || !self.strict, "state {state} row {i}");
        }
    }
}

fn layout() -> Layout {
    Layout::new([9; 32], &schema(), LOGITS)
}

fn open(disk: &Memory) -> Store {
    open_any(disk).expect("what it finds is no reason")
}

fn open_any(disk: &Memory) -> Result<Store, StoreError> {
    let options = Options { budget: u64::MAX / 2, ..Options::default() };
    Store::open(Arc::new(disk.clone()), Path::new("/store"), options)
}

fn tokens() -> Vec<u32> {
    (0..TOKENS).map(|t| t * t).collect()
}

fn save(store: &Store, tokens: &[u32]) {
    let boundary = Boundary { tokens, logits: &[0.5; LOGITS], seconds_per_token: 1.0 };
    let capture = store.capture(&layout(), boundary, &Rows { strict: true }).expect("a disk that works");
    capture.map(|capture| store.commit(&capture).expect("a disk that works"));
}

/// A store with a conversation of two boundaries and its journal.
fn saved() -> Memory {
    static SAVED: OnceLock<Memory> = OnceLock::new();
    let made = SAVED.get_or_init(|| {
        let disk = Memory::default();
        let store = open(&disk);
        let tokens = tokens();
        save(&store, &tokens[..130]);
        save(&store, &tokens);
        let mut journal = store.create_session(&layout(), "chat", &tokens[..200]).expect("a new name");
        journal.append(&tokens[200..]).expect("a disk that works");
        journal.rewind(299).expect("a disk that works");
        drop(journal);
        disk
    });
    made.copy()
}

/// Restores what there is, saves, and finds all of it.
fn answers(store: &Store, strict: bool) {
    let tokens = tokens();
    let restored = store.restore(&layout(), &tokens, &mut Rows { strict });
    assert!(restored.tokens <= u64::from(TOKENS));
    assert!(restored.tokens == 0 || !strict || restored.logits == [0.5; LOGITS], "{restored}");
    for n in [130, TOKENS as usize] {
        store.restore(&layout(), &tokens[..n], &mut Rows { strict });
        save(store, &tokens[..n]);
        let again = store.restore(&layout(), &tokens[..n], &mut Rows { strict });
        assert_eq!(again.tokens, n as u64, "{again}");
    }
    for node in store.list().expect("a disk that works") {
        // What a hostile index names need not be there.
        let _ = store.show(&node.key);
    }
    store.gc(u64::MAX / 2).expect("a disk that works");
    let again = store.restore(&layout(), &tokens, &mut Rows { strict });
    assert_eq!(again.tokens, u64::from(TOKENS), "{again}");
}

/// A saved store whose file `path` holds `bytes`.
fn with(path: &Path, bytes: &[u8]) -> (Memory, Store) {
    let disk = saved();
    disk.put(path, bytes.to_vec());
    let store = open(&disk);
    (disk, store)
}

/// The index.
pub fn store_index(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for bytes in [bytes.to_vec(), log_sealed(bytes)] {
        // The files are whole: no index can make them answer otherwise.
        let disk = saved();
        let path = Path::new("/store/index");
        disk.put(path, bytes.clone());
        let store = match open_any(&disk) {
            Ok(store) => store,
            Err(error) => {
                // A store of another version is refused as it is.
                assert!(matches!(error, StoreError::Version { .. }), "{error}");
                assert!(disk.get(path) == bytes && disk.paths() == saved().paths());
                accepted = false;
                continue;
            }
        };
        accepted = store.take_warnings().is_empty();
        answers(&store, true);
    }
    accepted
}

/// A journal.
pub fn store_journal(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for bytes in [bytes.to_vec(), log_sealed(bytes)] {
        let (_, store) = with(Path::new("/store/sessions/chat.journal"), &bytes);
        let before = store.session("chat");
        let opened = store.open_session(&layout(), "chat");
        accepted = opened.is_ok();
        if let (Ok((mut journal, found)), Ok(before)) = (opened, before) {
            assert_eq!(found, before.tokens);
            journal.append(&[5]).expect("a disk that works");
            let now = store.session("chat").expect("it is open");
            assert_eq!((now.tokens, now.damaged), ([&found[..], &[5]].concat(), None));
        }
        answers(&store, true);
    }
    accepted
}

/// A file of rows or of an edge; the first byte says which.
pub fn store_sealed(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    let files: Vec<PathBuf> = saved().paths().into_iter().filter(|p| p.starts_with("/store/nodes")).collect();
    let path = &files[usize::from(*which) % files.len()];
    let mut accepted = false;
    for (strict, bytes) in [(true, bytes.to_vec()), (false, sealed(bytes))] {
        let (_, store) = with(path, &bytes);
        accepted = store.verify().expect("a disk that works").problems.is_empty();
        answers(&store, strict);
    }
    accepted
}

/// A bundle.
pub fn store_bundle(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for bytes in [bytes.to_vec(), sealed(bytes)] {
        let (from, to) = (Path::new("/bundle"), Path::new("/again"));
        let disk = Memory::default();
        disk.put(from, bytes.clone());
        let store = open(&disk);
        let imported = store.import(from);
        accepted = imported.is_ok();
        let problems = store.verify().expect("a disk that works").problems;
        assert!(problems.is_empty(), "{problems:?}");
        if let Ok(key) = imported {
            assert_eq!(store.import(from).ok(), Some(key));
            let entry = store.show(&key).expect("it was taken in");
            assert_eq!(entry.tokens.len() as u64, entry.path.last().expect("not empty").end);
            store.export(&key, to).expect("a disk that works");
            assert!(disk.get(to) == bytes, "a bundle comes out as it went in");
        }
        answers(&store, false);
    }
    accepted
}

/// Names: of files in the folder, of sessions, of keys.
pub fn store_name(bytes: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(bytes) else { return false };
    let key = Key::parse(name);
    assert!(key.is_none_or(|key| key.to_string() == name), "{name}");
    let disk = saved();
    if !name.is_empty() && !name.contains(['/', '\0']) && ![".", ".."].contains(&name) {
        for folder in ["nodes", "sessions"] {
            let path = Path::new("/store").join(folder).join(name);
            drop(disk.open(&path, How::Write).expect("a disk that works"));
        }
    }
    let store = open(&disk);
    let _ = store.lookup(name);
    let made = store.create_session(&layout(), name, &[1]);
    if made.is_ok() {
        assert!(store.session_names().expect("a disk that works").iter().any(|n| n == name));
    }
    let named = made.is_ok();
    answers(&store, true);
    key.is_some() || named
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().expect("8 bytes")))
}

/// The log with the right checksum in its header and in every frame that lies inside: without them no
/// fuzzer gets past the checksums.
fn log_sealed(bytes: &[u8]) -> Vec<u8> {
    let mut log = bytes.to_vec();
    if log.len() < 64 {
        return log;
    }
    let sum = XxHash3_64::oneshot(&log[..56]);
    log[56..64].copy_from_slice(&sum.to_le_bytes());
    let seed = number(&log, 16).expect("a header") ^ number(&log, 48).expect("a header");
    let mut at = 64;
    while let Some(len) = number(&log, at).map(|n| n as u32 as usize) {
        let total = 24 + len.next_multiple_of(8);
        let Some(frame) = log.get_mut(at..at + total) else { break };
        frame[16..24].fill(0);
        let sum = XxHash3_64::oneshot_with_seed(seed ^ at as u64, frame);
        frame[16..24].copy_from_slice(&sum.to_le_bytes());
        at += total;
    }
    log
}

/// Sealed files, one behind the other, with the right checksums over every header and chunk inside.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    let mut at = 0;
    while file.len() - at >= 192 {
        let sum = XxHash3_64::oneshot(&file[at..at + 184]);
        file[at + 184..at + 192].copy_from_slice(&sum.to_le_bytes());
        let edge = if file[at + 12] == 2 { 1 << 63 } else { 0 };
        let seed = number(&file, at + 48).expect("a header") ^ edge;
        let mut left = usize::try_from(number(&file, at + 160).expect("a header")).unwrap_or(usize::MAX);
        at += 192;
        for index in 0.. {
            let payload = left.min(CHUNK);
            let Some(chunk) = file.get_mut(at..at + payload + 8).filter(|_| payload > 0) else { break };
            let sum = XxHash3_64::oneshot_with_seed(seed ^ index, &chunk[..payload]);
            chunk[payload..].copy_from_slice(&sum.to_le_bytes());
            (at, left) = (at + payload + 8, left - payload);
        }
        if left > 0 {
            break;
        }
    }
    file
}

//! Speed of the store on the disk that holds the temporary folder: saves and restores of the real
//! model's states beside plain sequential writing and reading, and look-ups among 10,000 sessions.
//!
//! `cargo bench -p ds4-runtime --bench store`
use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{Boundary, Disk, DiskFile, How, Layout, Lock, Options, RealDisk};
use ds4_runtime::store::{StateRows, Store, Writer};
use std::io::Result;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const TOKENS: usize = 32_768;
const ROUNDS: usize = 9;
const SESSIONS: u32 = 10_000;
const LOGITS: usize = 129_280;

/// States as flat memory, one buffer per state, as a session on the CPU holds them.
struct Rows(Vec<(usize, Vec<u8>)>);

impl Rows {
    fn new(schema: &[(String, StateType)], tokens: u64) -> Rows {
        let buffer = |s: &StateType| {
            let row = s.scalar.row_bytes(s.width as usize);
            let rows = s.kind.rows(tokens) as usize;
            // No page of zeros: every page is there before anything is measured.
            (row, (0..rows * row).map(|i| i as u8 | 1).collect())
        };
        Rows(schema.iter().map(|(_, s)| buffer(s)).collect())
    }

    /// The rows as pieces of the buffer: rings and tails wrap around.
    fn pieces(&self, state: usize, rows: Range<u64>) -> impl Iterator<Item = Range<usize>> {
        let (row, slots) = (self.0[state].0, (self.0[state].1.len() / self.0[state].0) as u64);
        let mut next = rows.start;
        std::iter::from_fn(move || {
            let slot = next % slots;
            let n = (rows.end - next).min(slots - slot);
            next += n;
            (n > 0).then(|| slot as usize * row..(slot + n) as usize * row)
        })
    }
}

impl StateRows for Rows {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        self.pieces(state, rows).for_each(|piece| out.extend_from_slice(&self.0[state].1[piece]));
    }

    fn write(&mut self, state: usize, rows: Range<u64>, mut bytes: &[u8]) {
        for piece in self.pieces(state, rows).collect::<Vec<_>>() {
            let (own, rest) = bytes.split_at(piece.len());
            self.0[state].1[piece].copy_from_slice(own);
            bytes = rest;
        }
    }
}

/// The states of Flash in `official` or `fast` (spec 1.2).
fn flash() -> Vec<(String, StateType)> {
    let kv8 = Scalar::Kv8 { rope: 64 };
    let mut schema = Vec::new();
    for layer in 0..43 {
        let mut add = |kind, scalar, width| {
            schema.push((format!("blk.{layer}.{}", schema.len()), StateType { kind, scalar, width }));
        };
        add(StateKind::Ring(128), kv8, 512);
        if layer >= 2 && layer % 2 == 0 {
            add(StateKind::Entries(4), kv8, 512);
            add(StateKind::Entries(4), Scalar::Idx4, 128);
            add(StateKind::Tail(4), Scalar::F32, 2048);
            add(StateKind::Tail(4), Scalar::F32, 512);
        } else if layer >= 2 {
            add(StateKind::Entries(128), kv8, 512);
            add(StateKind::Tail(128), Scalar::F32, 1024);
        }
    }
    schema
}

/// A disk that skips the syncs, to lay down many sessions quickly.
struct Unsynced;

impl Disk for Unsynced {
    fn open(&self, path: &Path, how: How) -> Result<Box<dyn DiskFile>> {
        RealDisk.open(path, how).map(|file| Box::new(UnsyncedFile(file)) as Box<dyn DiskFile>)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        RealDisk.remove(path)
    }
    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        RealDisk.names(folder)
    }
    fn private_dir(&self, folder: &Path) -> Result<std::result::Result<(), String>> {
        RealDisk.private_dir(folder)
    }
    fn sync_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn try_lock(&self, path: &Path) -> Result<Option<Lock>> {
        RealDisk.try_lock(path)
    }
    fn now(&self) -> u64 {
        RealDisk.now()
    }
}

struct UnsyncedFile(Box<dyn DiskFile>);

impl DiskFile for UnsyncedFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read_at(buf, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.0.write_at(bytes, at)
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.0.truncate(len)
    }
}

fn main() {
    let folder = std::env::temp_dir().join(format!("ds4-store-bench-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    rates(&folder);
    beside(&folder);
    look_ups(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn open(disk: impl Disk + 'static, folder: &Path) -> Store {
    Store::open(Arc::new(disk), folder, Options { budget: u64::MAX / 2, ..Options::default() }).unwrap()
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let value = work();
    (start.elapsed().as_secs_f64(), value)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Plain sequential writing and reading, saving and restoring, in turns.
fn rates(folder: &Path) {
    let schema = flash();
    let layout = Layout::new([0; 32], &schema, LOGITS);
    let mut rows = Rows::new(&schema, TOKENS as u64);
    let logits = vec![0.5; LOGITS];
    let [mut write, mut save, mut copy, mut read, mut restore] = [const { Vec::new() }; 5];
    let mut bytes = 0;
    for round in 0..ROUNDS {
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|t| t ^ (round as u32) << 20).collect();
        let store = open(RealDisk, &folder.join("rates"));
        let boundary = Boundary { tokens: &tokens, logits: &logits, seconds_per_token: 0.1 };
        let (t, capture) = seconds(|| store.capture(&layout, boundary, &rows).unwrap().unwrap());
        bytes = capture.bytes();
        copy.push(t);
        let plain = folder.join(format!("plain{round}"));
        write.push(seconds(|| write_plain(&plain, bytes)).0);
        save.push(seconds(|| store.commit(&capture).unwrap()).0);
        evict_cache(&plain);
        read.push(seconds(|| read_plain(&plain)).0);
        std::fs::read_dir(folder.join("rates/nodes")).unwrap().for_each(|f| evict_cache(&f.unwrap().path()));
        let (t, restored) = seconds(|| store.restore(&layout, &tokens, &mut rows));
        assert_eq!(restored.tokens, TOKENS as u64);
        restore.push(t);
        store.gc(0).unwrap();
        std::fs::remove_file(&plain).unwrap();
    }
    // A busy machine changes from round to round: shares are of neighbours in time.
    let share = |plain: &[f64], ours: &[f64]| {
        100. * median(plain.iter().zip(ours).map(|(plain, ours)| plain / ours).collect())
    };
    let shares = [share(&write, &save), share(&read, &restore)];
    let [write, save, copy, read, restore] =
        [write, save, copy, read, restore].map(|t| bytes as f64 / median(t) / 1e6);
    println!("{TOKENS} tokens of Flash: {bytes} bytes, {:.1} a token", bytes as f64 / TOKENS as f64);
    println!("copy out at the boundary {copy:.0} MB/s");
    println!("plain write {write:.0} MB/s, save {save:.0} MB/s, share {:.0} %", shares[0]);
    println!("plain read {read:.0} MB/s, restore {restore:.0} MB/s, share {:.0} %", shares[1]);
}

fn write_plain(path: &Path, bytes: u64) {
    let block = vec![0xA5; 1 << 20];
    let file = RealDisk.open(path, How::Fresh).unwrap();
    let mut at = 0;
    while at < bytes {
        let n = (bytes - at).min(block.len() as u64);
        file.write_at(&block[..n as usize], at).unwrap();
        at += n;
    }
    file.sync().unwrap();
}

fn read_plain(path: &Path) {
    let mut block = vec![0; 1 << 20];
    let file = RealDisk.open(path, How::Read).unwrap();
    let mut at = 0;
    loop {
        let n = file.read_at(&mut block, at).unwrap();
        at += n as u64;
        if n < block.len() {
            break;
        }
    }
}

/// Makes the next reading of a file come from the disk.
fn evict_cache(path: &PathBuf) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open(path).unwrap();
        // SAFETY: advises on a descriptor that is open; touches no memory of ours.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path; // The figures are then of cached files, and the plain ones too.
}

/// How much slower work in memory gets while a save runs.
fn beside(folder: &Path) {
    let schema = flash();
    let layout = Layout::new([0; 32], &schema, LOGITS);
    let rows = Rows::new(&schema, TOKENS as u64);
    let store = Arc::new(open(RealDisk, &folder.join("beside")));
    let writer = Writer::start(Arc::clone(&store)).unwrap();
    let data = vec![3u8; 4 << 20];
    let step = || seconds(|| blake3::hash(&data)).0;
    let (mut alone, mut during) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        alone.extend((0..30).map(|_| step()));
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|t| t ^ round << 20).collect();
        let logits = vec![0.5; LOGITS];
        let boundary = Boundary { tokens: &tokens, logits: &logits, seconds_per_token: 0.1 };
        let capture = store.capture(&layout, boundary, &rows).unwrap().unwrap();
        let Ok(ticket) = writer.save(capture) else { panic!("nothing else is queued") };
        let done = std::thread::spawn(|| ticket.wait().unwrap());
        while !done.is_finished() {
            during.push(step());
        }
        done.join().unwrap();
    }
    let (alone, during) = (median(alone), median(during));
    println!("a step of work beside a save takes {:+.1} %", 100. * (during / alone - 1.));
}

/// Look-ups and restores with few and with many sessions in the folder.
fn look_ups(folder: &Path) {
    let state = StateType { kind: StateKind::Entries(4), scalar: Scalar::Kv8 { rope: 64 }, width: 512 };
    let schema = vec![("rows".to_string(), state)];
    let layout = Layout::new([0; 32], &schema, 8);
    let mut rows = Rows::new(&schema, 4096);
    let folder = folder.join("many");
    let text = |session: u32| -> Vec<u32> {
        // All sessions share a system prompt of 1,024 tokens.
        (0..1024).chain((0..512).map(|t| t + 100_000 + session * 512)).collect()
    };
    let fill = |store: &Store, rows: &Rows, sessions: Range<u32>| {
        for session in sessions {
            let tokens = text(session);
            for n in [1024, 1280, 1536] {
                let boundary = Boundary { tokens: &tokens[..n], logits: &[0.0; 8], seconds_per_token: 0.1 };
                if let Some(capture) = store.capture(&layout, boundary, rows).unwrap() {
                    store.commit(&capture).unwrap();
                }
            }
        }
    };
    for (from, to) in [(0, 10), (10, SESSIONS)] {
        fill(&open(Unsynced, &folder), &rows, from..to);
        let opened = median((0..ROUNDS).map(|_| seconds(|| open(RealDisk, &folder)).0).collect());
        let store = open(RealDisk, &folder);
        let queries: Vec<Vec<u32>> = (0..100).map(|i| text(i * 7919 % to)).collect();
        let found =
            median(queries.iter().map(|q| seconds(|| assert_eq!(store.find(&layout, q), 1536)).0).collect());
        let mut restore = |q: &Vec<u32>| seconds(|| store.restore(&layout, q, &mut rows)).0;
        let restored = median(queries.iter().map(&mut restore).collect());
        println!(
            "{to} sessions: open {:.2} ms, look-up {:.1} us, restore of 1536 tokens {:.2} ms",
            opened * 1e3,
            found * 1e6,
            restored * 1e3
        );
    }
}

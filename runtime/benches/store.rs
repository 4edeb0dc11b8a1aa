//! Speed of the store on the disk that holds the temporary folder, with the states of Flash. Shares
//! are of plain sequential writing and reading just before and just after, and their median is told
//! with the quarter below and above it, so that other work on the machine matters little.
//!
//! `cargo bench -p ds4-runtime --bench store`; words behind `--` choose parts: `rates`, `many`. `TMPDIR`
//! chooses the disk. What decoding notices of a save is another bench: `cargo bench --bench beside`.
mod flash;

use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{Boundary, Disk, DiskFile, How, Layout, Lock, Options, RealDisk, Store};
use flash::{LOGITS, Rows, median, noise, seconds};
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Length of the session.
const TOKENS: usize = 65_536;
/// Distance of the boundaries that `ds4` keeps while it reads a prompt.
const STEP: usize = 512;
const ROUNDS: usize = 7;
/// Readings of each file.
const READINGS: usize = 4;
const SESSIONS: u32 = 10_000;

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
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let folder = std::env::temp_dir().join(format!("ds4-store-bench-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, part) in [("rates", rates as fn(&Path)), ("many", look_ups)] {
        if chosen.is_empty() || chosen.iter().any(|c| c == name) {
            part(&folder);
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn open(disk: impl Disk + 'static, folder: &Path) -> Store {
    Store::open(Arc::new(disk), folder, Options { budget: u64::MAX / 2, ..Options::default() }).unwrap()
}

fn tokens(round: usize) -> Vec<u32> {
    (0..TOKENS as u32).map(|t| t ^ (round as u32) << 20).collect()
}

/// Pairs of what a plain file took, before and after, and what the store took between.
#[derive(Default)]
struct Pairs {
    plain: Vec<f64>,
    ours: Vec<f64>,
    /// Processor seconds of the same.
    work: [Vec<f64>; 2],
}

impl Pairs {
    fn measure(&mut self, mut plain: impl FnMut() -> f64, ours: impl FnOnce() -> f64) {
        let (before, work) = (plain(), processor());
        self.ours.push(ours());
        self.work[1].push(processor() - work);
        let work = processor();
        self.plain.push((before + plain()) / 2.0);
        self.work[0].push(processor() - work);
    }

    /// Measures several times. The first is about where the system finds memory, so it does not count.
    fn repeat(&mut self, mut plain: impl FnMut() -> f64, mut ours: impl FnMut() -> f64) {
        Pairs::default().measure(&mut plain, &mut ours);
        (1..READINGS).for_each(|_| self.measure(&mut plain, &mut ours));
    }

    fn tell(&self, what: &str, bytes: u64) {
        let mut shares: Vec<f64> = self.plain.iter().zip(&self.ours).map(|(p, o)| 100.0 * p / o).collect();
        shares.sort_by(f64::total_cmp);
        let quarter = |n: usize| shares[(shares.len() - 1) * n / 4];
        let rate = |t: &Vec<f64>| bytes as f64 / median(t.clone()) / 1e6;
        println!(
            "{what}: {:.0} MB/s, plain {:.0} MB/s, share {:.0} % ({:.0} to {:.0}); processor {:.0} ms, plain {:.0} ms",
            rate(&self.ours),
            rate(&self.plain),
            quarter(2),
            quarter(1),
            quarter(3),
            1e3 * median(self.work[1].clone()),
            1e3 * median(self.work[0].clone())
        );
    }
}

/// Processor seconds of all threads so far, the system's work for them included; 0 where unknown.
fn processor() -> f64 {
    #[cfg(unix)]
    {
        // SAFETY: all fields are numbers, for which zero is a value; the call fills them.
        let used = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut used);
            used
        };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
        seconds(used.ru_utime) + seconds(used.ru_stime)
    }
    #[cfg(not(unix))]
    0.0
}

/// Saving and restoring beside plain sequential writing and reading.
fn rates(folder: &Path) {
    let schema = flash::schema();
    let layout = Layout::new([0; 32], &schema, LOGITS);
    let mut rows = Rows::new(&schema, TOKENS as u64);
    let logits = vec![0.5; LOGITS];
    let data = noise(8 << 20);
    let [mut save, mut whole, mut warm, mut grown, mut pieces] = std::array::from_fn(|_| Pairs::default());
    let (mut bytes, mut bytes_grown) = (0, 0);
    for round in 0..ROUNDS {
        let tokens = tokens(round);
        let plain = folder.join("plain");
        // In one piece: a session that was restored elsewhere or taken from a bundle.
        let at = folder.join(format!("whole{round}"));
        let store = open(RealDisk, &at);
        let boundary = Boundary { tokens: &tokens, logits: &logits, seconds_per_token: 0.1 };
        let capture = store.capture(&layout, boundary, &rows).unwrap().unwrap();
        bytes = capture.bytes();
        save.measure(|| write_plain(&plain, &data, bytes), || seconds(|| store.commit(&capture).unwrap()).0);
        drop(capture);
        let mut restore = |store: &Store| {
            let (time, restored) = seconds(|| store.restore(&layout, &tokens, &mut rows));
            assert_eq!(restored.tokens, TOKENS as u64);
            time
        };
        let mut cold = || {
            forget(&at);
            restore(&store)
        };
        whole.repeat(|| read_plain(&plain, bytes, true), &mut cold);
        warm.measure(|| read_plain(&plain, bytes, false), || restore(&store));
        drop(store);
        std::fs::remove_dir_all(&at).unwrap();

        // As it grew: a piece for each step of the prompt.
        let at = folder.join(format!("grown{round}"));
        let store = open(Unsynced, &at);
        for n in (STEP..=TOKENS).step_by(STEP) {
            let boundary = Boundary { tokens: &tokens[..n], logits: &logits, seconds_per_token: 0.1 };
            let capture = store.capture(&layout, boundary, &rows).unwrap().unwrap();
            store.commit(&capture).unwrap();
        }
        let nodes = store.list().unwrap();
        let last = nodes.iter().find(|n| n.end == TOKENS as u64).expect("saved last").key;
        bytes_grown = nodes.iter().map(|n| n.rows + if n.end == TOKENS as u64 { n.edge } else { 0 }).sum();
        let mut restore = |store: &Store| {
            let (time, restored) = seconds(|| store.restore(&layout, &tokens, &mut rows));
            assert_eq!(restored.tokens, TOKENS as u64);
            time
        };
        let mut cold = || {
            forget(&at);
            restore(&store)
        };
        grown.repeat(|| read_plain(&plain, bytes_grown, true), &mut cold);
        let used = nodes.iter().map(|n| (n.key, "rows")).chain([(last, "edge")]);
        let files: Vec<PathBuf> =
            used.map(|(key, kind)| at.join("nodes").join(format!("{key}.{kind}"))).collect();
        pieces.repeat(|| files.iter().map(|f| read_plain(f, u64::MAX, true)).sum(), &mut cold);
        drop(store);
        std::fs::remove_dir_all(&at).unwrap();
        std::fs::remove_file(&plain).unwrap();
    }
    println!("{TOKENS} tokens of Flash: {bytes} bytes, {:.1} a token", bytes as f64 / TOKENS as f64);
    save.tell("save", bytes);
    whole.tell("restore", bytes);
    grown.tell(&format!("restore of {} pieces", TOKENS / STEP), bytes_grown);
    pieces.tell("  beside plain reading of the same files", bytes_grown);
    warm.tell("restore from memory", bytes);
}

/// Seconds to write and sync a file of `bytes` bytes.
fn write_plain(path: &Path, data: &[u8], bytes: u64) -> f64 {
    drop(std::fs::remove_file(path));
    let block = 1 << 20;
    seconds(|| {
        let file = RealDisk.open(path, How::Fresh).unwrap();
        let mut at = 0;
        while at < bytes {
            let n = (bytes - at).min(block) as usize;
            let from = at as usize % data.len();
            file.write_at(&data[from..from + n], at).unwrap();
            at += n as u64;
        }
        file.sync().unwrap();
    })
    .0
}

/// Seconds to read a file, at most `bytes` bytes of it; `cold`: from the disk.
fn read_plain(path: &Path, bytes: u64, cold: bool) -> f64 {
    if cold {
        evict_cache(path);
    }
    let mut block = vec![1; 1 << 20];
    seconds(|| {
        let file = RealDisk.open(path, How::Read).unwrap();
        let mut at = 0;
        while at < bytes {
            let n = (bytes - at).min(block.len() as u64) as usize;
            match file.read_at(&mut block[..n], at).unwrap() {
                0 => break,
                n => at += n as u64,
            }
        }
    })
    .0
}

/// Makes the next restore from a store come from the disk.
fn forget(store: &Path) {
    std::fs::read_dir(store.join("nodes")).unwrap().for_each(|f| evict_cache(&f.unwrap().path()));
}

/// Makes the next reading of a file come from the disk.
fn evict_cache(path: &Path) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open(path).unwrap();
        // What is not on the disk yet stays in memory.
        file.sync_all().unwrap();
        // SAFETY: advises on a descriptor that is open; touches no memory of ours.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path; // The figures are then of cached files, and the plain ones too.
}

/// Opening, look-ups, restores, misses and saves with few and with many sessions in the folder.
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
    let save = |store: &Store, rows: &Rows, tokens: &[u32]| {
        let boundary = Boundary { tokens, logits: &[0.0; 8], seconds_per_token: 0.1 };
        store.capture(&layout, boundary, rows).unwrap().map(|capture| store.commit(&capture).unwrap())
    };
    for (from, to) in [(0, 10), (10, SESSIONS)] {
        let store = open(Unsynced, &folder);
        for session in from..to {
            let tokens = text(session);
            for n in [1024, 1280, 1536] {
                save(&store, &rows, &tokens[..n]);
            }
        }
        drop(store);
        let each = |work: &mut dyn FnMut(u32) -> f64| median((0..100).map(|i| work(i * 7919 % to)).collect());
        let opened = median((0..ROUNDS).map(|_| seconds(|| open(RealDisk, &folder)).0).collect());
        let store = open(Unsynced, &folder);
        let found = each(&mut |i| {
            let query = text(i);
            seconds(|| assert_eq!(store.find(&layout, &query), 1536)).0
        });
        let mut restore = |tokens: &[u32], expected: u64| {
            let (time, restored) = seconds(|| store.restore(&layout, tokens, &mut rows));
            assert_eq!(restored.tokens, expected);
            time
        };
        let whole = each(&mut |i| restore(&text(i), 1536));
        // Another question behind the shared prompt: what differs has to be told.
        let other = each(&mut |i| restore(&[&text(0)[..1024], &[i + 90_000_000; 40]].concat(), 1024));
        // Of a new process: the folder is compared with the index.
        let fresh = |i: usize| {
            let store = open(Unsynced, &folder);
            seconds(|| save(&store, &rows, &[i as u32 + 80_000_000 + to; 40])).0
        };
        let first = median((0..ROUNDS).map(fresh).collect());
        println!(
            "{to} sessions: open {:.2} ms, look-up {:.1} us, restore of 1536 tokens {:.2} ms, of the shared 1024 {:.2} ms, first save {:.1} ms",
            opened * 1e3,
            found * 1e6,
            whole * 1e3,
            other * 1e3,
            first * 1e3
        );
    }
}

//! Speed of the store on the disk that holds the temporary folder, with the states of Flash. Shares
//! are of plain sequential writing and reading just before and just after, and their median is told
//! with the quarter below and above it, so that other work on the machine matters little.
//!
//! `cargo bench -p ds4-runtime --bench store`; words behind `--` choose parts: `rates`, `many`. `TMPDIR`
//! chooses the disk. Prints tables. What decoding notices of a save is another bench: `cargo bench --bench beside`.
mod altered;
mod flash;

use altered::Altered;
use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{Boundary, Disk, How, Layout, Options, RealDisk, StateRows, Store};
use flash::{LOGITS, Rows, median, noise, seconds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Length of the session.
const TOKENS: usize = 65_536;
/// Distance of the boundaries that `ds4` keeps while it reads a prompt.
const STEP: usize = 512;
const ROUNDS: usize = 9;
const SESSIONS: u32 = 10_000;

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

/// Saves the boundaries at `positions`.
fn save(store: &Store, layout: &Layout, tokens: &[u32], positions: &[usize], rows: &dyn StateRows) {
    for n in positions {
        let logits = vec![0.5; layout.logits() as usize];
        let boundary = Boundary { tokens: &tokens[..*n], logits: &logits, seconds_per_token: 0.1 };
        let capture = store.capture(layout, boundary, rows).expect("a disk that works");
        capture.map(|capture| store.commit(&capture).expect("a disk that works"));
    }
}

/// Pairs of what a plain file took, before and after, and what the store took between.
#[derive(Default)]
struct Pairs {
    plain: Vec<f64>,
    ours: Vec<f64>,
}

impl Pairs {
    fn measure(&mut self, mut plain: impl FnMut() -> f64, ours: impl FnOnce() -> f64) {
        let before = plain();
        self.ours.push(ours());
        self.plain.push((before + plain()) / 2.0);
    }

    /// A line of the table. The first pair is of a machine that has yet to find its memory: it does not count.
    fn tell(&self, what: &str, bytes: u64) {
        let (plain, ours) = (&self.plain[1..], &self.ours[1..]);
        let mut shares: Vec<f64> = plain.iter().zip(ours).map(|(p, o)| 100.0 * p / o).collect();
        shares.sort_by(f64::total_cmp);
        let quarter = |n: usize| shares[(shares.len() - 1) * n / 4];
        let rate = |times: &[f64]| bytes as f64 / median(times.to_vec()) / 1e6;
        let (ours, plain) = (rate(ours), rate(plain));
        let (low, middle, high) = (quarter(1), quarter(2), quarter(3));
        println!("| {what} | {ours:.0} MB/s | {plain:.0} MB/s | {middle:.0} % ({low:.0} to {high:.0}) |");
    }
}

/// Saving and restoring beside plain sequential writing and reading.
fn rates(folder: &Path) {
    let schema = flash::schema();
    let layout = Layout::new([0; 32], &schema, LOGITS);
    let mut rows = Rows::new(&schema, TOKENS as u64);
    let logits = vec![0.5; LOGITS];
    let data = noise(8 << 20);
    let (plain, plain_grown) = (folder.join("plain"), folder.join("plain-grown"));
    let [mut saved, mut whole, mut warm, mut grown, mut pieces] = std::array::from_fn(|_| Pairs::default());

    // As a session grows: a piece for each step of its prompt.
    let at = folder.join("grown");
    let steps: Vec<usize> = (STEP..=TOKENS).step_by(STEP).collect();
    save(&open(Altered::unsynced(|_| false), &at), &layout, &tokens(ROUNDS), &steps, &rows);
    let store_grown = open(RealDisk, &at);
    let nodes = store_grown.list().expect("a store");
    let last = nodes.iter().find(|n| n.end == TOKENS as u64).expect("saved last");
    let bytes_grown = nodes.iter().map(|n| n.rows).sum::<u64>() + last.edge;
    let mut in_order: Vec<_> = nodes.iter().map(|n| (n.end, n.key, "rows")).collect();
    in_order.sort();
    in_order.push((last.end, last.key, "edge"));
    let file = |(_, key, kind)| at.join("nodes").join(format!("{key}.{kind}"));
    let files: Vec<PathBuf> = in_order.into_iter().map(file).collect();
    write_plain(&plain_grown, &data, bytes_grown);

    let mut bytes = 0;
    for round in 0..ROUNDS {
        let mut restore = |store: &Store, tokens: &[u32], forgotten: &[PathBuf]| {
            forgotten.iter().for_each(|file| forget(file));
            let (time, restored) = seconds(|| store.restore(&layout, tokens, &mut rows));
            assert_eq!(restored.tokens, TOKENS as u64);
            time
        };
        let cold_grown = &mut || restore(&store_grown, &tokens(ROUNDS), &files);
        grown.measure(|| read_plain(&[&plain_grown], true), &mut *cold_grown);
        let all: Vec<&PathBuf> = files.iter().collect();
        pieces.measure(|| read_plain(&all, true), cold_grown);

        // In one piece: a session that was restored elsewhere or taken from a bundle.
        let tokens = tokens(round);
        let at = folder.join("whole");
        let store = open(RealDisk, &at);
        let boundary = Boundary { tokens: &tokens, logits: &logits, seconds_per_token: 0.1 };
        let capture = store.capture(&layout, boundary, &rows).expect("a disk that works").expect("a new one");
        bytes = capture.bytes();
        let commit = || seconds(|| store.commit(&capture).expect("a disk that works")).0;
        saved.measure(|| write_plain(&plain, &data, bytes), commit);
        drop(capture);
        let files: Vec<PathBuf> = std::fs::read_dir(at.join("nodes"))
            .expect("a folder")
            .map(|f| f.expect("a file").path())
            .collect();
        let mut restore = |forgotten: &[PathBuf]| {
            forgotten.iter().for_each(|file| forget(file));
            let (time, restored) = seconds(|| store.restore(&layout, &tokens, &mut rows));
            assert_eq!(restored.tokens, TOKENS as u64);
            time
        };
        // The first reading of a file just written is about where the system finds memory.
        Pairs::default().measure(|| read_plain(&[&plain], true), || restore(&files));
        whole.measure(|| read_plain(&[&plain], true), || restore(&files));
        warm.measure(|| read_plain(&[&plain], false), || restore(&[]));
        drop(store);
        std::fs::remove_dir_all(&at).expect("the folder is ours");
    }
    println!("| {TOKENS} tokens of Flash, {bytes} bytes | store | plain file | share |\n|---|---|---|---|");
    saved.tell("save", bytes);
    whole.tell("restore", bytes);
    grown.tell(&format!("restore of {} pieces", TOKENS / STEP), bytes_grown);
    pieces.tell("the same, beside plain reading of these files", bytes_grown);
    warm.tell("restore from memory", bytes);
}

/// Seconds to write and sync a file of `bytes` bytes.
///
/// The one that it replaces goes afterwards: its memory would come as a gift, where the store's files take
/// memory that the system, and below a virtual machine another one, has to find first.
fn write_plain(path: &Path, data: &[u8], bytes: u64) -> f64 {
    let (block, new) = (1 << 20, path.with_extension("new"));
    let (time, ()) = seconds(|| {
        let file = RealDisk.open(&new, How::Fresh).unwrap();
        let mut at = 0;
        while at < bytes {
            let n = (bytes - at).min(block) as usize;
            let from = at as usize % data.len();
            file.write_at(&data[from..from + n], at).unwrap();
            at += n as u64;
        }
        file.sync().unwrap();
    });
    RealDisk.rename(&new, path).unwrap();
    time
}

/// Seconds to read files one after the other; `cold`: from the disk.
fn read_plain(paths: &[&PathBuf], cold: bool) -> f64 {
    if cold {
        paths.iter().for_each(|path| forget(path));
    }
    let mut block = vec![1; 1 << 20];
    let mut read = |path: &PathBuf| {
        let file = RealDisk.open(path, How::Read).unwrap();
        let mut at = 0;
        loop {
            match file.read_at(&mut block, at).unwrap() {
                0 => break,
                n => at += n as u64,
            }
        }
    };
    seconds(|| paths.iter().for_each(|path| read(path))).0
}

/// Makes the next reading of a file come from the disk.
fn forget(path: &Path) {
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
    let quick = || open(Altered::unsynced(|_| false), &folder);
    println!(
        "| sessions | open | look-up | restore of 1,536 tokens | of the shared 1,024, with the reason | first save of a process |\n|---|---|---|---|---|---|"
    );
    for (from, to) in [(0, 10), (10, SESSIONS)] {
        let store = quick();
        (from..to).for_each(|i| save(&store, &layout, &text(i), &[1024, 1280, 1536], &rows));
        drop(store);
        let each = |work: &mut dyn FnMut(u32) -> f64| median((0..100).map(|i| work(i * 7919 % to)).collect());
        let opened = median((0..ROUNDS).map(|_| seconds(|| open(RealDisk, &folder)).0).collect());
        let store = quick();
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
            let store = quick();
            let tokens = [i as u32 + 80_000_000 + to; 40];
            seconds(|| save(&store, &layout, &tokens, &[40], &rows)).0
        };
        let first = median((0..ROUNDS).map(fresh).collect());
        println!(
            "| {to} | {:.2} ms | {:.0} µs | {:.2} ms | {:.2} ms | {:.1} ms |",
            opened * 1e3,
            found * 1e6,
            whole * 1e3,
            other * 1e3,
            first * 1e3
        );
    }
}

//! The store's index, a log held in memory, beside the same index in redb, with 10,000 sessions: opening,
//! looking up, changing and sharing it between processes, and what one damaged byte or page does.
//!
//! `cargo run --release --manifest-path benches/index/Cargo.toml --target-dir target/index`; `TMPDIR` chooses
//! the disk. Prints a table.
#[path = "../../../runtime/benches/altered/mod.rs"]
mod altered;
mod damage;
mod log;
mod share;
mod tree;

use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::Layout;
use log::Log;
use std::path::Path;
use std::time::Instant;
use tree::Tree;

const SESSIONS: u32 = 10_000;
const CHANGES: u32 = 200;

type Failure = Box<dyn std::error::Error>;

/// What both indexes do.
trait Index {
    /// Opens the index in a folder in which one was laid down.
    fn open(folder: &Path) -> Self;
    /// The longest kept prefix, changes by other processes included.
    fn find(&self, tokens: &[u32]) -> u64;
    /// Puts a boundary at the end of `tokens`, whose first [`SHARED`] and [`LONG`] are kept, durably.
    fn put(&self, tokens: &[u32]);
}

/// Tokens of the system prompt that all sessions share; boundaries are there, [`STEP`] behind and at the end.
const SHARED: usize = 1024;
const STEP: usize = 256;
const LONG: usize = SHARED + 2 * STEP;

fn text(session: u32) -> Vec<u32> {
    let own = (0..LONG as u32).map(|t| t + 100_000 + session * LONG as u32);
    (0..SHARED as u32).chain(own).take(LONG).collect()
}

/// A session that goes on with other tokens for each number.
fn longer(session: u32, number: u32) -> Vec<u32> {
    [text(session), vec![number; 40]].concat()
}

/// States of next to nothing: the index is at work, not the files.
fn layout() -> Layout {
    let state = StateType { kind: StateKind::Ring(1), scalar: Scalar::F32, width: 1 };
    Layout::new([0; 32], &[("ring".to_string(), state)], 1)
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(times: impl IntoIterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = times.into_iter().collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A line of the table: milliseconds of the log and of redb.
fn line(what: &str, log: f64, tree: f64) {
    println!("| {what} | {:.3} ms | {:.3} ms |", 1e3 * log, 1e3 * tree);
}

fn open<I: Index>(folder: &Path) -> f64 {
    median((0..15).map(|_| seconds(|| drop(I::open(folder)))))
}

fn look_up<I: Index>(index: &I) -> f64 {
    median((0..500).map(|i| {
        let tokens = text(i * 7919 % SESSIONS);
        seconds(|| assert_eq!(index.find(&tokens), LONG as u64))
    }))
}

fn change<I: Index>(index: &I) -> f64 {
    // The first change of the log compares the folder with it.
    index.put(&longer(0, u32::MAX));
    median((0..CHANGES).map(|i| {
        let tokens = longer(i * 7919 % SESSIONS, i);
        seconds(|| index.put(&tokens))
    }))
}

fn main() -> Result<(), Failure> {
    if share::is_child() {
        return share::child();
    }
    let folder = std::env::temp_dir().join(format!("ds4-index-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder)?;
    let nodes = log::lay_down(&folder, SESSIONS);
    tree::lay_down(&folder, &nodes)?;

    println!("| {} boundaries of {SESSIONS} sessions | log | redb |\n|---|---|---|", nodes.len());
    line("open", open::<Log>(&folder), open::<Tree>(&folder));
    line("open, every checksum verified", open::<Log>(&folder), open::<tree::Checked>(&folder));
    let (log, tree) = (Log::open(&folder), Tree::open(&folder));
    line(&format!("longest kept prefix of {LONG} tokens"), look_up(&log), look_up(&tree));
    line("one durable change", change(&log), change(&tree));
    drop((log, tree));
    line(
        &format!("a change while two processes make {CHANGES} each"),
        share::at_once("log", &folder)?,
        share::at_once("redb", &folder)?,
    );
    line(
        "longest prefix, just after another process's change",
        share::follow::<Log>("log", &folder)?,
        share::follow::<Tree>("redb", &folder)?,
    );
    let [log, tree] = ["kv/index", "redb"].map(|name| std::fs::metadata(folder.join(name)).map(|m| m.len()));
    println!("| bytes | {} | {} |", log?, tree?);
    damage::tell(&folder)?;
    Ok(std::fs::remove_dir_all(&folder)?)
}

//! What becomes of an index in which a bit was turned over or a page was lost.
use crate::log::{Log, lay_down};
use crate::tree::{self, NODES};
use crate::{Failure, Index, LONG, text};
use ds4_runtime::store::Node;
use redb::{ReadableDatabase, ReadableTable};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const SESSIONS: u32 = 300;
const DAMAGES: u64 = 1_000;

/// How often each thing happened.
#[derive(Default)]
struct Counts {
    harmless: u32,
    told: u32,
    wrong: u32,
    panics: u32,
}

/// Prints lines of the table.
pub fn tell(folder: &Path) -> Result<(), Failure> {
    let folder = folder.join("damage");
    std::fs::create_dir(&folder)?;
    let nodes = lay_down(&folder, SESSIONS);
    tree::lay_down(&folder, &nodes)?;
    let log = counts(&folder.join("kv/index"), || log_is_right(&folder))?;
    let redb = folder.join("redb");
    let plain = counts(&redb, || tree_is_right(&redb, false, &nodes))?;
    let checked = counts(&redb, || tree_is_right(&redb, true, &nodes))?;
    let say = |c: &Counts| {
        format!("{} told, {} harmless, {} wrong unnoticed, {} panics", c.told, c.harmless, c.wrong, c.panics)
    };
    let (log, plain, checked) = (say(&log), say(&plain), say(&checked));
    println!("| {DAMAGES} damaged copies, each opened and read | {log} | {plain} |");
    println!("| the same, every checksum verified when opened | {log} | {checked} |");
    Ok(())
}

/// Damages the file in many ways; `look` says whether all it says is right, an error tells of the damage.
fn counts(path: &Path, look: impl Fn() -> Result<bool, Failure>) -> Result<Counts, Failure> {
    let whole = std::fs::read(path)?;
    let mut counts = Counts::default();
    // A panic is counted, not shown.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    for round in 0..DAMAGES {
        std::fs::write(path, damaged(&whole, round))?;
        match catch_unwind(AssertUnwindSafe(&look)) {
            Ok(Ok(true)) => counts.harmless += 1,
            Ok(Ok(false)) => counts.wrong += 1,
            Ok(Err(_)) => counts.told += 1,
            Err(_) => counts.panics += 1,
        }
    }
    std::panic::set_hook(hook);
    std::fs::write(path, whole)?;
    Ok(counts)
}

/// In turn a bit turned over and a page of zeros, spread over the file.
fn damaged(whole: &[u8], round: u64) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let at = (round.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16) as usize % bytes.len();
    if round.is_multiple_of(2) {
        bytes[at] ^= 1 << (round / 2 % 8);
    } else {
        let page = at - at % 4096;
        let end = bytes.len().min(page + 4096);
        bytes[page..end].fill(0);
    }
    bytes
}

/// Told or not, everything has to be found: the headers of the files say it again.
fn log_is_right(folder: &Path) -> Result<bool, Failure> {
    let log = Log::open(folder);
    let told = !log.0.take_warnings().is_empty();
    log.0.gc(u64::MAX)?;
    let right = (0..SESSIONS).all(|session| log.find(&text(session)) == LONG as u64);
    if told && right { Err("told".into()) } else { Ok(right) }
}

fn tree_is_right(path: &Path, checked: bool, nodes: &[Node]) -> Result<bool, Failure> {
    let db = tree::open(path, checked)?;
    let table = db.begin_read()?.open_table(NODES)?;
    let mut count = 0;
    for entry in table.iter()? {
        entry?;
        count += 1;
    }
    let mut right = count == nodes.len();
    for node in nodes {
        let record = table.get(node.key.0)?;
        right &= record.is_some_and(|r| r.value() == tree::record(&node.parent, &node.block));
    }
    Ok(right)
}

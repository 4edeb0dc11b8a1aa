//! What decoding notices of a save: tokens of a model on all cores while the states of 65,536 tokens of Flash,
//! 236 MB, are being saved, the save held up and let go on in turn, many times a second; and what a decoding
//! thread spends on keeping, the copy at a boundary and the journal.
//!
//! `cargo bench --bench beside`, or behind `--` a model other than the bundled demo. `TMPDIR` chooses the
//! disk.
#[path = "../runtime/benches/altered/mod.rs"]
mod altered;
#[path = "../runtime/benches/flash/mod.rs"]
mod flash;

use altered::Altered;
use ds4::open::{Wish, open};
use ds4_runtime::store::{Boundary, Journal, Layout, Options, Store, Writer};
use ds4_runtime::{Session, Want};
use flash::{LOGITS, Rows, median, seconds};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Length of the saved session, and of the step to the boundary before.
const TOKENS: usize = 65_536;
const STEP: usize = 512;
const ROUNDS: usize = 12;
/// How long tokens are measured with the save going on, and how long without, in turn: a machine that
/// others use changes its pace more slowly than that.
const SLICE: Duration = Duration::from_millis(200);
/// Not measured after each change: what was handed to the disk before is on its way.
const SETTLE: Duration = Duration::from_millis(40);

/// Holds a save up before its next write.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, open: bool) {
        *self.open.lock().expect("no panic while locked") = open;
        self.changed.notify_all();
    }

    /// What the disk asks before each write. Journals pass.
    fn pass(&self) {
        if std::thread::current().name() == Some("store save") {
            let open = self.open.lock().expect("no panic while locked");
            drop(self.changed.wait_while(open, |open| !*open).expect("no panic while locked"));
        }
    }
}

/// A model that decodes.
struct Decoder {
    session: Session,
    journal: Journal,
}

impl Decoder {
    /// Seconds of one token, journaled as `ds4` does.
    fn token(&mut self) -> f64 {
        if self.session.position() + 1 >= u64::from(self.session.engine().module().ctx).min(2048) {
            self.session.reset();
        }
        let never = AtomicBool::new(false);
        seconds(|| {
            self.journal.append(&[7]).expect("a disk that works");
            self.session.advance(&[7], Want::Last, 1, &never, &mut |_| ()).expect("room for a token");
        })
        .0
    }

    /// Seconds of a token, on average over as many as `time` takes.
    fn pace(&mut self, time: Duration) -> f64 {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            times.push(self.token());
        }
        times.iter().sum::<f64>() / times.len() as f64
    }
}

/// By how many percent a token beside a save takes longer, slice by slice: the pace of each slice with the
/// save over that of the slices without it just before and just after.
fn slower(decoder: &mut Decoder, gate: &Gate, saved: &dyn Fn() -> bool) -> Vec<f64> {
    let mut slice = |open| {
        gate.set(open);
        decoder.pace(SETTLE);
        decoder.pace(SLICE)
    };
    let (mut percents, mut before) = (Vec::new(), slice(false));
    loop {
        let beside = slice(true);
        if saved() {
            return percents; // It ended somewhere within this slice.
        }
        let after = slice(false);
        percents.push(100.0 * (2.0 * beside / (before + after) - 1.0));
        before = after;
    }
}

/// A line of the table: median and average, each with the bounds between which it lies by 19 chances in 20.
fn tell(mut percents: Vec<f64>) -> String {
    percents.sort_by(f64::total_cmp);
    let n = percents.len() as f64;
    let rank = |r: f64| percents[r.clamp(0.0, n - 1.0) as usize];
    let mean = percents.iter().sum::<f64>() / n;
    let deviation = (percents.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let (ranks, error) = (0.98 * n.sqrt(), 1.96 * deviation / n.sqrt());
    let half = (n - 1.0) / 2.0;
    format!(
        "| a token beside a save, {n} slices of {SLICE:?} | median {:+.1} % ({:+.1} to {:+.1}), average {mean:+.1} % ({:+.1} to {:+.1}) |",
        rank(half.round()),
        rank((half - ranks).floor()),
        rank((half + ranks).ceil()),
        mean - error,
        mean + error,
    )
}

fn main() {
    let model = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let opened = open(model.as_ref().map(Path::new), &Wish::default()).expect("a model");
    let session = opened.engine(0).and_then(|e| Ok(e.session()?)).expect("a session");
    let folder = std::env::temp_dir().join(format!("ds4-beside-{}", std::process::id()));
    let options = Options { budget: u64::MAX / 2, ..Options::default() };
    let gate = Arc::new(Gate::default());
    let at_gate = Arc::clone(&gate);
    let disk = Altered { syncs: |_| true, before_write: Arc::new(move || at_gate.pass()) };
    let store = Arc::new(Store::open(Arc::new(disk), &folder, options).expect("a folder"));
    let writer = Writer::start(Arc::clone(&store)).expect("threads");
    let journal = store.create_session(&session.layout(), "beside", &[]).expect("a disk that works");

    let schema = flash::schema();
    let layout = Layout::new([0; 32], &schema, LOGITS);
    let rows = Rows::new(&schema, TOKENS as u64);
    let logits = vec![0.5; LOGITS];
    let mut decoder = Decoder { session, journal };
    decoder.pace(5 * SLICE);
    let (mut percents, mut copies) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|t| t ^ round << 20).collect();
        let boundary = |n: usize| Boundary { tokens: &tokens[..n], logits: &logits, seconds_per_token: 0.1 };
        let capture =
            |n| store.capture(&layout, boundary(n), &rows).expect("a store").expect("a new boundary");
        gate.set(false);
        let Ok(ticket) = writer.save(capture(TOKENS - STEP)) else { panic!("nothing else is queued") };
        let saved = std::thread::spawn(move || ticket.wait().expect("a disk that works"));
        percents.extend(slower(&mut decoder, &gate, &|| saved.is_finished()));
        saved.join().expect("no panic");
        copies.push(seconds(|| drop(capture(TOKENS))).0);
        store.gc(0).ok(); // What is being served stays; the disk does not fill.
    }
    println!("| beside decoding | |\n|---|---|");
    println!("| a token alone | {:.2} ms |", 1e3 * decoder.pace(5 * SLICE));
    println!("{}", tell(percents));
    println!("| copying out a boundary {STEP} tokens further | {:.1} ms |", 1e3 * median(copies));
    println!("{}", journal_times(&mut decoder.journal, &store, &writer, &layout, &rows));
    drop((decoder, writer, store));
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// A line of the table: how long the journal takes while a save runs.
fn journal_times(
    journal: &mut Journal,
    store: &Store,
    writer: &Writer,
    layout: &Layout,
    rows: &Rows,
) -> String {
    let tokens: Vec<u32> = (0..TOKENS as u32).collect();
    let logits = vec![0.5; LOGITS];
    let boundary = Boundary { tokens: &tokens, logits: &logits, seconds_per_token: 0.1 };
    let capture = store.capture(layout, boundary, rows).expect("a store").expect("a new boundary");
    let Ok(ticket) = writer.save(capture) else { panic!("nothing else is queued") };
    let saved = std::thread::spawn(|| ticket.wait().expect("a disk that works"));
    let (mut appends, mut syncs) = (Vec::new(), Vec::new());
    while !saved.is_finished() {
        appends.push(seconds(|| journal.append(&[7]).expect("a disk that works")).0);
        syncs.push(seconds(|| journal.sync().expect("a disk that works")).0);
    }
    let most = |times: &[f64]| 1e3 * times.iter().copied().fold(0.0, f64::max);
    format!(
        "| journaling a token beside a save | {:.0} µs, at most {:.2} ms; its sync at most {:.0} ms |",
        1e6 * median(appends.clone()),
        most(&appends),
        most(&syncs)
    )
}

//! What decoding notices of a save: tokens of a model on all cores, in turn alone and while the states of
//! 65,536 tokens of Flash, 236 MB, are being saved; and what a decoding thread spends on keeping, the copy
//! at a boundary and the journal.
//!
//! `cargo bench --bench beside`, or behind `--` a model other than the bundled demo. `TMPDIR` chooses the
//! disk.
#[path = "../runtime/benches/flash/mod.rs"]
mod flash;

use ds4::open::{Wish, open};
use ds4_runtime::store::{Boundary, Journal, Layout, Options, RealDisk, Store, Writer};
use ds4_runtime::{Session, Want};
use flash::{LOGITS, Rows, median, seconds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Length of the saved session, and of the step to the boundary before.
const TOKENS: usize = 65_536;
const STEP: usize = 512;
const ROUNDS: usize = 15;
/// How long decoding alone is measured, before and after each save.
const ALONE: Duration = Duration::from_secs(1);

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

    /// Seconds of each token, of as many as `time` takes.
    fn tokens(&mut self, time: Duration) -> Vec<f64> {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            times.push(self.token());
        }
        times
    }
}

/// By how many percent tokens beside a save take longer, round by round.
#[derive(Default)]
struct Slower(Vec<f64>);

impl Slower {
    fn push(&mut self, alone: f64, beside: f64) {
        self.0.push(100.0 * (beside / alone - 1.0));
    }

    /// The median, and the quarter below and above it.
    fn tell(mut self, what: &str) {
        self.0.sort_by(f64::total_cmp);
        let quarter = |n: usize| self.0[(self.0.len() - 1) * n / 4];
        println!(
            "| {what} beside a save | {:+.1} % ({:+.1} to {:+.1}) |",
            quarter(2),
            quarter(1),
            quarter(3)
        );
    }
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

fn main() {
    let model = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let opened = open(model.as_ref().map(Path::new), &Wish::default()).expect("a model");
    let session = opened.engine(0).and_then(|e| Ok(e.session()?)).expect("a session");
    let folder = std::env::temp_dir().join(format!("ds4-beside-{}", std::process::id()));
    let options = Options { budget: u64::MAX / 2, ..Options::default() };
    let store = Arc::new(Store::open(Arc::new(RealDisk), &folder, options).expect("a folder"));
    let writer = Writer::start(Arc::clone(&store)).expect("threads");
    let journal = store.create_session(&session.layout(), "beside", &[]).expect("a disk that works");

    let schema = flash::schema();
    let layout = Layout::new([0; 32], &schema, LOGITS);
    let rows = Rows::new(&schema, TOKENS as u64);
    let logits = vec![0.5; LOGITS];
    let mut decoder = Decoder { session, journal };
    decoder.tokens(ALONE);
    // The average counts a token that waits long for as much as it costs; other work on the machine shows
    // in it, in the median hardly.
    let (mut average, mut middle) = (Slower::default(), Slower::default());
    let (mut saves, mut copies, mut paces) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|t| t ^ round << 20).collect();
        let boundary = |n: usize| Boundary { tokens: &tokens[..n], logits: &logits, seconds_per_token: 0.1 };
        let capture =
            |n| store.capture(&layout, boundary(n), &rows).expect("a store").expect("a new boundary");
        let first = capture(TOKENS - STEP);
        let mut alone = decoder.tokens(ALONE);
        let Ok(ticket) = writer.save(first) else { panic!("nothing else is queued") };
        let start = Instant::now();
        let saved = std::thread::spawn(move || {
            ticket.wait().expect("a disk that works");
            start.elapsed().as_secs_f64()
        });
        let mut during = Vec::new();
        while !saved.is_finished() {
            during.push(decoder.token());
        }
        saves.push(saved.join().expect("no panic"));
        alone.extend(decoder.tokens(ALONE));
        average.push(mean(&alone), mean(&during));
        paces.push(median(alone.clone()));
        middle.push(median(alone), median(during));
        copies.push(seconds(|| drop(capture(TOKENS))).0);
        store.gc(0).ok(); // What is being served stays; the disk does not fill.
    }
    println!("| beside decoding | |\n|---|---|");
    println!("| a token alone; a save beside | {:.2} ms; {:.2} s |", 1e3 * median(paces), median(saves));
    middle.tell("median token");
    average.tell("average token");
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

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
const ROUNDS: usize = 21;
/// How long decoding alone is measured, before and after each save.
const ALONE: Duration = Duration::from_millis(300);

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

    /// Seconds of a token on the average, over as many as `time` takes. The average, not the median: a
    /// token that waits long counts as much as it costs.
    fn pace(&mut self, time: Duration) -> f64 {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            times.push(self.token());
        }
        mean(&times)
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
    decoder.pace(ALONE);
    let (mut slower, mut saves, mut copies, mut paces) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|t| t ^ round << 20).collect();
        let boundary = |n: usize| Boundary { tokens: &tokens[..n], logits: &logits, seconds_per_token: 0.1 };
        let capture =
            |n| store.capture(&layout, boundary(n), &rows).expect("a store").expect("a new boundary");
        let first = capture(TOKENS - STEP);
        let before = decoder.pace(ALONE);
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
        let alone = (before + decoder.pace(ALONE)) / 2.0;
        paces.push(alone);
        slower.push(100.0 * (mean(&during) / alone - 1.0));
        copies.push(seconds(|| drop(capture(TOKENS))).0);
        store.gc(0).ok(); // What is being served stays; the disk does not fill.
    }
    slower.sort_by(f64::total_cmp);
    let quarter = |n: usize| slower[(slower.len() - 1) * n / 4];
    println!("a token alone {:.2} ms", 1e3 * median(paces));
    println!(
        "beside a save of {:.2} s it takes {:+.1} % ({:+.1} to {:+.1})",
        median(saves),
        quarter(2),
        quarter(1),
        quarter(3)
    );
    println!("copying out a boundary {STEP} tokens further: {:.1} ms", 1e3 * median(copies));
    println!("{}", journal_times(&mut decoder.journal, &store, &writer, &layout, &rows));
    drop((decoder, writer, store));
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// How long the journal takes while a save runs.
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
        "journaling a token beside a save: {:.0} us, at most {:.2} ms; its sync at most {:.0} ms",
        1e6 * median(appends.clone()),
        most(&appends),
        most(&syncs)
    )
}

//! Several writers of one store: nobody waits for the bytes of another's save, and none of them takes the
//! other's unfinished files for what a dead process left.
mod store_support;

use ds4_runtime::store::{Disk, DiskFile, How, Lock, Options, Reason, Store, StoreError};
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use store_support::sim::Sim;
use store_support::{Session, text};

/// Where a save is held up.
#[derive(Default)]
struct Gate {
    /// Somebody waits; it is open.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |s| !s.1).unwrap());
    }

    fn wait_until_somebody_waits(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |s| !s.0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// A disk that takes its time with the bytes of a save: its syncs wait at the gate.
struct Slow(Sim, Arc<Gate>);

struct SlowFile(Box<dyn DiskFile>, Arc<Gate>);

impl Disk for Slow {
    fn open(&self, path: &Path, how: How) -> Result<Box<dyn DiskFile>> {
        let file = self.0.open(path, how)?;
        let payload = path.parent().unwrap().ends_with("nodes") && how == How::Fresh;
        Ok(if payload { Box::new(SlowFile(file, Arc::clone(&self.1))) } else { file })
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.0.remove(path)
    }
    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        self.0.names(folder)
    }
    fn private_dir(&self, folder: &Path) -> Result<std::result::Result<(), String>> {
        self.0.private_dir(folder)
    }
    fn sync_dir(&self, folder: &Path) -> Result<()> {
        self.0.sync_dir(folder)
    }
    fn try_lock(&self, path: &Path) -> Result<Option<Lock>> {
        self.0.try_lock(path)
    }
    fn now(&self) -> u64 {
        self.0.now()
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read_at(buf, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.0.write_at(bytes, at)
    }
    fn sync(&self) -> Result<()> {
        self.1.pass();
        self.0.sync()
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.0.truncate(len)
    }
}

/// A store whose lock nobody may hold for long.
fn open(disk: impl Disk + 'static, budget: u64) -> Store {
    let options = Options { budget, patience: Duration::from_millis(1) };
    Store::open(Arc::new(disk), Path::new("/store"), options).unwrap()
}

fn unfinished(sim: &Sim) -> Vec<PathBuf> {
    sim.paths().into_iter().filter(|p| p.extension().is_some_and(|e| e == "tmp")).collect()
}

/// Runs `beside` while a save of `tokens` waits for the disk; returns what the save then says.
fn beside_a_save(
    sim: &Sim,
    budget: u64,
    tokens: &[u32],
    beside: impl FnOnce(),
) -> std::result::Result<bool, StoreError> {
    let gate = Arc::new(Gate::default());
    let slow = open(Slow(sim.clone(), Arc::clone(&gate)), budget);
    std::thread::scope(|scope| {
        let save = scope.spawn(|| Session::of(tokens).save(&slow).map(|saved| saved.unwrap().bytes > 0));
        gate.wait_until_somebody_waits();
        beside();
        gate.open();
        save.join().unwrap()
    })
}

const NO_LIMIT: u64 = u64::MAX / 2;

#[test]
fn a_save_waits_for_nothing_but_the_publishing_of_another() {
    let sim = Sim::default();
    let (long, short) = (text(1, 300), text(2, 60));
    let saved = beside_a_save(&sim, NO_LIMIT, &long, || {
        // Another process, with its sweep of what is unfinished: it waits a millisecond at most.
        let quick = open(sim.clone(), NO_LIMIT);
        for n in [20, 40, 60] {
            Session::of(&short[..n]).save(&quick).unwrap().unwrap();
        }
        quick.gc(NO_LIMIT).unwrap();
        assert!(quick.verify().unwrap().problems.is_empty());
        assert_eq!(Session::restore(&quick, &long).1.tokens, 0);
        assert_eq!(unfinished(&sim).len(), 2, "rows and edge of the save at work");
        assert_eq!(quick.take_warnings(), Vec::<String>::new());
    });
    assert!(saved.unwrap());
    assert_eq!(unfinished(&sim), Vec::<PathBuf>::new());
    let store = open(sim, NO_LIMIT);
    for tokens in [&long, &short] {
        assert_eq!(Session::restore(&store, tokens).1.reason, Reason::Whole);
    }
    assert!(store.verify().unwrap().problems.is_empty());
}

#[test]
fn the_same_boundary_saved_twice_at_once_is_there_once() {
    let sim = Sim::default();
    let tokens = text(3, 300);
    // In one piece by the slow one, in three by the quick one.
    let saved = beside_a_save(&sim, NO_LIMIT, &tokens, || {
        let quick = open(sim.clone(), NO_LIMIT);
        for n in [100, 200, 300] {
            Session::of(&tokens[..n]).save(&quick).unwrap().unwrap();
        }
    });
    assert!(!saved.unwrap(), "nothing was left to save");
    let store = open(sim.clone(), NO_LIMIT);
    assert_eq!(Session::restore(&store, &tokens).1.reason, Reason::Whole);
    assert_eq!(store.list().unwrap().len(), 3);
    assert!(store.verify().unwrap().problems.is_empty());
    assert_eq!(unfinished(&sim), Vec::<PathBuf>::new());
}

#[test]
fn what_was_evicted_while_its_extension_was_written_refuses_that() {
    let sim = Sim::default();
    let tokens = text(4, 300);
    Session::of(&tokens[..200]).save(&open(sim.clone(), NO_LIMIT)).unwrap().unwrap();
    let saved = beside_a_save(&sim, NO_LIMIT, &tokens, || {
        open(sim.clone(), NO_LIMIT).gc(0).unwrap();
    });
    assert!(matches!(saved, Err(StoreError::ParentGone { position: 300, parent: 200 })), "{saved:?}");
    assert_eq!(unfinished(&sim), Vec::<PathBuf>::new());
    let store = open(sim, NO_LIMIT);
    Session::of(&tokens).save(&store).unwrap().unwrap();
    assert_eq!(Session::restore(&store, &tokens).1.reason, Reason::Whole);
}

#[test]
fn two_saves_at_once_keep_the_budget() {
    let sim = Sim::default();
    let budget = 60_000;
    let saved = beside_a_save(&sim, budget, &text(5, 600), || {
        let quick = open(sim.clone(), budget);
        for seed in 6..9 {
            Session::of(&text(seed, 300)).save(&quick).unwrap().unwrap();
        }
    });
    assert!(saved.unwrap());
    let store = open(sim.clone(), budget);
    assert!(store.bytes() <= budget);
    assert!(store.verify().unwrap().problems.is_empty());
    assert_eq!(Session::restore(&store, &text(5, 600)).1.reason, Reason::Whole);
}

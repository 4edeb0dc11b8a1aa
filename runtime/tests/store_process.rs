//! Real processes on a real folder: killed at any moment, side by side, and refused.
#![cfg(unix)]
mod store_support;

use ds4_runtime::store::{
    Disk, DiskFile, How, Lock, Options, RealDisk, Reason, Store, StoreError, Ticket, Writer,
};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store_support::{LOGITS, Rng, Session, layout, text};

/// Set for a child: the folder, what it is to do, and a number.
const CHILD: &str = "DS4_STORE_CHILD";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ds4-store-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn open(folder: &Path, budget: u64) -> Store {
    let options = Options { budget, patience: Duration::from_secs(20) };
    Store::open(Arc::new(RealDisk), folder, options).unwrap()
}

fn spawn(folder: &Path, task: &str, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{} {task} {number}", folder.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn child() {
    let Ok(orders) = std::env::var(CHILD) else { return };
    let orders: Vec<&str> = orders.split(' ').collect();
    let number = orders[2].parse().unwrap();
    match orders[1] {
        "chat" => chat(Path::new(orders[0]), number),
        _ => branches(Path::new(orders[0]), number),
    }
}

fn say(line: &str) {
    // One write call, so that a killed child has said all of a line or nothing.
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// Goes on with session `number` until it is killed, telling what it shows and what is saved.
fn chat(folder: &Path, number: u64) {
    let store = Arc::new(open(folder, u64::MAX / 2));
    let writer = Writer::start(Arc::clone(&store)).unwrap();
    let name = format!("chat{number}");
    let (mut journal, tokens) = match store.open_session(&layout(), &name) {
        Err(StoreError::NotFound { .. }) => {
            (store.create_session(&layout(), &name, &[]).unwrap(), Vec::new())
        }
        found => found.unwrap(),
    };
    let (mut session, _) = Session::restore(&store, &tokens);
    tokens[session.tokens.len()..].iter().for_each(|t| session.advance(*t));
    let story = text(number, 100_000);
    let mut waiting: Option<(usize, Ticket)> = None;
    for token in &story[tokens.len()..] {
        journal.append(&[*token]).unwrap();
        say(&format!("shown {}", journal.tokens()));
        session.advance(*token);
        std::thread::sleep(Duration::from_micros(100));
        if session.tokens.len() % 37 == 0 {
            if let Some((n, ticket)) = waiting.take() {
                ticket.wait().unwrap();
                say(&format!("saved {n}"));
            }
            let capture = session.capture(&store, 0.1).unwrap();
            waiting = capture.and_then(|c| writer.save(c).ok()).map(|ticket| (session.tokens.len(), ticket));
        }
    }
}

#[test]
fn a_hundred_kills_lose_nothing() {
    let folder = Folder::new("kill");
    let mut rng = Rng::new(31);
    let (mut shown, mut saved) = (0, Vec::new());
    let mut rounds_with_saves = 0;
    for round in 0..100u64 {
        // A session is killed ten times, then the next begins.
        let number = round / 10;
        if round % 10 == 0 {
            (shown, saved) = (0, Vec::new());
        }
        let mut child = spawn(&folder.0, "chat", number);
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        // One in four may be killed while it still begins.
        if rng.below(4) > 0 {
            told.read_line(&mut first).unwrap();
        }
        std::thread::sleep(Duration::from_millis(10 + rng.below(110)));
        child.kill().unwrap(); // SIGKILL.
        let before = saved.len();
        for line in first.lines().map(|l| Ok(l.to_string())).chain(told.lines()).map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("shown", n)) => shown = n.parse().unwrap(),
                Some(("saved", n)) => saved.push(n.parse::<usize>().unwrap()),
                _ => {}
            }
        }
        child.wait().unwrap();
        rounds_with_saves += u64::from(saved.len() > before);

        let store = open(&folder.0, u64::MAX / 2);
        let problems = store.verify().unwrap().problems;
        assert!(problems.is_empty(), "round {round}: {problems:?}");
        let story = text(number, 100_000);
        if shown > 0 {
            let tokens = store.session(&format!("chat{number}")).unwrap().tokens;
            assert!(tokens.len() >= shown, "round {round}: {} of {shown}", tokens.len());
            assert!(story.starts_with(&tokens), "round {round}");
        }
        for n in &saved {
            let (_, restored) = Session::restore(&store, &story[..*n]);
            assert_eq!(restored.reason, Reason::Whole, "round {round}: {restored}");
        }
        assert_eq!(store.take_warnings(), Vec::<String>::new(), "round {round}");
    }
    assert!(rounds_with_saves > 20, "the children live long enough to save: {rounds_with_saves}");
}

/// Saves and restores branches of shared stories in a store that is too small for them.
fn branches(folder: &Path, number: u64) {
    let store = open(folder, 150_000);
    let mut rng = Rng::new(number);
    let end = Instant::now() + Duration::from_millis(1500);
    let mut saves = 0;
    while Instant::now() < end {
        let story = text(rng.below(4), 400);
        let mut tokens = story[..rng.below(5) as usize * 80].to_vec();
        tokens.extend(text(rng.below(3) + 50, 1 + rng.below(60) as usize));
        let (mut session, restored) = Session::restore(&store, &tokens);
        tokens[restored.tokens as usize..].iter().for_each(|t| session.advance(*t));
        match session.save(&store) {
            Ok(_) => saves += 1,
            // The other process evicted it between capture and commit.
            Err(StoreError::ParentGone { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(store.bytes() <= 150_000);
    }
    assert_eq!(store.take_warnings(), Vec::<String>::new());
    assert!(saves > 5, "{saves}");
}

#[test]
fn two_processes_share_a_store() {
    let folder = Folder::new("share");
    let mut children: Vec<Child> = (0..2).map(|n| spawn(&folder.0, "branches", n)).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let store = open(&folder.0, 150_000);
    assert!(store.verify().unwrap().problems.is_empty());
    store.gc(150_000).unwrap();
    let listed: u64 = store.list().unwrap().iter().map(|n| n.rows + n.edge).sum();
    let nodes = std::fs::read_dir(folder.0.join("nodes")).unwrap();
    let bytes: u64 = nodes.map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(listed, bytes);
    assert_eq!(std::fs::read_dir(folder.0.join("quarantine")).unwrap().count(), 0);
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    let folder = Folder::new("private");
    drop(open(&folder.0, 1000));
    assert_eq!(std::fs::metadata(&folder.0).unwrap().mode() & 0o777, 0o700);
    for file in ["index", "lock"] {
        assert_eq!(std::fs::metadata(folder.0.join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
    }
    let open = || Store::open(Arc::new(RealDisk), &folder.0, Options::default());
    for (part, mode) in [("", 0o770), ("", 0o702), ("nodes", 0o777), ("sessions", 0o720)] {
        let part = folder.0.join(part);
        std::fs::set_permissions(&part, PermissionsExt::from_mode(mode)).unwrap();
        let error = open().err().unwrap().to_string();
        let end = format!("expected a folder that only its owner can write, got mode {mode:o}");
        assert!(error.ends_with(&end), "{error}");
        std::fs::set_permissions(&part, PermissionsExt::from_mode(0o700)).unwrap();
    }
    open().unwrap();
}

/// Refuses whatever would write, as a medium that is read-only does.
struct ReadOnly;

impl Disk for ReadOnly {
    fn open(&self, path: &Path, how: How) -> std::io::Result<Box<dyn DiskFile>> {
        if how == How::Read { RealDisk.open(path, how) } else { Err(ErrorKind::ReadOnlyFilesystem.into()) }
    }
    fn rename(&self, _: &Path, _: &Path) -> std::io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _: &Path) -> std::io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
    fn names(&self, folder: &Path) -> std::io::Result<Vec<String>> {
        RealDisk.names(folder)
    }
    fn private_dir(&self, folder: &Path) -> std::io::Result<Result<(), String>> {
        RealDisk.private_dir(folder)
    }
    fn sync_dir(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn try_lock(&self, _: &Path) -> std::io::Result<Option<Lock>> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
    fn now(&self) -> u64 {
        RealDisk.now()
    }
}

#[test]
fn a_store_that_cannot_be_written_restores_and_refuses_saves() {
    let folder = Folder::new("read-only");
    let tokens = text(47, 260);
    Session::of(&tokens[..200]).save(&open(&folder.0, u64::MAX / 2)).unwrap();
    let store = Store::open(Arc::new(ReadOnly), &folder.0, Options::default()).unwrap();
    assert_eq!(Session::restore(&store, &tokens).1.tokens, 200);
    assert!(store.verify().unwrap().problems.is_empty());
    assert!(matches!(Session::of(&tokens).save(&store), Err(StoreError::Io { .. })));
    assert!(matches!(store.create_session(&layout(), "chat", &[]), Err(StoreError::Io { .. })));
    assert_eq!(Session::restore(&store, &tokens).1.tokens, 200);
}

#[test]
fn saving_goes_on_beside_and_a_writer_finishes_what_it_took() {
    let folder = Folder::new("beside");
    let store = Arc::new(open(&folder.0, u64::MAX / 2));
    let tokens = text(41, 300);
    let writer = Writer::start(Arc::clone(&store)).unwrap();
    let mut taken = Vec::new();
    for n in (20..=300).step_by(20) {
        let session = Session::of(&tokens[..n]);
        if let Some(capture) = session.capture(&store, 1.0).unwrap() {
            match writer.save(capture) {
                Ok(_ticket) => taken.push(n),
                Err(full) => assert_eq!(full.position(), n as u64),
            }
        }
    }
    drop(writer);
    assert_eq!(store.take_warnings(), Vec::<String>::new());
    let fresh = open(&folder.0, u64::MAX / 2);
    for n in &taken {
        assert_eq!(Session::restore(&fresh, &tokens[..*n]).1.reason, Reason::Whole);
    }
    assert!(!taken.is_empty());
    assert_eq!(layout().logits() as usize, LOGITS);
}

#[test]
fn a_session_is_open_once_and_keeps_what_it_stands_on() {
    let folder = Folder::new("open");
    let patience = Duration::from_millis(20);
    let open = |budget| Store::open(Arc::new(RealDisk), &folder.0, Options { budget, patience }).unwrap();
    let store = open(u64::MAX / 2);
    let tokens = text(43, 260);
    Session::of(&tokens[..130]).save(&store).unwrap();
    Session::of(&tokens).save(&store).unwrap();
    Session::of(&text(44, 130)).save(&store).unwrap();
    let mut journal = store.create_session(&layout(), "served", &tokens[..200]).unwrap();
    assert!(matches!(store.create_session(&layout(), "served", &[]), Err(StoreError::Exists { .. })));
    // Another process evicts all it may: not the boundary that the open session stands on.
    let other = open(u64::MAX / 2);
    assert!(matches!(other.open_session(&layout(), "served"), Err(StoreError::Busy { .. })));
    assert!(matches!(other.gc(0), Err(StoreError::Budget { .. })));
    assert_eq!(other.list().unwrap().iter().map(|n| n.end).collect::<Vec<_>>(), [130]);
    journal.rewind(100).unwrap();
    journal.append(&[1, 2]).unwrap();
    drop(journal);
    other.gc(0).unwrap();
    assert_eq!(other.list().unwrap(), []);
    let (journal, found) = other.open_session(&layout(), "served").unwrap();
    assert_eq!((&found[..100], &found[100..]), (&tokens[..100], &[1, 2][..]));
    let elsewhere = ds4_runtime::store::Layout::new([1; 32], &store_support::schema(), LOGITS);
    drop(journal);
    assert!(matches!(other.open_session(&elsewhere, "served"), Err(StoreError::OtherIdentity { .. })));
    for bad in ["", ".x", "a/b", "..", "a b", &"x".repeat(65)] {
        assert!(matches!(other.create_session(&layout(), bad, &[]), Err(StoreError::Name { .. })), "{bad}");
    }
    other.remove_session("served").unwrap();
    assert_eq!(other.session_names().unwrap(), Vec::<String>::new());
}

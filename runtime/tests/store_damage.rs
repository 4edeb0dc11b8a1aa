//! Damaged, truncated, foreign and hostile files: a miss, a warning that names the file, a right
//! answer. Never a panic, never a wrong row.
mod store_support;

use ds4_runtime::store::{Header, LOG_HEADER, LogHeader, LogKind, Reason, Store, StoreError};
use std::path::{Path, PathBuf};
use store_support::sim::Sim;
use store_support::{Rng, Session, layout, open, text};

const NO_LIMIT: u64 = u64::MAX / 2;

/// A store with a conversation of three boundaries, one branch, and a journal.
fn made() -> (Sim, Vec<u32>, Vec<u32>) {
    let sim = Sim::default();
    let store = open(sim.clone(), NO_LIMIT).unwrap();
    let tokens = text(11, 300);
    for n in [100, 200, 300] {
        Session::of(&tokens[..n]).save(&store).unwrap();
    }
    let mut branch = tokens[..200].to_vec();
    branch.extend(text(12, 20));
    Session::of(&branch).save(&store).unwrap();
    let mut journal = store.create_session(&layout(), "chat", &tokens[..250]).unwrap();
    for token in &tokens[250..] {
        journal.append(&[*token]).unwrap();
        journal.sync().unwrap();
    }
    (sim, tokens, branch)
}

/// Every boundary restores to what computing gives, whatever is missing; then saving it again makes
/// the store whole again. Returns what was restored of the conversation and of the branch.
fn answers(store: &Store, tokens: &[u32], branch: &[u32], what: &str) -> (u64, u64) {
    let all = [tokens, branch, &tokens[..200], &tokens[..100]];
    let restored = all.map(|t| Session::restore(store, t).1.tokens);
    for (tokens, n) in all.into_iter().zip(restored) {
        let (_, again) = Session::restore(store, tokens);
        assert!(again.tokens >= n, "{what}: {again}");
        Session::of(tokens).save(store).unwrap_or_else(|e| panic!("{what}: {e}"));
        let (_, healed) = Session::restore(store, tokens);
        assert_eq!((healed.tokens, healed.reason), (tokens.len() as u64, Reason::Whole), "{what}");
    }
    let mut problems = store.verify().unwrap().problems;
    problems.retain(|p| !p.file.starts_with("/store/sessions")); // Healed when they are opened.
    assert!(problems.is_empty(), "{what}: {problems:?}");
    (restored[0], restored[1])
}

/// Bytes of each class of a file: each field of a header, each part of a chunk or frame.
fn classes(path: &Path, len: usize) -> Vec<usize> {
    let sealed = [0, 7, 8, 12, 16, 48, 80, 112, 144, 152, 160, 168, 176, 180, 184, 192, 193, len / 2];
    let log = [0, 8, 12, 16, 48, 56, 64, 68, 72, 80, 88, 91, 150, len / 2];
    let mut at = if path.ends_with("index") || path.to_str().unwrap().contains("sessions") {
        log.to_vec()
    } else {
        sealed.to_vec()
    };
    at.extend([len - 9, len - 8, len - 1]);
    at
}

fn files(sim: &Sim) -> Vec<PathBuf> {
    let all = sim.paths().into_iter();
    all.filter(|p| !p.ends_with("lock") && !p.starts_with("/store/quarantine")).collect()
}

#[test]
fn a_changed_byte_of_any_class_is_noticed() {
    let (original, tokens, branch) = made();
    for path in files(&original) {
        let whole = original.bytes(&path);
        for at in classes(&path, whole.len()) {
            let sim = original.reboot(None);
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            sim.replace(&path, bytes);
            let what = format!("{} byte {at}", path.display());
            let journal = path.starts_with("/store/sessions");
            // The last frame of a log cannot be told from one that a crash left unfinished; that of a
            // closed journal says nothing else.
            let tail =
                at + 8 * 24 > whole.len() && path.ends_with("index") || at + 24 >= whole.len() && journal;
            let store = open(sim.clone(), NO_LIMIT).unwrap();
            let early = store.take_warnings();
            let problems = store.verify().unwrap().problems;
            let named = problems.iter().any(|p| p.file == path) || early.iter().any(|w| w.contains("index"));
            assert!(named || tail, "{what}: {problems:?} {early:?}");
            let got = answers(&store, &tokens, &branch, &what).0;
            if journal {
                check_journal(&store, &tokens, &what);
            } else if path.ends_with("index") {
                assert_eq!(got, 300, "{what}: the index is rebuilt from the files");
            } else {
                let warned = [early, store.take_warnings()].concat();
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(warned.iter().any(|w| w.contains(name)), "{what}: {warned:?}");
                let aside = sim.paths().into_iter().filter(|p| p.starts_with("/store/quarantine"));
                assert_eq!(aside.count(), 1, "{what}");
            }
        }
    }
}

/// A damaged journal keeps the tokens before the damage, or is refused by name.
fn check_journal(store: &Store, tokens: &[u32], what: &str) {
    match store.open_session(&layout(), "chat") {
        Ok((mut journal, found)) => {
            assert!(tokens.starts_with(&found), "{what}");
            journal.append(&[5]).unwrap();
            let now = store.session("chat").unwrap();
            assert_eq!((now.tokens.len(), now.damaged), (found.len() + 1, None), "{what}");
        }
        Err(StoreError::Damaged { file, .. }) => assert!(file.ends_with("chat.journal"), "{what}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn any_truncation_is_noticed() {
    let (original, tokens, branch) = made();
    for path in files(&original) {
        let whole = original.bytes(&path);
        for len in (0..whole.len()).step_by(whole.len() / 23 + 1).chain([whole.len() - 1]) {
            let sim = original.reboot(None);
            sim.replace(&path, whole[..len].to_vec());
            let what = format!("{} cut to {len}", path.display());
            let store = open(sim.clone(), NO_LIMIT).unwrap();
            answers(&store, &tokens, &branch, &what);
            if path.starts_with("/store/sessions") {
                check_journal(&store, &tokens, &what);
            }
        }
    }
}

#[test]
fn files_of_others_do_not_pass() {
    let (original, tokens, branch) = made();
    let nodes: Vec<PathBuf> =
        files(&original).into_iter().filter(|p| p.starts_with("/store/nodes")).collect();
    for path in &nodes {
        for other in nodes.iter().chain([&PathBuf::from("/store/index")]).filter(|o| *o != path) {
            let sim = original.reboot(None);
            sim.replace(path, original.bytes(other));
            let store = open(sim, NO_LIMIT).unwrap();
            answers(&store, &tokens, &branch, &format!("{} is {}", path.display(), other.display()));
        }
    }
    // Foreign files in the folder are put aside, not removed.
    let sim = original.reboot(None);
    sim.replace(Path::new("/store/nodes/letter.txt"), b"dear diary".to_vec());
    sim.replace(Path::new(&format!("/store/nodes/{}.rows", "ab".repeat(32))), vec![0; 5000]);
    let store = open(sim.clone(), NO_LIMIT).unwrap();
    store.gc(NO_LIMIT).unwrap();
    assert_eq!(store.take_warnings().len(), 2);
    let letter = sim.paths().into_iter().find(|p| p.to_str().unwrap().ends_with("-letter.txt")).unwrap();
    assert_eq!(sim.bytes(&letter), b"dear diary");
    assert_eq!(answers(&store, &tokens, &branch, "foreign"), (300, 220));
}

/// The bytes of a file as a later version might have written it.
fn of_version(path: &Path, mut bytes: Vec<u8>, version: u32) -> Vec<u8> {
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    reseal(path, &mut bytes);
    bytes
}

#[test]
fn files_of_another_version_are_left_as_they_are() {
    let (original, tokens, branch) = made();
    for path in files(&original) {
        let sim = original.reboot(None);
        let foreign = of_version(&path, original.bytes(&path), 2);
        sim.replace(&path, foreign.clone());
        let what = path.display().to_string();
        let store = match open(sim.clone(), NO_LIMIT) {
            Ok(store) => store,
            Err(error) => {
                assert!(path.ends_with("index"), "{what}: {error}");
                assert_eq!(
                    error.to_string(),
                    "/store/index: expected version 1, got version 2, of another ds4"
                );
                assert_eq!((sim.paths(), sim.bytes(&path)), (original.paths(), foreign));
                continue;
            }
        };
        assert!(!path.ends_with("index"), "{what}");
        if path.starts_with("/store/sessions") {
            for found in [store.session("chat").err(), store.open_session(&layout(), "chat").err()] {
                assert!(matches!(found, Some(StoreError::Version { got: 2, .. })), "{what}: {found:?}");
            }
        } else {
            let all = [&tokens[..], &branch[..], &tokens[..200], &tokens[..100]];
            let restored = all.map(|tokens| Session::restore(&store, tokens).1);
            assert!(restored.iter().any(|r| r.reason == Reason::Damaged), "{what}: {restored:?}");
            let warned = store.take_warnings();
            assert!(warned.iter().all(|w| w.contains("got version 2, of another ds4")), "{what}: {warned:?}");
            assert!(!warned.is_empty(), "{what}");
        }
        // Neither this process nor the next one moves, removes or replaces it.
        for _ in 0..2 {
            open(sim.clone(), NO_LIMIT).unwrap().gc(NO_LIMIT).unwrap();
            assert_eq!(sim.bytes(&path), foreign, "{what}");
        }
        assert!(!sim.paths().iter().any(|p| p.starts_with("/store/quarantine")), "{what}");
    }
}

#[test]
fn a_store_of_another_version_is_left_as_it_is() {
    let (original, ..) = made();
    let sim = original.reboot(None);
    for path in files(&original) {
        sim.replace(&path, of_version(&path, original.bytes(&path), 7));
    }
    let before: Vec<_> = sim.paths().iter().map(|p| (p.clone(), sim.bytes(p))).collect();
    let refused = open(sim.clone(), NO_LIMIT).err();
    assert!(matches!(refused, Some(StoreError::Version { expected: 1, got: 7, .. })), "{refused:?}");
    // Nor is it harmed by one that has lost its index.
    ds4_runtime::store::Disk::remove(&sim, Path::new("/store/index")).unwrap();
    let store = open(sim.clone(), NO_LIMIT).unwrap();
    store.gc(NO_LIMIT).unwrap();
    for (path, bytes) in before.into_iter().filter(|(path, _)| !path.ends_with("index")) {
        assert_eq!(sim.bytes(&path), bytes, "{}", path.display());
    }
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}

#[test]
fn a_missing_file_is_a_miss() {
    let (original, tokens, branch) = made();
    for path in files(&original) {
        let sim = original.reboot(None);
        ds4_runtime::store::Disk::remove(&sim, &path).unwrap();
        let store = open(sim, NO_LIMIT).unwrap();
        answers(&store, &tokens, &branch, &format!("without {}", path.display()));
    }
}

/// Random changes to what the parsers read, with lengths and counts made huge.
#[test]
fn parsers_survive_anything() {
    let (original, tokens, branch) = made();
    let mut rng = Rng::new(17);
    for path in files(&original) {
        let whole = original.bytes(&path);
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len().min(400) as u64) as usize;
                let n = (1 + rng.below(8) as usize).min(bytes.len() - at);
                let fill = [0, 0xff, 0x7f, rng.below(256) as u8][rng.below(4) as usize];
                bytes[at..at + n].fill(fill);
            }
            reseal(&path, &mut bytes);
            Header::parse(&bytes).ok();
            for kind in [LogKind::Index, LogKind::Journal] {
                if let Ok(header) = LogHeader::parse(&bytes, kind) {
                    header.scan(&bytes[LOG_HEADER..], LOG_HEADER as u64);
                }
            }
            let sim = original.reboot(None);
            sim.replace(&path, bytes);
            let store = match open(sim, NO_LIMIT) {
                Err(StoreError::Version { .. }) if path.ends_with("index") => continue,
                store => store.unwrap(),
            };
            for tokens in [&tokens, &branch] {
                Session::restore(&store, tokens);
            }
            drop(store.session("chat"));
            store.gc(NO_LIMIT / 2).unwrap();
        }
    }
}

/// Makes the header's checksum hold again, so that what lies behind it is reached.
fn reseal(path: &Path, bytes: &mut [u8]) {
    let head = if path.starts_with("/store/nodes") { 192 } else { LOG_HEADER };
    let sum = twox_hash::XxHash3_64::oneshot(&bytes[..head - 8]);
    bytes[head - 8..head].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_bundle_carries_a_conversation_and_nothing_else_does() {
    let (from, tokens, _) = made();
    let store = open(from.clone(), NO_LIMIT).unwrap();
    let last = store.list().unwrap().into_iter().find(|n| n.end == 300).unwrap();
    assert_eq!(store.lookup(&last.key.to_string()[..12]).unwrap(), last.key);
    assert_eq!(store.show(&last.key).unwrap().tokens, tokens);
    let file = Path::new("/bundle");
    store.export(&last.key, file).unwrap();
    let bundle = from.bytes(file);

    let sim = Sim::default();
    let other = open(sim.clone(), NO_LIMIT).unwrap();
    sim.replace(file, bundle.clone());
    assert_eq!(other.import(file).unwrap(), last.key);
    assert_eq!(other.import(file).unwrap(), last.key);
    assert_eq!(Session::restore(&other, &tokens).1.reason, Reason::Whole);
    assert!(other.verify().unwrap().problems.is_empty());

    let mut rng = Rng::new(23);
    for round in 0..300 {
        let sim = Sim::default();
        let other = open(sim.clone(), NO_LIMIT).unwrap();
        let mut bytes = bundle.clone();
        let at = rng.below(bytes.len() as u64) as usize;
        match round % 3 {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, [7; 5])),
        }
        sim.replace(file, bytes);
        assert!(matches!(other.import(file), Err(StoreError::Damaged { .. })), "round {round} at {at}");
        assert_eq!(other.list().unwrap(), []);
    }
}

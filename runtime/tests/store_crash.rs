//! Histories that are cut off at every single call, by the end of the process and by the loss of
//! power, and histories in which every single call fails once.
mod store_support;

use ds4_runtime::store::{StoreError, Writer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store_support::sim::{Fault, Sim};
use store_support::{Rng, Session, layout, open, text};

/// What was promised while a history ran.
#[derive(Default)]
struct Promised {
    /// Boundaries reported saved.
    saved: Vec<Vec<u32>>,
    /// Tokens that were shown, by session.
    shown: BTreeMap<String, Vec<u32>>,
    /// Of these, tokens reported synced; a later change of mind is recorded before it is done.
    synced: BTreeMap<String, Vec<u32>>,
}

/// A history. `evicting` makes room for new boundaries by dropping old ones.
fn history(sim: &Sim, evicting: bool, promised: &mut Promised) -> Result<(), StoreError> {
    let store = open(sim.clone(), if evicting { 60_000 } else { u64::MAX / 2 })?;
    let tokens = text(7, 420);
    let (mut chat, _) = match store.open_session(&layout(), "chat") {
        Err(StoreError::NotFound { .. }) => {
            (store.create_session(&layout(), "chat", &tokens[..5])?, Vec::<u32>::new())
        }
        found => found?,
    };
    promised.shown.insert("chat".into(), tokens[..5].to_vec());
    promised.synced.insert("chat".into(), tokens[..5].to_vec());
    let mut session = Session::of(&tokens[..5]);
    for (turn, part) in tokens[5..].chunks(83).enumerate() {
        for piece in part.chunks(29) {
            chat.append(piece)?;
            promised.shown.get_mut("chat").unwrap().extend(piece);
            piece.iter().for_each(|t| session.advance(*t));
        }
        if turn % 2 == 1 {
            chat.sync()?;
            promised.synced.insert("chat".into(), promised.shown["chat"].clone());
        }
        if session.save(&store)?.is_some() {
            promised.saved.push(session.tokens.clone());
        }
        let (mut fork, _) = Session::restore(&store, &tokens[..session.tokens.len() / 2]);
        text(turn as u64, 20).iter().for_each(|t| fork.advance(*t));
        if fork.save(&store)?.is_some() {
            promised.saved.push(fork.tokens.clone());
        }
    }
    // A change of mind: what is taken back is no longer promised, whether it comes back or not.
    for kept in [&mut promised.shown, &mut promised.synced] {
        kept.get_mut("chat").unwrap().truncate(150);
    }
    chat.rewind(150)?;
    chat.append(&[7, 7])?;
    promised.shown.get_mut("chat").unwrap().extend([7, 7]);
    if evicting {
        let bundle = Path::new("/bundle");
        let carried = Session::restore(&store, &tokens).0.tokens;
        if let Some(node) = store.list()?.into_iter().find(|n| n.end == carried.len() as u64 && n.edge > 0) {
            store.export(&node.key, bundle)?;
        }
        // What is served may not go, so the session ends before everything does.
        drop(chat);
        store.gc(15_000)?;
        store.gc(0)?;
        promised.saved.clear();
        session.save(&store)?;
        promised.saved.push(session.tokens.clone());
        store.import(bundle)?;
        promised.saved.push(carried);
        store.create_session(&layout(), "short", &[1])?;
        store.remove_session("short")?;
    }
    Ok(())
}

/// Everything promised is there, nothing is damaged, and what is restored is right.
fn check(sim: &Sim, evicting: bool, promised: &Promised, power: bool, what: &str) {
    let store = open(sim.clone(), u64::MAX / 2).unwrap_or_else(|e| panic!("{what}: {e}"));
    for round in 0..2 {
        let problems = store.verify().unwrap().problems;
        assert!(problems.is_empty(), "{what} round {round}: {problems:?}");
        for saved in &promised.saved {
            let (_, restored) = Session::restore(&store, saved);
            assert!(evicting || restored.tokens == saved.len() as u64, "{what} round {round}: {restored}");
        }
        for (name, shown) in &promised.shown {
            let tokens = store.session(name).unwrap().tokens;
            let kept = if power { &promised.synced[name] } else { shown };
            assert!(tokens.starts_with(kept), "{what} round {round}: {} of {}", tokens.len(), kept.len());
        }
        // A new process repairs what it found on its first save.
        Session::of(&text(99, 130 + round)).save(&store).unwrap().unwrap();
    }
    if promised.shown.contains_key("chat") {
        let (mut journal, before) = store.open_session(&layout(), "chat").unwrap();
        journal.append(&[1, 2, 3]).unwrap();
        let now = store.session("chat").unwrap();
        assert_eq!((&now.tokens[..before.len()], &now.tokens[before.len()..]), (&before[..], &[1, 2, 3][..]));
        assert_eq!(now.damaged, None, "{what}");
    }
    let warnings = store.take_warnings();
    assert!(warnings.is_empty(), "{what}: {warnings:?}");
    let left = |p: &PathBuf| p.starts_with("/store") && p.extension().is_some_and(|e| e == "tmp");
    let leftover = sim.paths().into_iter().find(left);
    assert_eq!(leftover, None, "{what}");
    let bytes: u64 = store.list().unwrap().iter().map(|n| n.rows + n.edge).sum();
    let nodes = sim.paths().into_iter().filter(|p| p.parent().unwrap().ends_with("nodes"));
    assert_eq!(bytes, nodes.map(|p| sim.bytes(&p).len() as u64).sum::<u64>(), "{what}");
}

fn calls(evicting: bool) -> u64 {
    let sim = Sim::default();
    let mut promised = Promised::default();
    history(&sim, evicting, &mut promised).unwrap();
    check(&sim.reboot(None), evicting, &promised, false, "undisturbed");
    check(&sim.reboot(Some(&mut Rng::new(1))), evicting, &promised, true, "undisturbed");
    assert!(promised.saved.len() >= if evicting { 1 } else { 6 });
    sim.calls()
}

fn crash_everywhere(evicting: bool) {
    let calls = calls(evicting);
    for at in 1..=calls {
        let sim = Sim::default();
        sim.fault(at, Fault::Die);
        let mut promised = Promised::default();
        drop(history(&sim, evicting, &mut promised));
        check(&sim.reboot(None), evicting, &promised, false, &format!("killed in call {at}"));
        for seed in 0..2 {
            let after = sim.reboot(Some(&mut Rng::new(at * 2 + seed)));
            check(&after, evicting, &promised, true, &format!("no power in call {at}, {seed}"));
        }
    }
}

#[test]
fn nothing_is_lost_by_a_crash_at_any_call() {
    crash_everywhere(false);
}

#[test]
fn eviction_survives_a_crash_at_any_call() {
    crash_everywhere(true);
}

#[test]
fn any_call_may_fail_once() {
    for evicting in [false, true] {
        for at in 1..=calls(evicting) {
            let sim = Sim::default();
            sim.fault(at, Fault::Fail);
            let mut promised = Promised::default();
            // The error reaches the caller or was made good; the store stands either way.
            drop(history(&sim, evicting, &mut promised));
            let what = format!("call {at} failed");
            check(&sim.reboot(None), evicting, &promised, false, &what);
            check(&sim.reboot(Some(&mut Rng::new(at))), evicting, &promised, true, &what);
        }
    }
}

#[test]
fn a_full_disk_refuses_saves_and_loses_nothing() {
    let sim = Sim::default();
    let store = open(sim.clone(), u64::MAX / 2).unwrap();
    let tokens = text(5, 400);
    Session::of(&tokens[..200]).save(&store).unwrap();
    for left in (0..7_400).step_by(613) {
        sim.room(Some(sim.used() + left));
        let mut journal = store.create_session(&layout(), "full", &tokens[..10]);
        if let Ok(journal) = &mut journal {
            let mut shown = 10;
            while shown < 20 && journal.append(&tokens[shown..shown + 1]).is_ok() {
                shown += 1;
            }
            assert_eq!(store.session("full").unwrap().tokens, &tokens[..shown]);
        }
        let saved = Session::of(&tokens).save(&store);
        assert!(matches!(saved, Err(StoreError::Io { .. })), "{left}: {saved:?}");
        let (_, restored) = Session::restore(&store, &tokens);
        assert_eq!(restored.tokens, 200);
        sim.room(None);
        if let Ok(journal) = journal {
            let before = store.session("full").unwrap().tokens;
            drop(journal);
            let (mut journal, found) = store.open_session(&layout(), "full").unwrap();
            assert_eq!(found, before);
            journal.append(&[9]).unwrap();
            drop(journal);
            store.remove_session("full").unwrap();
        }
        assert!(store.verify().unwrap().problems.is_empty());
    }
    assert!(Session::of(&tokens).save(&store).unwrap().is_some());
    // Making room works on a disk without any.
    sim.room(Some(sim.used()));
    assert!(store.gc(0).is_err() || store.bytes() == 0);
    assert!(sim.paths().iter().all(|p| !p.parent().unwrap().ends_with("nodes")));
    sim.room(None);
    let store = open(sim.clone(), u64::MAX / 2).unwrap();
    store.gc(0).unwrap();
    assert!(store.verify().unwrap().problems.is_empty() && store.list().unwrap().is_empty());
}

#[test]
fn a_save_whose_parent_failed_is_refused_and_the_next_is_whole() {
    let sim = Sim::default();
    let store = open(sim.clone(), u64::MAX / 2).unwrap();
    let tokens = text(6, 300);
    let capture = |n: usize| Session::of(&tokens[..n]).capture(&store, 1.0).unwrap().unwrap();
    let (first, second) = (capture(100), capture(200));
    drop(first); // As after a failure: never committed.
    assert!(matches!(store.commit(&second), Err(StoreError::ParentGone { position: 200, parent: 100 })));
    drop(second);
    let third = capture(300);
    store.commit(&third).unwrap();
    drop(third);
    assert_eq!(Session::restore(&store, &tokens).1.tokens, 300);
}

#[test]
fn shown_tokens_reach_the_disk_within_five_seconds() {
    let sim = Sim::default();
    let store = Arc::new(open(sim.clone(), u64::MAX / 2).unwrap());
    let _writer = Writer::start(Arc::clone(&store)).unwrap();
    let mut journal = store.create_session(&layout(), "chat", &[1]).unwrap();
    journal.append(&[2, 3]).unwrap();
    let kept = |seed| {
        let after = open(sim.reboot(Some(&mut Rng::new(seed))), u64::MAX / 2).unwrap();
        after.session("chat").unwrap().tokens
    };
    assert!((0..20).any(|seed| kept(seed) != [1, 2, 3]), "nothing was synced yet");
    std::thread::sleep(Duration::from_secs(4));
    assert!((0..20).all(|seed| kept(seed) == [1, 2, 3]));
    // And at once when the session is closed.
    journal.append(&[4]).unwrap();
    drop(journal);
    assert!((0..20).all(|seed| kept(seed) == [1, 2, 3, 4]));
}

#[test]
fn replaced_tokens_are_the_old_ones_or_the_new_ones() {
    let (old, new) = (text(9, 60), text(10, 90));
    let mut replaced = 0;
    for at in 1.. {
        let sim = Sim::default();
        let store = open(sim.clone(), u64::MAX / 2).unwrap();
        let mut journal = store.create_session(&layout(), "chat", &old).unwrap();
        let before = sim.calls();
        sim.fault(at, Fault::Die);
        let done = journal.replace(20, &new).and_then(|()| journal.sync());
        drop(journal);
        for power in [None, Some(&mut Rng::new(at))] {
            let after = open(sim.reboot(power), u64::MAX / 2).unwrap();
            let found = after.session("chat").unwrap().tokens;
            assert!(found == old || found == [&old[..20], &new].concat(), "call {at}: {found:?}");
            assert!(done.is_err() || found != old, "call {at}");
            replaced += u32::from(found != old);
        }
        if sim.calls() < before + at {
            break;
        }
    }
    assert!(replaced > 2);
}

#[test]
fn a_refusal_for_lack_of_room_is_told_once() {
    let sim = Sim::default();
    let store = Arc::new(open(sim, 20_000).unwrap());
    let tokens = text(8, 500);
    let capture = |n: usize| Session::of(&tokens[..n]).capture(&store, 1.0).unwrap().unwrap();
    // Each extends the one before, and all are captured before the first is refused.
    let captures = [capture(300), capture(400), capture(500)];
    let writer = Writer::start(Arc::clone(&store)).unwrap();
    for capture in captures {
        let mut waiting = Some(capture);
        while let Some(capture) = waiting.take() {
            waiting = writer.save(capture).err();
        }
    }
    writer.wait();
    let warnings = store.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("store budget"), "{warnings:?}");
    // What can be saved ends the silence.
    let Ok(ticket) = writer.save(capture(20)) else { panic!("nothing else is queued") };
    ticket.wait().unwrap();
    writer.save(capture(450)).ok().unwrap().wait().unwrap_err();
    assert_eq!(store.take_warnings().len(), 1);
}

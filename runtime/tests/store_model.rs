//! Restoring equals recomputing: random histories against sessions computed from nothing.
mod store_support;

use ds4_runtime::store::{Reason, Store, StoreError};
use store_support::sim::Sim;
use store_support::{Rng, Session, layout, open, text};

const NO_LIMIT: u64 = u64::MAX / 2;

#[test]
fn every_kind_of_boundary_restores() {
    let store = open(Sim::default(), NO_LIMIT).unwrap();
    let tokens = text(1, 700);
    // Inside a block of 4, around the blocks of 128, one token, chunk ends.
    for p in [1, 2, 3, 4, 5, 6, 7, 8, 126, 127, 128, 129, 130, 255, 256, 257, 511, 512, 513, 700] {
        Session::of(&tokens[..p]).save(&store).unwrap().unwrap();
        let (_, restored) = Session::resume(&store, &tokens[..p]);
        assert_eq!((restored.tokens, &restored.reason), (p as u64, &Reason::Whole));
        let (_, restored) = Session::resume(&store, &tokens[..(p + 1).min(700)]);
        assert_eq!(restored.tokens, p as u64);
    }
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}

#[test]
fn growing_adds_only_what_is_new_and_branches_share() {
    let store = open(Sim::default(), NO_LIMIT).unwrap();
    let tokens = text(2, 1280);
    let save = |tokens: &[u32]| Session::of(tokens).save(&store).unwrap().unwrap().bytes;
    let first = save(&tokens[..640]);
    let grown = save(&tokens[..768]);
    let mut other = tokens[..768].to_vec();
    other.extend(text(3, 128));
    let branch = save(&other);
    let edge = save(&tokens[..896]) - (grown - edge_of(&store, 768));
    assert_eq!(edge, edge_of(&store, 896));
    assert_eq!(branch, grown);
    assert!(first > 3 * (grown - edge_of(&store, 768)), "{first} {grown}");
    // The same text in one piece is the same boundary.
    assert_eq!(Session::of(&tokens[..896]).save(&store).unwrap(), None);
}

fn edge_of(store: &Store, position: u64) -> u64 {
    store.list().unwrap().iter().find(|n| n.end == position).unwrap().edge
}

#[test]
fn a_miss_says_why() {
    let sim = Sim::default();
    let store = open(sim.clone(), NO_LIMIT).unwrap();
    let tokens = text(4, 300);
    let why = |tokens: &[u32]| {
        let (_, restored) = Session::resume(&store, tokens);
        (restored.tokens, restored.reason)
    };
    assert_eq!(why(&tokens), (0, Reason::Empty));
    Session::of(&tokens[..100]).save(&store).unwrap();
    Session::of(&tokens[..200]).save(&store).unwrap();
    assert_eq!(why(&tokens), (200, Reason::Ends));
    assert_eq!(why(&tokens[..150]), (100, Reason::Between { next: 200 }));
    assert_eq!(why(&tokens[..50]), (0, Reason::Between { next: 100 }));
    let mut other = tokens.clone();
    other[170] += 1;
    assert_eq!(why(&other), (100, Reason::Differs { at: 170 }));
    let elsewhere = ds4_runtime::store::Layout::new([43; 32], &store_support::schema(), 5);
    let restored = store.restore(&elsewhere, &tokens, &mut Session::new());
    assert_eq!((restored.tokens, &restored.reason), (0, &Reason::OtherIdentity));
    let expected =
        "restored 0 of 300 tokens: what is stored is for another model, numeric class or state schema";
    assert_eq!(restored.to_string(), expected);
    assert_eq!(
        store.restore(&layout(), &tokens[..200], &mut Session::new()).to_string(),
        "restored 200 of 200 tokens"
    );
    store.gc(0).unwrap();
    assert!(matches!(why(&tokens), (0, Reason::Gone { at: 100, .. })));
    assert_eq!((store.bytes(), store.list().unwrap().len()), (0, 0));
}

/// Sessions that grow, fork, go back, are saved, evicted and restored, by any of several processes.
#[test]
fn random_histories() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let sim = Sim::default();
        let budget = if seed % 3 == 0 { NO_LIMIT } else { 60_000 + rng.below(200_000) };
        let mut stores: Vec<Store> = (0..2).map(|_| open(sim.clone(), budget).unwrap()).collect();
        let mut sessions = vec![Session::new()];
        let mut saved: Vec<Vec<u32>> = Vec::new();
        for _ in 0..60 {
            let which = rng.below(sessions.len() as u64) as usize;
            let process = rng.below(2) as usize;
            let store = &stores[process];
            match rng.below(10) {
                0..4 => {
                    let n = [1, 2, 7, 40, 128][rng.below(5) as usize];
                    // Few choices, so that branches meet again.
                    let flavour = rng.below(3) as u32;
                    (0..n).for_each(|i| sessions[which].advance(flavour + i));
                }
                4 if sessions.len() < 4 => sessions.push(sessions[which].clone()),
                5 => {
                    let to = rng.below(sessions[which].tokens.len() as u64 + 1) as usize;
                    let tokens = sessions[which].tokens[..to].to_vec();
                    sessions[which] = Session::resume(store, &tokens).0;
                }
                6..8 if !sessions[which].tokens.is_empty() => {
                    if sessions[which].save(store).is_ok() {
                        saved.push(sessions[which].tokens.clone());
                    }
                }
                8 if budget < NO_LIMIT => {
                    store.gc(rng.below(budget)).unwrap();
                }
                8 => stores[process] = open(sim.clone(), budget).unwrap(),
                _ => {
                    let mut tokens = sessions[which].tokens.clone();
                    tokens.extend(0..rng.below(3) as u32);
                    let found = store.find(&layout(), &tokens);
                    let (_, restored) = Session::resume(store, &tokens);
                    assert_eq!(found, restored.tokens, "seed {seed}: what another process did is seen");
                    let fits = |s: &&Vec<u32>| tokens.starts_with(s);
                    let longest = saved.iter().filter(fits).map(Vec::len).max().unwrap_or(0) as u64;
                    assert!(restored.tokens <= longest, "seed {seed}: {restored}");
                    if budget == NO_LIMIT {
                        assert_eq!(restored.tokens, longest, "seed {seed}: {restored}");
                    }
                }
            }
            assert!(store_bytes(&sim) <= budget, "seed {seed}");
        }
        for store in &stores {
            assert_eq!(store.take_warnings(), Vec::<String>::new(), "seed {seed}");
            assert!(store.verify().unwrap().problems.is_empty(), "seed {seed}");
            assert_eq!(store.list().unwrap().iter().map(|n| n.rows + n.edge).sum::<u64>(), store_bytes(&sim));
        }
    }
}

fn store_bytes(sim: &Sim) -> u64 {
    let nodes = sim.paths().into_iter().filter(|p| p.parent().unwrap().ends_with("nodes"));
    nodes.map(|p| sim.bytes(&p).len() as u64).sum()
}

/// Saves the first `n` tokens of story `seed`, each of which took `seconds`.
fn costly(store: &Store, seed: u64, n: usize, seconds: f32) {
    store.commit(&Session::of(&text(seed, n)).capture(store, seconds).unwrap().unwrap()).unwrap();
}

/// Positions of the kept boundaries of story `seed`.
fn kept(store: &Store, seed: u64) -> Vec<u64> {
    let tokens = text(seed, 1000);
    let lengths = (1..=1000).filter(|n| store.find(&layout(), &tokens[..*n]) == *n as u64);
    lengths.map(|n| n as u64).collect()
}

#[test]
fn what_saves_the_fewest_seconds_per_byte_goes_first() {
    let sim = Sim::default();
    let store = open(sim.clone(), NO_LIMIT).unwrap();
    costly(&store, 1, 256, 0.01);
    costly(&store, 2, 256, 0.03);
    costly(&store, 3, 256, 0.02);
    // A short step above a kept boundary saves little, however dear its tokens.
    costly(&store, 2, 260, 0.03);
    let mut order = Vec::new();
    while store.bytes() > 0 {
        let before: Vec<Vec<u64>> = (1..4).map(|s| kept(&store, s)).collect();
        store.gc(store.bytes() - 1).unwrap();
        for seed in 1..4 {
            let now = kept(&store, seed);
            order.extend(before[seed as usize - 1].iter().filter(|p| !now.contains(p)).map(|p| (seed, *p)));
        }
    }
    assert_eq!(order, [(2, 260), (1, 256), (3, 256), (2, 256)]);

    // Ten days of disuse outweigh a factor of three.
    costly(&store, 2, 256, 0.03);
    sim.wait(10 * 24 * 3600 * 1000);
    costly(&store, 1, 256, 0.01);
    store.gc(store.bytes() - 1).unwrap();
    assert_eq!((kept(&store, 1), kept(&store, 2)), (vec![256], vec![]));
}

#[test]
fn the_budget_never_costs_the_session_that_is_saved() {
    let store = open(Sim::default(), 40_000).unwrap();
    costly(&store, 8, 200, 0.01);
    let dear = store.bytes();
    // Cheap, and still not given up for the dear one while it is being saved.
    for n in [64, 128, 192] {
        costly(&store, 9, n, 0.0);
        assert_eq!(kept(&store, 9).last(), Some(&(n as u64)));
    }
    assert!(dear < 40_000 && store.bytes() <= 40_000);
    let session = Session::of(&text(9, 1000));
    let saved = session.save(&open(Sim::default(), 10_000).unwrap());
    assert!(matches!(saved, Err(StoreError::Budget { budget: 10_000, .. })));
}

#[test]
fn a_session_that_is_removed_takes_what_only_it_stands_on() {
    let sim = Sim::default();
    let store = open(sim.clone(), NO_LIMIT).unwrap();
    let tokens = text(21, 400);
    // A prompt that two sessions share, and what each made of it.
    let other = [&tokens[..150], &text(22, 100)].concat();
    for n in [100, 150, 300, 400] {
        Session::of(&tokens[..n]).save(&store).unwrap();
    }
    Session::of(&other).save(&store).unwrap();
    drop(store.create_session(&layout(), "one", &tokens).unwrap());
    drop(store.create_session(&layout(), "two", &other).unwrap());
    let ends = || {
        let mut ends: Vec<u64> = store.list().unwrap().iter().map(|n| n.end).collect();
        ends.sort_unstable();
        ends
    };
    let open_elsewhere = store.open_session(&layout(), "one").unwrap();
    assert!(matches!(store.forget_session("one"), Err(StoreError::Busy { .. })));
    drop(open_elsewhere);
    let before = store.bytes();
    let freed = store.forget_session("one").unwrap();
    assert_eq!((ends(), before - freed), (vec![100, 150, 250], store.bytes()));
    assert_eq!(store.session_names().unwrap(), ["two"]);
    assert_eq!(Session::restore(&store, &other).1.reason, Reason::Whole);
    let (_, restored) = Session::restore(&store, &tokens);
    assert_eq!(
        (restored.tokens, restored.reason.to_string()),
        (150, "the state at token 300 was removed".into())
    );
    assert!(matches!(store.forget_session("one"), Err(StoreError::NotFound { .. })));

    // One boundary: with others above it only its edge goes, and what then leads nowhere goes with the last.
    let key = |end| store.list().unwrap().iter().find(|n| n.end == end).unwrap().key;
    store.forget_entry(&key(150)).unwrap();
    assert!(matches!(store.forget_entry(&key(150)), Err(StoreError::NotFound { .. })));
    assert_eq!((ends(), Session::restore(&store, &other).1.reason), (vec![100, 150, 250], Reason::Whole));
    store.forget_entry(&key(250)).unwrap();
    assert_eq!(ends(), [100]);
    store.forget_session("two").unwrap();
    assert_eq!((ends(), store.bytes()), (vec![], 0));
    assert!(sim.paths().iter().all(|p| !p.starts_with("/store/nodes") && !p.starts_with("/store/sessions")));
    assert!(store.verify().unwrap().problems.is_empty());
}

//! What a session refuses, and that it goes on with the same bits after every interruption.
use crate::common::{Expected, engine, fixture};
use ds4::target::CompileTarget;
use ds4_ir::Class;
use ds4_runtime::{Engine, Error, Session, Want};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn prompt(name: &str) -> Vec<u32> {
    Expected::read(&fixture(name).join("expected.safetensors")).ids("input_ids")
}

fn go(session: &mut Session, ids: &[u32], chunk: usize) -> Result<Vec<u32>, Error> {
    let none = AtomicBool::new(false);
    let logits = session.advance(ids, Want::All, chunk, &none, &mut |_| ())?;
    Ok(logits.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn ids_out_of_the_vocabulary_are_refused_whole() {
    let engine = engine(&fixture("flash-bf16"), Class::Fast, 2);
    let mut session = engine.session().unwrap();
    for id in [320, u32::MAX] {
        let why = go(&mut session, &[1, 2, id, 3], 1).unwrap_err().to_string();
        assert_eq!(why, format!("token id {id}: expected less than 320"));
        assert_eq!(session.position(), 0, "nothing was taken");
    }
    assert!(go(&mut session, &[], 8).unwrap().is_empty());
    assert_eq!(go(&mut session, &[1, 319], 0).unwrap().len(), 2 * 320);
}

#[test]
fn a_full_context_takes_no_more() {
    let model = fixture("flash-bf16");
    let request = ds4::compile::Request { class: Class::Fast, ctx: Some(20), target: CompileTarget::Cpu };
    let artifact = ds4::compile::compile(&model, &model, request).unwrap();
    let engine = Engine::new(artifact, &model, 2).unwrap();
    let mut session = engine.session().unwrap();
    let ids = &prompt("flash-bf16")[..21];
    let why = go(&mut session, ids, 8).unwrap_err().to_string();
    assert_eq!(why, "context: expected at most 20 tokens, got 0 and 21 more");
    let whole = go(&mut session, &ids[..20], 8).unwrap();
    let why = go(&mut session, &ids[..1], 8).unwrap_err().to_string();
    assert_eq!(why, "context: expected at most 20 tokens, got 20 and 1 more");
    session.rewind(3).unwrap();
    assert!(go(&mut session, &ids[17..20], 8).unwrap() == whole[17 * 320..]);
}

#[test]
fn a_rewind_goes_back_eight_below_the_highest_position() {
    let engine = engine(&fixture("flash-bf16"), Class::Fast, 2);
    let ids = prompt("flash-bf16");
    let mut session = engine.session().unwrap();
    let refused = |session: &mut Session, back, max| {
        let why = session.rewind(back).unwrap_err().to_string();
        assert_eq!(why, format!("rewind: expected at most {max} tokens back, got {back}"));
    };
    refused(&mut session, 1, 0);
    go(&mut session, &ids[..5], 512).unwrap();
    refused(&mut session, 6, 5);
    session.rewind(5).unwrap();
    go(&mut session, &ids[..50], 512).unwrap();
    refused(&mut session, 9, 8);
    refused(&mut session, u64::MAX, 8);
    session.rewind(3).unwrap();
    refused(&mut session, 6, 5);
    session.rewind(5).unwrap();
    refused(&mut session, 1, 0);
    session.rewind(0).unwrap();
    go(&mut session, &ids[42..43], 1).unwrap();
    assert_eq!(session.position(), 43);
    refused(&mut session, 2, 1);
    session.reset();
    assert_eq!(session.position(), 0);
    refused(&mut session, 1, 0);
}

/// Positions around the ends of blocks and rings.
fn places(window: usize, len: usize) -> Vec<usize> {
    let edges = [4, window, window + 8, 128, 2 * window, 256];
    let around = edges.iter().flat_map(|e| (e.saturating_sub(3).max(1)..e + 10).step_by(3));
    let mut places: Vec<usize> = around.filter(|p| p + 12 <= len).collect();
    places.sort_unstable();
    places.dedup();
    places
}

#[test]
fn other_tokens_after_a_rewind_give_the_bits_of_a_fresh_session() {
    for (name, window) in [("flash-bf16", 32), ("pro-mixed", 128)] {
        let ids = prompt(name);
        let classes = if name == "flash-bf16" { &[Class::Exact, Class::Fast][..] } else { &[Class::Fast] };
        for class in classes {
            let engine = engine(&fixture(name), *class, 2);
            // The other timeline: the same prompt with other tokens from a place on.
            let other: Vec<u32> = ids.iter().rev().copied().collect();
            for p in places(window, ids.len()) {
                let back = 1 + p % 8;
                let back = back.min(p);
                let keep = p - back;
                let mut fresh = engine.session().unwrap();
                go(&mut fresh, &ids[..keep], 512).unwrap();
                let expected = go(&mut fresh, &other[..12], 512).unwrap();
                let mut session = engine.session().unwrap();
                go(&mut session, &ids[..p], 64).unwrap();
                session.rewind(back as u64).unwrap();
                let got = go(&mut session, &other[..12], if p % 3 == 0 { 1 } else { 5 }).unwrap();
                assert!(got == expected, "{name} {class}: back {back} from {p}");
            }
        }
    }
}

#[test]
fn a_cancelled_step_leaves_no_trace() {
    let ids = prompt("flash-bf16");
    let engine = engine(&fixture("flash-bf16"), Class::Fast, 2);
    let whole = go(&mut engine.session().unwrap(), &ids, 512).unwrap();
    // A flag that is set from the start: nothing is done.
    let mut session = engine.session().unwrap();
    let set = AtomicBool::new(true);
    let answer = session.advance(&ids, Want::All, 64, &set, &mut |_| panic!("no step is done"));
    assert!(matches!(answer, Err(Error::Cancelled)));
    assert_eq!(session.position(), 0);
    // Set after the second step: its tokens stay.
    let cancel = AtomicBool::new(false);
    let mut stop = |done| cancel.store(done == 128, Ordering::Relaxed);
    let answer = session.advance(&ids, Want::All, 64, &cancel, &mut stop);
    assert!(matches!(answer, Err(Error::Cancelled)));
    assert_eq!(session.position(), 128);
    assert!(go(&mut session, &ids[128..], 64).unwrap() == whole[128 * 320..]);
}

/// Steps of `chunk` tokens, each cancelled after a growing time until it gets through; answers how
/// often a step was cancelled.
fn interrupted(engine: &Engine, ids: &[u32], chunk: usize, whole: &[u32]) -> usize {
    let vocab = whole.len() / ids.len();
    let mut session = engine.session().unwrap();
    let (mut cancelled, mut rewinds) = (0, 0);
    let mut delay = Duration::ZERO;
    while session.position() < ids.len() as u64 {
        let at = session.position() as usize;
        let part = &ids[at..(at + chunk).min(ids.len())];
        let cancel = AtomicBool::new(false);
        let start = Instant::now();
        let answer = std::thread::scope(|scope| {
            let timer = scope.spawn(|| {
                while start.elapsed() < delay {
                    std::hint::spin_loop();
                }
                cancel.store(true, Ordering::Relaxed);
            });
            let answer = session.advance(part, Want::All, chunk, &cancel, &mut |_| ());
            timer.join().unwrap();
            answer
        });
        match answer {
            Ok(logits) => {
                let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
                assert!(bits == whole[at * vocab..(at + part.len()) * vocab], "position {at}");
                delay /= 2;
            }
            Err(Error::Cancelled) => {
                assert_eq!(session.position(), at as u64);
                cancelled += 1;
                delay += delay / 4 + Duration::from_micros(100);
                // What was begun is taken back or written again; a rewind is honest about it.
                if cancelled % 3 == 0 && rewinds < 5 && session.rewind(2).is_ok() {
                    rewinds += 1;
                    assert_eq!(session.position(), at as u64 - 2);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    cancelled
}

#[test]
fn a_session_cancelled_in_the_middle_of_its_steps_has_the_same_bits() {
    for (name, chunk) in [("flash-bf16", 100), ("flash-bf16", 7), ("pro-mixed", 60), ("pro-mixed", 1)] {
        let ids = prompt(name);
        // Token by token a part of the prompt will do.
        let ids = if chunk == 1 { &ids[..40] } else { &ids[..] };
        let engine = engine(&fixture(name), Class::Fast, 2);
        let whole = go(&mut engine.session().unwrap(), ids, 512).unwrap();
        let cancelled = interrupted(&engine, ids, chunk, &whole);
        assert!(cancelled >= 5, "{name}: only {cancelled} steps were cancelled");
    }
}

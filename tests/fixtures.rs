//! The fixtures: tiny models with values computed by Hugging Face transformers, and in class
//! `official` by the reference of the specification.
mod common;

use common::{
    Expected, FAST_TOLERANCE, Judge, distance, engine, fixture, interpret, logits_of, named, worst,
};
use ds4_ir::{Bind, Buffer, Class, Interp, Real};
use ds4_runtime::{Engine, Want};
use std::sync::atomic::AtomicBool;

const FIXTURES: [&str; 2] = ["flash-bf16", "pro-mixed"];

fn expected(name: &str) -> Expected {
    Expected::read(&fixture(name).join("expected.safetensors"))
}

/// Logits of every position from the engine, given in parts of `chunk` tokens.
fn logits(engine: &Engine, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut session = engine.session().unwrap();
    let none = AtomicBool::new(false);
    session.advance(ids, Want::All, chunk, &none, &mut |_| ()).unwrap()
}

#[test]
fn exact_logits_of_the_engine_equal_transformers() {
    for name in FIXTURES {
        let (engine, expected) = (engine(&fixture(name), Class::Exact, 2), expected(name));
        let got = logits(&engine, &expected.ids("input_ids"), 512);
        let worst = worst(got.iter().map(|x| f64::from(*x)), expected.values("logits"));
        println!("{name}: {worst:e}");
        assert!(worst <= 5e-5, "{name}: {worst}");
    }
}

#[test]
fn greedy_continuation_equals_transformers() {
    for name in FIXTURES {
        let (engine, expected) = (engine(&fixture(name), Class::Exact, 2), expected(name));
        let mut session = engine.session().unwrap();
        let none = AtomicBool::new(false);
        let mut next = expected.ids("input_ids");
        let mut got = Vec::new();
        for _ in expected.ids("greedy_ids") {
            let row = session.advance(&next, Want::Last, 512, &none, &mut |_| ()).unwrap();
            let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
            got.push(best as u32);
            next = vec![best as u32];
        }
        assert_eq!(got, expected.ids("greedy_ids"), "{name}");
    }
}

#[test]
fn exact_in_double_precision_and_the_streams_after_each_layer() {
    for name in FIXTURES {
        let (judge, expected) = (Judge::new(&fixture(name), Class::Exact), expected(name));
        let ids = expected.ids("input_ids");
        let parts = interpret::<f64>(&judge, &ids, &[ids.len()]);
        let worst_logit = worst(logits_of(&judge, &parts), expected.values("logits"));
        assert!(worst_logit <= 2e-5, "{name}: {worst_logit}");
        let mut tail = Vec::new();
        for layer in 0..expected.shape("states_tail")[0] {
            let h = named(&judge, &parts[0], &format!("h{layer}"));
            let keep = 4 * h.dims[1] * h.dims[2];
            tail.extend_from_slice(&h.buffer.real()[h.buffer.real().len() - keep..]);
        }
        let worst_stream = worst(tail, expected.values("states_tail"));
        println!("{name}: logits {worst_logit:e}, streams {worst_stream:e}");
        assert!(worst_stream <= 2e-4, "{name}: {worst_stream}");
    }
}

/// Runs graph `mtp` over the whole prompt beside `main`.
fn mtp<F: Real>(judge: &Judge, ids: &[u32], next: &[u32]) -> Vec<f64> {
    let main = interpret::<F>(judge, ids, &[ids.len()]);
    let graph = judge.module.graph("mtp").unwrap();
    let streams = judge.module.graph("main").unwrap().results[1];
    let ints = |x: Vec<usize>| Buffer::Int(x.into_iter().map(|n| n as i32).collect());
    let inputs = vec![
        main[0][streams].buffer.clone(),
        ints(next.iter().map(|id| *id as usize).collect()),
        ints((0..ids.len()).collect()),
        ints((0..ids.len()).collect()),
    ];
    let bind = Bind { start: 0, tokens: ids.len(), wanted: ids.len() };
    let values = Interp::<F>::new(&judge.module, judge).step(graph, inputs, &bind);
    values[graph.results[0]].buffer.real().iter().map(|x| x.to_f64()).collect()
}

#[test]
fn mtp_logits_equal_the_reference() {
    for name in FIXTURES {
        let (judge, expected) = (Judge::new(&fixture(name), Class::Exact), expected(name));
        let (ids, next) = (expected.ids("input_ids"), expected.ids("mtp_ids"));
        for got in [mtp::<f32>(&judge, &ids, &next), mtp::<f64>(&judge, &ids, &next)] {
            let worst = worst(got, expected.values("mtp_logits"));
            println!("{name}: {worst:e}");
            assert!(worst <= 5e-5, "{name}: {worst}");
        }
    }
}

#[test]
fn official_in_double_precision_equals_the_reference_for_every_split() {
    let (judge, expected) = (Judge::new(&fixture("pro-mixed"), Class::Official), expected("pro-mixed"));
    let ids = expected.ids("input_ids");
    let n = ids.len();
    let splits: [Vec<usize>; 5] = [
        vec![n],
        vec![1; n],
        vec![127, 1, 1, n - 129],
        vec![130, n - 130],
        [vec![3, 5, 7, 11, 13], vec![n - 39]].concat(),
    ];
    for parts in splits {
        let got = logits_of(&judge, &interpret::<f64>(&judge, &ids, &parts));
        let worst = worst(got, expected.values("logits_official"));
        println!("{:?}...: {worst:e}", &parts[..parts.len().min(5)]);
        assert!(worst <= 1e-6, "{parts:?}: {worst}");
    }
}

#[test]
fn the_engine_has_the_bits_of_the_interpreter() {
    for name in FIXTURES {
        for class in [Class::Exact, Class::Official] {
            let (judge, expected) = (Judge::new(&fixture(name), class), expected(name));
            let ids = expected.ids("input_ids");
            let expected = logits_of(&judge, &interpret::<f32>(&judge, &ids, &[ids.len()]));
            let got = logits(&engine(&fixture(name), class, 2), &ids, 512);
            let differ = got.iter().zip(&expected).filter(|(a, b)| f64::from(**a) != **b).count();
            assert_eq!(differ, 0, "{name} {class}: {differ} of {} logits", got.len());
        }
    }
}

#[test]
fn fast_is_near_the_interpreter_in_double_precision() {
    for name in FIXTURES {
        let (judge, expected) = (Judge::new(&fixture(name), Class::Fast), expected(name));
        let ids = expected.ids("input_ids");
        let exact = logits_of(&judge, &interpret::<f64>(&judge, &ids, &[ids.len()]));
        let single = logits_of(&judge, &interpret::<f32>(&judge, &ids, &[ids.len()]));
        let got: Vec<f64> =
            logits(&engine(&fixture(name), Class::Fast, 2), &ids, 512).into_iter().map(f64::from).collect();
        let (ours, theirs) = (distance(&got, &exact), distance(&single, &exact));
        println!("{name}: engine {ours:e}, interpreter in single precision {theirs:e}");
        assert!(ours <= FAST_TOLERANCE, "{name}: {ours}");
    }
}

#[test]
fn any_split_and_any_number_of_threads_give_the_same_bits() {
    for name in FIXTURES {
        for class in [Class::Exact, Class::Official, Class::Fast] {
            let ids = expected(name).ids("input_ids");
            let bits = |threads, chunk| -> Vec<u32> {
                let engine = engine(&fixture(name), class, threads);
                logits(&engine, &ids, chunk).iter().map(|x| x.to_bits()).collect()
            };
            let whole = bits(1, 512);
            for (threads, chunk) in [(2, 1), (1, 7), (3, 64), (5, 127), (2, 129)] {
                assert!(whole == bits(threads, chunk), "{name} {class}: {threads} threads, parts of {chunk}");
            }
        }
    }
}

//! The bundled demo against what Hugging Face transformers computed from its files, and its
//! published questions.
mod common;

use ds4_ir::Class;
use ds4_models::chat::{Conversation, Options};
use ds4_models::tokenizer::Tokenizer;
use ds4_runtime::{Engine, Want};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

fn demo(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/demo").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(demo(name)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn engine(class: Class) -> Engine {
    common::engine(&demo(""), class, 0)
}

/// Mean of -ln p of every token but the first.
fn loss(engine: &Engine, ids: &[u32]) -> f64 {
    let vocab = engine.module().vocab as usize;
    let none = AtomicBool::new(false);
    let logits = engine.session().unwrap().advance(ids, Want::All, 512, &none, &mut |_| ()).unwrap();
    let of = |(row, next): (&[f32], &u32)| {
        let largest = row.iter().fold(f64::NEG_INFINITY, |m, x| m.max(f64::from(*x)));
        let sum: f64 = row.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
        sum.ln() + largest - f64::from(row[*next as usize])
    };
    let losses: Vec<f64> = logits.chunks_exact(vocab).zip(&ids[1..]).map(of).collect();
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn held_out_loss_is_that_of_transformers() {
    let expected = json("expected.json");
    let sequences = expected["heldout"].as_array().unwrap();
    assert!(sequences.len() >= 4 && sequences.iter().all(|s| s["ids"].as_array().unwrap().len() >= 512));
    for (class, allowed) in [(Class::Exact, 0.001), (Class::Fast, 0.01)] {
        let engine = engine(class);
        let (mut ours, mut theirs) = (0.0, 0.0);
        for sequence in sequences {
            let (got, loss) = (loss(&engine, &ids(&sequence["ids"])), sequence["loss"].as_f64().unwrap());
            // Of a single sequence a little more may be off than of them all.
            assert!((got - loss).abs() <= 2.0 * allowed * loss, "{class}: {got}, transformers {loss}");
            (ours, theirs) = (ours + got, theirs + loss);
        }
        let n = sequences.len() as f64;
        println!("{class}: {:.5}, transformers {:.5}", ours / n, theirs / n);
        assert!((ours - theirs).abs() <= allowed * theirs, "{class}: {ours}, transformers {theirs}");
    }
}

/// Tokens after `prompt`, the most probable each time, up to an end or `n` of them.
fn greedy(engine: &Engine, prompt: &[u32], n: usize, eos: Option<u32>) -> Vec<u32> {
    let mut session = engine.session().unwrap();
    let none = AtomicBool::new(false);
    let (mut next, mut answer) = (prompt.to_vec(), Vec::new());
    while answer.len() < n {
        let row = session.advance(&next, Want::Last, 512, &none, &mut |_| ()).unwrap();
        let best = (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
        if Some(best) == eos {
            break;
        }
        answer.push(best);
        next = vec![best];
    }
    answer
}

#[test]
fn plain_text_goes_on_as_under_transformers() {
    let raw = &json("expected.json")["raw"];
    let tokenizer = Tokenizer::from_json(&std::fs::read(demo("tokenizer.json")).unwrap()).unwrap();
    let prompt = ids(&raw["ids"]);
    // `--raw` is BOS and the text.
    assert_eq!(prompt[1..], tokenizer.encode_text(raw["prompt"].as_str().unwrap()));
    assert!(tokenizer.control_name(prompt[0]).is_some());
    let expected = ids(&raw["greedy_ids"]);
    assert!(expected.len() >= 32);
    assert_eq!(greedy(&engine(Class::Exact), &prompt, expected.len(), None), expected);
}

/// Answers to the published questions through the prompt format, at temperature 0.
fn answers(engine: &Engine) -> Vec<(String, String, bool)> {
    let tokenizer = Tokenizer::from_json(&std::fs::read(demo("tokenizer.json")).unwrap()).unwrap();
    let eos = json("config.json")["eos_token_id"].as_u64().map(|id| id as u32);
    let answer = |entry: &Value| {
        let question = entry["question"].as_str().unwrap();
        let mut conversation = Conversation::new(Options::default());
        conversation.ask(question);
        let prompt = tokenizer.encode_prompt(&conversation.prompt().unwrap()).unwrap();
        let answer = tokenizer.decode(&greedy(engine, &prompt, 64, eos)).trim().to_string();
        let right = entry["answers"].as_array().unwrap().iter().any(|a| a.as_str() == Some(&answer));
        (question.to_string(), answer, right)
    };
    json("questions.json").as_array().unwrap().iter().map(answer).collect()
}

#[test]
fn the_published_questions_are_answered() {
    let expected = json("expected.json");
    for class in [Class::Exact, Class::Fast] {
        let answers = answers(&engine(class));
        assert_eq!(answers.len(), 50);
        let wrong: Vec<_> = answers.iter().filter(|(.., right)| !right).collect();
        println!("{class}: {} of 50 right", 50 - wrong.len());
        assert!(wrong.len() <= 5, "{class}: {wrong:?}");
        if class == Class::Exact {
            assert_eq!(50 - wrong.len(), expected["questions_right"].as_u64().unwrap() as usize);
            for (question, answer, _) in &answers {
                assert_eq!(expected["answers"][question].as_str(), Some(answer.as_str()), "{question}");
            }
        }
    }
}

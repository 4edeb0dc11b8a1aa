//! A judge that is not ours: llama.cpp gives a tiny model the same probabilities.
//!
//! `.ci/llama-cpp` puts it into `target/llama.cpp`; without it the test says that nothing was compared,
//! and in CI it fails.
#[path = "../models/tests/common/mod.rs"]
mod common;
#[path = "common/mod.rs"]
mod helpers;
#[path = "../models/tests/common/rewrite.rs"]
mod rewrite;

use ds4_ir::Class;
use ds4_models::gguf::{Value, metadata};
use ds4_models::synth::{self, Spec, placeholder_vocab};
use ds4_models::{Checkpoint, Config, Mix};
use ds4_runtime::Want;
use rewrite::{Names, convert};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// Largest difference of two logarithms of probabilities; 5e-6 is seen.
const TOLERANCE: f64 = 5e-5;
/// Lengths of the prompts: one token; around a window of 64 and around blocks of 4 and of 128.
const PROMPTS: [usize; 12] = [1, 3, 4, 5, 8, 63, 65, 100, 127, 128, 131, 260];

/// Every layer kind. The indexer selects all entries, so that no tie decides, and its heads are as wide
/// as llama.cpp wants them at least.
fn tiny() -> Config {
    Config {
        vocab_size: 512,
        hidden_size: 256,
        num_hidden_layers: 7,
        num_attention_heads: 8,
        head_dim: 64,
        qk_rope_head_dim: 16,
        q_lora_rank: 64,
        o_groups: 2,
        o_lora_rank: 64,
        sliding_window: 64,
        index_n_heads: 4,
        index_head_dim: 64,
        index_topk: 128,
        n_routed_experts: 16,
        num_experts_per_tok: 3,
        moe_intermediate_size: 128,
        max_position_embeddings: 4096,
        num_nextn_predict_layers: 0,
        compress_ratios: vec![0, 0, 4, 128, 4, 128, 4],
        ..Config::flash()
    }
}

/// Writes the model with random weights as F32 under llama.cpp's names.
fn model(folder: &Path) -> PathBuf {
    let config = tiny();
    let vocab = placeholder_vocab(&config);
    let words: Vec<String> = vocab.tokens.clone();
    let (name, path) = ("tiny".to_string(), folder.join("synth.gguf"));
    let spec = Spec { config, name, mix: Mix::OfficialLike, alias: None, vocab, seed: 5 };
    synth::write(&spec, &path, &mut |_, _| ()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut keys = vec![("general.architecture".to_string(), Value::str("deepseek4"))];
    keys.extend(metadata(&spec.config));
    let tokenizer = [
        ("model", Value::str("gpt2")),
        ("pre", Value::str("joyai-llm")),
        ("tokens", Value::strings(&words)),
        ("token_type", Value::i32s(&vec![1; words.len()])),
        ("merges", Value::strings(&["a b".to_string()])),
        ("bos_token_id", Value::U32(0)),
        ("eos_token_id", Value::U32(1)),
    ];
    keys.extend(tokenizer.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)));
    rewrite::write(folder, "model", &keys, &[&convert(&checkpoint, Names::LlamaCpp, false)])
}

/// Logarithms of all probabilities after each prompt, if llama.cpp is there.
fn judged(model: &Path, prompts: &[Vec<u32>]) -> Option<Vec<Vec<f64>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = root.join("target/llama.cpp");
    if !package.join("xllamacpp").exists() {
        let message =
            format!("NOT COMPARED with llama.cpp: {}: not there; run .ci/llama-cpp", package.display());
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
        return None;
    }
    let (asked, out) = (model.with_extension("prompts"), model.with_extension("answers"));
    std::fs::write(&asked, serde_json::to_vec(prompts).unwrap()).unwrap();
    let mut command = Command::new("python3");
    command.arg(root.join("tests/judges/llama_cpp.py")).arg(model).arg(asked).arg(&out);
    let output = command.env("PYTHONPATH", &package).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap())
}

/// Logarithms of the probabilities that logits stand for.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f64::MIN, |m, x| m.max(f64::from(*x)));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - most).exp()).sum();
    logits.iter().map(|x| f64::from(*x) - most - sum.ln()).collect()
}

#[test]
fn llama_cpp_gives_the_same_probabilities() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let ids: Vec<u32> = (0..300u32).map(|i| 2 + i.wrapping_mul(2_654_435_761) % 509).collect();
    let prompts = PROMPTS.map(|n| ids[..n].to_vec());
    let Some(judged) = judged(&model, &prompts) else { return };
    let engine = helpers::engine(&model, Class::Exact, 2);
    let none = AtomicBool::new(false);
    let mut all = 0.0f64;
    for (prompt, judged) in prompts.iter().zip(&judged) {
        let mut session = engine.session().unwrap();
        let logits = session.advance(prompt, Want::Last, 512, &none, &mut |_| ()).unwrap();
        let ours = log_softmax(&logits);
        let spread =
            ours.iter().fold(f64::MIN, |m, x| m.max(*x)) - ours.iter().fold(f64::MAX, |m, x| m.min(*x));
        assert!(spread > 3.0, "{} tokens: the model prefers something: {spread}", prompt.len());
        let worst = helpers::worst(ours, judged);
        println!("{} tokens: {worst:.1e} in a spread of {spread:.1}", prompt.len());
        all = all.max(worst);
    }
    assert!(all <= TOLERANCE, "{all}");
}

//! Synthetic models: the layout of the reference generator, and numbers that are what they claim.
mod common;
mod words;

use ds4_ir::formats::decode_row;
use ds4_models::gguf::{self, TensorInfo};
use ds4_models::synth::{self, Alias, Spec, placeholder_vocab, vocab_from_json};
use ds4_models::tokenizer::Tokenizer;
use ds4_models::{Checkpoint, Config, Content, Mix, StoredType, Words, tensors};
use serde_json::json;

fn flash(alias: Option<Alias>) -> Spec {
    let config = Config::flash();
    let vocab = placeholder_vocab(&config);
    Spec { config, name: "synthetic".into(), mix: Mix::Ds4Q2, alias, vocab, seed: 1 }
}

fn line(info: &TensorInfo) -> String {
    let dims: Vec<String> = info.shape.iter().rev().map(u64::to_string).collect();
    format!("{} {} {} {}", info.name, info.ty, dims.join("x"), info.offset)
}

#[test]
fn the_layout_is_the_reference_generators() {
    // Lines "name type dims offset" of its tensor list for 43 layers with 3 and 3 sets.
    let listing = include_str!("data/flash-aliased.txt");
    let infos = synth::layout(&flash(Some(Alias::default()))).unwrap();
    assert_eq!(infos.len(), listing.lines().count());
    for (info, expected) in infos.iter().zip(listing.lines()) {
        assert_eq!(line(info), expected);
    }
    let end = |spec: &Spec| {
        let infos = synth::layout(spec).unwrap();
        infos.iter().map(|i| i.offset + gguf::tensor_bytes(i.ty, &i.shape)).max().unwrap()
    };
    let own = flash(None);
    assert_eq!(line(&synth::layout(&own).unwrap()[0]), listing.lines().next().unwrap());
    assert!(86_700_000_000 < end(&own) && end(&own) < 86_800_000_000);
    // Its own figure for 4 layers that share nothing.
    let four = Spec { config: own.config.truncated(4), ..own };
    let last = synth::layout(&four).unwrap().pop().unwrap();
    assert_eq!(line(&last), "blk.3.ffn_down_shexp.weight q8_0 2048x4096 9493262336");
}

#[test]
fn every_published_mix_of_both_models_has_a_layout() {
    for (name, mix) in Mix::NAMES.iter().filter(|(_, mix)| *mix != Mix::Official) {
        for config in [Config::flash(), Config::pro()] {
            let spec = Spec { config, mix: *mix, alias: Some(Alias::default()), ..flash(None) };
            assert!(synth::layout(&spec).is_ok(), "{name}");
        }
    }
    let error = synth::layout(&Spec { mix: Mix::Official, ..flash(None) }).unwrap_err().to_string();
    assert_eq!(error, "blk.0.attn_q_a: expected an element type of GGUF, got fp8");
}

/// A small model whose rows are whole blocks of every format.
fn small() -> Config {
    Config {
        vocab_size: 600,
        hidden_size: 256,
        num_attention_heads: 4,
        head_dim: 128,
        q_lora_rank: 256,
        o_groups: 2,
        o_lora_rank: 128,
        index_n_heads: 4,
        n_routed_experts: 16,
        moe_intermediate_size: 256,
        ..Config::flash().truncated(8)
    }
}

#[test]
fn written_models_open_and_have_sane_numbers() {
    let folder = common::scratch("synth");
    for (label, mix) in Mix::NAMES.iter().filter(|(_, mix)| *mix != Mix::Official) {
        let config = small();
        let vocab = placeholder_vocab(&config);
        let alias = (*mix != Mix::Ds4Q2Q4).then(Alias::default);
        let spec = Spec { config, name: "small".into(), mix: *mix, alias, vocab, seed: 7 };
        let path = folder.join(format!("{label}.gguf"));
        let mut seen = Vec::new();
        synth::write(&spec, &path, &mut |written, total| seen.push((written, total))).unwrap();
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(seen.is_sorted() && seen.last() == Some(&(bytes, bytes)), "{label}");
        let checkpoint = Checkpoint::open(&path).unwrap();
        let without_mtp = Config {
            num_nextn_predict_layers: 0,
            compress_ratios: spec.config.compress_ratios[..8].to_vec(),
            ..spec.config.clone()
        };
        assert_eq!(checkpoint.config(), &without_mtp);
        assert_eq!(checkpoint.words(), &Words::Gguf(spec.vocab.clone()));
        for tensor in tensors(&spec.config) {
            let entry = checkpoint.weight(&tensor.name).unwrap();
            assert_eq!(entry.ty.scalar, mix.scalar(&tensor), "{label} {}", tensor.name);
            let [bytes, _] = common::entry_bytes(&checkpoint, &entry);
            if tensor.content() == Content::Ids {
                check_ids(&bytes, 6, 16);
            } else {
                check_numbers(&tensor.name, &entry.ty, &bytes);
            }
        }
    }
}

fn check_ids(bytes: &[u8], k: usize, experts: i32) {
    let ids: Vec<i32> = bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    for row in ids.chunks(k) {
        let distinct = std::collections::BTreeSet::from_iter(row);
        assert!(distinct.len() == k && row.iter().all(|e| (0..experts).contains(e)), "{row:?}");
    }
}

/// Mean and deviation are near what keeps activations at their size.
fn check_numbers(name: &str, ty: &ds4_ir::TensorType, bytes: &[u8]) {
    let width = *ty.constants().unwrap().last().unwrap() as usize;
    let mut numbers = Vec::new();
    let mut row = vec![0f64; width];
    for stored in bytes.chunks_exact(ty.scalar.row_bytes(width)) {
        decode_row(ty.scalar, stored, &mut row);
        numbers.extend_from_slice(&row);
    }
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!(mean.is_finite() && deviation.is_finite(), "{name} {ty}");
    if n < 2000.0 {
        return;
    }
    let wanted = match name.rsplit('.').next().unwrap() {
        "token_embd" => 1.0,
        "output" => 2.0 / (width as f64).sqrt(),
        leaf if leaf.ends_with("ape") => 0.2,
        _ => 1.0 / (width as f64).sqrt(),
    };
    assert!((deviation / wanted - 1.0).abs() < 0.08, "{name} {ty}: {deviation}, wanted {wanted}");
    assert!(mean.abs() < 6.0 * wanted / n.sqrt() + 0.01 * wanted, "{name} {ty}: mean {mean}");
}

#[test]
fn bytes_depend_on_the_seed_alone() {
    let folder = common::scratch("synth-seed");
    let config = small().truncated(2);
    let vocab = placeholder_vocab(&config);
    let write = |name: &str, seed: u64| {
        let spec = Spec {
            config: config.clone(),
            name: "x".into(),
            mix: Mix::Ds4Q2,
            alias: None,
            vocab: vocab.clone(),
            seed,
        };
        let path = folder.join(name);
        synth::write(&spec, &path, &mut |_, _| ()).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = write("a.gguf", 1);
    assert!(first == write("b.gguf", 1));
    let other = write("c.gguf", 2);
    assert!(first.len() == other.len() && first != other);
}

#[test]
fn rows_must_be_whole_blocks() {
    let config = Config { hidden_size: 320, ..small() };
    let spec = Spec { config, ..flash(None) };
    let error = synth::layout(&spec).unwrap_err().to_string();
    assert_eq!(error, "blk.0.ffn_gate_exps: expected rows of whole iq2_xxs blocks of 256, got rows of 320");
}

#[test]
fn vocabularies_come_from_tokenizer_files() {
    let config = Config { vocab_size: 5, ..small() };
    let tokenizer = |merges: serde_json::Value| {
        json!({
            "model": {"type": "BPE", "vocab": {"a": 1, "b": 2, "ab": 3}, "merges": merges},
            "added_tokens": [
                {"id": 0, "content": "<bos>", "special": true},
                {"id": 4, "content": "<think>", "special": false},
            ],
        })
    };
    let vocab = vocab_from_json(&tokenizer(json!(["a b"])).to_string(), &config).unwrap();
    assert_eq!(vocab.tokens, ["<bos>", "a", "b", "ab", "<think>"]);
    assert_eq!(vocab.token_type, [3, 1, 1, 1, 4]);
    assert_eq!(vocab.merges, ["a b"]);
    assert_eq!(vocab_from_json(&tokenizer(json!([["a", "b"]])).to_string(), &config).unwrap(), vocab);
    let refused = |json: serde_json::Value, config: &Config| {
        vocab_from_json(&json.to_string(), config).unwrap_err().to_string()
    };
    let larger = Config { vocab_size: 6, ..config.clone() };
    assert_eq!(
        refused(tokenizer(json!([])), &larger),
        "tokenizer.json: expected 6 tokens, got none with id 5"
    );
    let smaller = Config { vocab_size: 4, ..config.clone() };
    assert_eq!(
        refused(tokenizer(json!([])), &smaller),
        "tokenizer.json: expected ids below vocab_size = 4, got 4"
    );
    let mut twice = tokenizer(json!([]));
    twice["added_tokens"][1]["id"] = json!(1);
    assert_eq!(refused(twice, &config), "tokenizer.json: expected one token per id, got two with id 1");
    assert_eq!(refused(json!({}), &config), "tokenizer.json: expected model.vocab, got nothing");
    let merges = refused(tokenizer(json!([["a"]])), &config);
    assert_eq!(merges, "tokenizer.json: expected merges of two tokens, got [\"a\"]");
}

#[test]
fn aliased_layers_share_their_bytes() {
    let infos = synth::layout(&flash(Some(Alias::default()))).unwrap();
    let offset = |name: &str| infos.iter().find(|i| i.name == name).unwrap().offset;
    assert_eq!(offset("blk.4.ffn_up_exps.weight"), offset("blk.7.ffn_up_exps.weight"));
    assert_ne!(offset("blk.4.ffn_up_exps.weight"), offset("blk.5.ffn_up_exps.weight"));
    assert_ne!(offset("blk.4.attn_compressor_norm.weight"), offset("blk.7.attn_compressor_norm.weight"));
    assert_eq!(infos.iter().filter(|i| i.ty == StoredType::I32).count(), 3);
}

#[test]
fn a_written_vocabulary_encodes_like_its_file() {
    let path = common::scratch("synth-words").join("model.gguf");
    let tokenizer = |vocab| {
        let config = small().truncated(1);
        let spec = Spec { config, vocab, alias: None, ..flash(None) };
        synth::write(&spec, &path, &mut |_, _| ()).unwrap();
        match Checkpoint::open(&path).unwrap().words() {
            Words::Gguf(vocab) => Tokenizer::from_vocab(&vocab.clone().into()).map_err(|e| e.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let refused = tokenizer(placeholder_vocab(&small())).err().unwrap();
    assert!(refused.contains("tokenizer.ggml.pre: expected"), "{refused}");
    let Some(json) = words::official_json() else { return };
    let config = Config::flash();
    let vocab = vocab_from_json(std::str::from_utf8(json).unwrap(), &config).unwrap();
    let written = tokenizer(vocab).unwrap();
    let official = words::official().unwrap();
    for text in ["In the beginning", "    int x = 12345;\n\n", "中文 <think> <｜User｜>", ""] {
        assert_eq!(written.encode_raw(text), official.encode_raw(text), "{text}");
        assert_eq!(written.encode_text(text), official.encode_text(text), "{text}");
    }
}

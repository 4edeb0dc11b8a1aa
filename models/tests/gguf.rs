//! GGUF: the fixtures rewritten under both namings, whole and split; vocabularies; metadata that
//! describes no V4 model.
mod common;
#[path = "common/rewrite.rs"]
mod rewrite;

use common::{FIXTURES, contents, entry_bytes, fixture, scratch};
use ds4_models::gguf::{self, GgufVocab, Value, metadata};
use ds4_models::{Checkpoint, Config, StoredType, Words};
use rewrite::{Names, Written, convert, write};
use std::collections::BTreeMap;
use std::path::Path;

fn described(config: &Config) -> Vec<(String, Value)> {
    let mut keys = vec![("general.architecture".to_owned(), Value::str("deepseek4"))];
    keys.extend(metadata(config));
    keys
}

fn set(keys: &mut Vec<(String, Value)>, key: &str, value: Value) {
    keys.retain(|(k, _)| k != key);
    keys.push((key.to_owned(), value));
}

/// What the table must say of written tensors: type and bytes by the project's name.
fn expected(written: &[Written]) -> BTreeMap<String, (String, [Vec<u8>; 2])> {
    let item = |w: &Written| {
        let dims: Vec<String> = w.shape.iter().map(u64::to_string).collect();
        (w.of.clone(), (format!("{}[{}]", w.ty, dims.join(", ")), [w.data.clone(), Vec::new()]))
    };
    written.iter().map(item).collect()
}

#[test]
fn rewritten_fixtures_have_the_same_table() {
    for fixture_name in FIXTURES {
        let original = Checkpoint::open(&fixture(fixture_name)).unwrap();
        for q8 in [false, true] {
            let folder = scratch(&format!("gguf-{fixture_name}-{q8}"));
            let written = convert(&original, Names::DwarfStar, q8);
            assert_eq!(q8, written.iter().any(|w| w.ty == StoredType::Q8_0));
            let keys = described(original.config());
            let whole = write(&folder, "whole", &keys, &[&written]);
            let (a, b) = written.split_at(written.len() / 3);
            let split = write(&folder, "split", &keys, &[a, b]);
            let second = folder.join("split-00002-of-00002.gguf");
            for (path, n_files) in [(whole, 1), (split, 2), (second, 2)] {
                let checkpoint = Checkpoint::open(&path).unwrap();
                assert_eq!(checkpoint.config(), original.config(), "{}", path.display());
                assert_eq!((checkpoint.files().len(), checkpoint.mtp_blocks()), (n_files, 1));
                assert_eq!(checkpoint.words(), &Words::None);
                assert!(contents(&checkpoint) == expected(&written), "{}", path.display());
            }
        }
    }
}

#[test]
fn llama_cpp_counts_mtp_blocks_among_the_layers() {
    let original = Checkpoint::open(&fixture("flash-bf16")).unwrap();
    let config = original.config();
    let written = convert(&original, Names::LlamaCpp, true);
    let folder = scratch("gguf-llama");
    let mut keys = described(config);
    set(&mut keys, "deepseek4.block_count", Value::U32(6));
    set(&mut keys, "deepseek4.nextn_predict_layers", Value::U32(1));
    set(&mut keys, "deepseek4.attention.compress_ratios", Value::i32s(&[0, 0, 4, 128, 4, 0]));
    set(&mut keys, "deepseek4.swiglu_clamp_exp", Value::f32s(&[1.25; 6]));
    set(&mut keys, "deepseek4.swiglu_clamp_shexp", Value::f32s(&[1.25; 6]));
    let path = write(&folder, "model", &keys, &[&written]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.config(), config);
    let mut main = expected(&written);
    main.retain(|name, _| !name.starts_with("mtp."));
    assert!(contents(&checkpoint) == main);
    // The block's own norm is found; projections that lie side by side are no weight of their own.
    let norm = checkpoint.weight("mtp.0.norm").unwrap();
    let shared_norm = written.iter().find(|w| w.name == "blk.5.nextn.shared_head_norm.weight").unwrap();
    assert_eq!(entry_bytes(&checkpoint, &norm)[0], shared_norm.data);
    let error = checkpoint.weight("mtp.0.e_proj").unwrap_err().to_string();
    let message = "mtp.0.e_proj: expected a tensor of its own, got columns of blk.5.nextn.eh_proj.weight";
    assert_eq!(error, message);
    let unused = checkpoint.unused(&checkpoint.table().unwrap());
    assert!(unused.contains(&"blk.5.nextn.eh_proj.weight") && unused.iter().all(|n| n.starts_with("blk.5.")));

    // A file without the block may keep the key: then all blocks are layers.
    let layers: Vec<Written> = written.into_iter().filter(|w| !w.of.starts_with("mtp.")).collect();
    set(&mut keys, "deepseek4.block_count", Value::U32(5));
    let path = write(&folder, "without", &keys, &[&layers]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!((checkpoint.config().num_hidden_layers, checkpoint.mtp_blocks()), (5, 0));
    assert!(contents(&checkpoint) == main);
}

#[test]
fn layers_may_differ_in_type_and_share_bytes() {
    let original = Checkpoint::open(&fixture("flash-bf16")).unwrap();
    let mut written = convert(&original, Names::DwarfStar, false);
    let q8 = convert(&original, Names::DwarfStar, true);
    for (plain, block) in written.iter_mut().zip(q8) {
        if plain.of.starts_with("blk.4.") {
            *plain = block;
        }
    }
    let keys = described(original.config());
    let mut infos = Vec::new();
    let mut end = 0;
    for w in &written {
        // Equally long tensors of layers 0 and 1 lie at the same place.
        let twin = format!("blk.0.{}", w.of.strip_prefix("blk.1.").unwrap_or("?"));
        let shared: Option<u64> = infos.iter().find_map(|(of, info): &(String, gguf::TensorInfo)| {
            (*of == twin && info.shape == w.shape && info.ty == w.ty).then_some(info.offset)
        });
        let offset = shared.unwrap_or(end);
        if shared.is_none() {
            end = gguf::aligned(&keys, end + w.data.len() as u64);
        }
        let info = gguf::TensorInfo { name: w.name.clone(), ty: w.ty, shape: w.shape.clone(), offset };
        infos.push((w.of.clone(), info));
    }
    let infos: Vec<_> = infos.into_iter().map(|(_, info)| info).collect();
    let mut bytes = gguf::header_bytes(&keys, &infos);
    bytes.resize(bytes.len() + end as usize, 0);
    let path = scratch("gguf-shared").join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let weight = |name: &str| checkpoint.weight(name).unwrap();
    assert_eq!(weight("blk.0.ffn_up_exps").parts, weight("blk.1.ffn_up_exps").parts);
    assert_eq!(weight("blk.3.ffn_up_exps").ty.to_string(), "f32[10, 56, 96]");
    assert_eq!(weight("blk.4.ffn_up_exps").ty.to_string(), "q8_0[10, 56, 96]");
    let part = &weight("blk.4.ffn_up_exps").parts[0];
    assert_eq!((part.count, part.bytes, part.stride), (10, 56 * 102, 56 * 102));
}

#[test]
fn vocabularies_are_handed_on() {
    let config = Checkpoint::open(&fixture("flash-bf16")).unwrap().config().clone();
    let mut keys = described(&config);
    let tokens: Vec<String> = (0..320).map(|i| format!("t{i}")).collect();
    let merges = vec!["a b".to_owned(), "Ġ c".to_owned()];
    keys.push(("tokenizer.ggml.model".into(), Value::str("gpt2")));
    keys.push(("tokenizer.ggml.pre".into(), Value::str("joyai-llm")));
    keys.push(("tokenizer.ggml.tokens".into(), Value::strings(&tokens)));
    keys.push(("tokenizer.ggml.merges".into(), Value::strings(&merges)));
    keys.push(("tokenizer.ggml.token_type".into(), Value::i32s(&[1; 320])));
    keys.push(("tokenizer.ggml.bos_token_id".into(), Value::U32(3)));
    keys.push(("tokenizer.ggml.eos_token_id".into(), Value::U32(5)));
    keys.retain(|(key, _)| key != "deepseek4.vocab_size");
    let path = write(&scratch("gguf-vocab"), "model", &keys, &[&[]]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let read = checkpoint.config();
    assert_eq!((read.vocab_size, read.bos_token_id, &read.eos_token_ids), (320, 3, &vec![5]));
    let vocab = GgufVocab {
        model: "gpt2".into(),
        pre: "joyai-llm".into(),
        tokens,
        merges,
        token_type: vec![1; 320],
        bos: 3,
        eos: 5,
    };
    assert_eq!(checkpoint.words(), &Words::Gguf(vocab));
    let error = checkpoint.weight("token_embd").unwrap_err().to_string();
    assert!(error.starts_with("token_embd: expected token_embd.weight [320, 96] in "), "{error}");
}

#[test]
fn other_models_are_refused_by_key() {
    let config = Checkpoint::open(&fixture("flash-bf16")).unwrap().config().clone();
    let folder = scratch("gguf-keys");
    let cases = [
        ("general.architecture", Value::str("llama"), "expected deepseek4, got \"llama\""),
        ("deepseek4.block_count", Value::Bool(true), "expected a whole number below 2^32, got true"),
        (
            "deepseek4.block_count",
            Value::U64(1 << 40),
            "expected a whole number below 2^32, got 1099511627776",
        ),
        ("deepseek4.block_count", Value::U32(100_000), "expected 1 to 512, got 100000"),
        ("deepseek4.nextn_predict_layers", Value::U32(u32::MAX), "expected 0 to 8, got 4294967295"),
        ("deepseek4.embedding_length", Value::I32(-1), "expected a whole number below 2^32, got -1"),
        ("deepseek4.embedding_length", Value::U32(0), "expected 1 to 65536, got 0"),
        (
            "deepseek4.attention.compress_ratios",
            Value::u32s(&[0, 4]),
            "expected at least 5 entries, got 2 entries",
        ),
        ("deepseek4.attention.compress_ratios", Value::U32(4), "expected an array, got 4"),
        (
            "deepseek4.swiglu_clamp_exp",
            Value::f32s(&[10.0, 11.0]),
            "expected the same value for all layers, got an array of 2",
        ),
        ("deepseek4.swiglu_clamp_exp", Value::f32s(&[]), "expected a value per layer, got an array of 0"),
        (
            "deepseek4.swiglu_clamp_shexp",
            Value::F32(7.0),
            "expected 1.25 as deepseek4.swiglu_clamp_exp, got 7",
        ),
        (
            "deepseek4.attention.value_length",
            Value::U32(7),
            "expected 48 as deepseek4.attention.key_length, got 7",
        ),
        ("deepseek4.attention.head_count_kv", Value::U32(2), "expected 1, got 2"),
        ("deepseek4.expert_group_count", Value::U32(8), "expected 0 or 1, got 8"),
        ("deepseek4.expert_gating_func", Value::U32(2), "expected 4, got 2"),
        ("deepseek4.expert_weights_norm", Value::Bool(false), "expected true, got false"),
        ("deepseek4.expert_weights_scale", Value::F32(f32::NAN), "expected a positive number, got NaN"),
        ("deepseek4.rope.scaling.type", Value::str("linear"), "expected yarn or none, got \"linear\""),
        ("tokenizer.ggml.eos_token_id", Value::U32(400), "expected less than vocab_size = 320, got 400"),
        ("split.count", Value::U16(2000), "expected at most 1000, got 2000"),
        ("split.count", Value::U16(2), "expected a name that ends in -NNNNN-of-00002.gguf, got model.gguf"),
        ("split.count", Value::Bool(true), "expected a whole number, got another value"),
    ];
    let open = |keys: &[(String, Value)]| {
        let path = write(&folder, "model", keys, &[&[]]);
        Checkpoint::open(&path).expect_err("refused").to_string()
    };
    for (key, value, message) in cases {
        let mut keys = described(&config);
        set(&mut keys, key, value);
        let error = open(&keys);
        let said = if key.starts_with("tokenizer") { "eos_token_id" } else { key };
        assert!(error.ends_with(&format!("{said}: {message}")), "{error}\nexpected {key}: {message}");
    }
    // The others have a usual value or are only compared.
    let optional = [
        "feed_forward_length",
        "attention.head_count_kv",
        "attention.value_length",
        "expert_shared_count",
        "expert_gating_func",
        "expert_weights_norm",
        "rope.scaling.type",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
    ];
    for (key, _) in described(&config) {
        let mut keys = described(&config);
        keys.retain(|(k, _)| *k != key);
        if key.strip_prefix("deepseek4.").is_some_and(|k| optional.contains(&k)) {
            Checkpoint::open(&write(&folder, "model", &keys, &[&[]])).expect(&key);
        } else {
            let error = open(&keys);
            let named = error.starts_with(&format!("{key}: expected"));
            assert!(named && error.ends_with("got nothing"), "{error}");
        }
    }
}

#[test]
fn files_of_a_split_must_fit_together() {
    let original = Checkpoint::open(&fixture("flash-bf16")).unwrap();
    let written = convert(&original, Names::DwarfStar, false);
    let keys = described(original.config());
    let folder = scratch("gguf-split");
    let (a, b) = written.split_at(7);
    let path = write(&folder, "m", &keys, &[a, b]);
    let second = folder.join("m-00002-of-00002.gguf");
    let swap = |from: &Path, to: &Path| std::fs::copy(from, to).unwrap();
    let kept = std::fs::read(&second).unwrap();
    swap(&path, &second);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("m-00002-of-00002.gguf: split.no: expected 1, got 0"), "{error}");
    std::fs::remove_file(&second).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("m-00002-of-00002.gguf: ") && error.contains("No such file"), "{error}");
    std::fs::write(&second, kept).unwrap();
    write(&folder, "m", &keys, &[&written, b]);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("expected each tensor in one file, got a second one"), "{error}");
}

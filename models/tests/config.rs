//! Configurations: the published values, both kinds of `config.json`, and what is refused.
mod common;

use ds4_models::{Config, Yarn};
use serde_json::{Value, json};
use std::fs;

fn flash_json() -> Value {
    let text = fs::read_to_string(common::fixture("flash-bf16").join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The fixture's config with the sizes of a published model.
fn published(changes: Value) -> Value {
    let mut value = flash_json();
    for (key, change) in changes.as_object().unwrap() {
        value[key] = change.clone();
    }
    value
}

fn schedule(first: &[u32], layers: usize) -> Vec<u32> {
    let rest = (first.len()..layers).map(|i| [4, 128][i % 2]);
    first.iter().copied().chain(rest).chain([0]).collect()
}

#[test]
fn the_built_in_models_have_the_published_values() {
    let flash = json!({
        "vocab_size": 129280, "hidden_size": 4096, "num_hidden_layers": 43, "num_attention_heads": 64,
        "head_dim": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8,
        "sliding_window": 128, "compress_ratios": schedule(&[0, 0], 43), "index_n_heads": 64,
        "index_head_dim": 128, "index_topk": 512, "n_routed_experts": 256, "num_experts_per_tok": 6,
        "moe_intermediate_size": 2048, "num_hash_layers": 3, "routed_scaling_factor": 1.5, "swiglu_limit": 10.0,
    });
    let flash = published(flash);
    assert_eq!(Config::from_json(&flash.to_string()).unwrap(), Config::flash());
    let mut pro = flash;
    for (key, value) in [
        ("hidden_size", json!(7168)),
        ("num_hidden_layers", json!(61)),
        ("num_attention_heads", json!(128)),
        ("q_lora_rank", json!(1536)),
        ("o_groups", json!(16)),
        ("index_topk", json!(1024)),
        ("n_routed_experts", json!(384)),
        ("moe_intermediate_size", json!(3072)),
        ("routed_scaling_factor", json!(2.5)),
        ("compress_ratios", json!(schedule(&[128, 128], 61))),
    ] {
        pro[key] = value;
    }
    assert_eq!(Config::from_json(&pro.to_string()).unwrap(), Config::pro());
    Config::flash().check().unwrap();
    Config::flash().truncated(4).check().unwrap();
    Config::pro().check().unwrap();
}

#[test]
fn transformers_saves_the_same_model_differently() {
    let saved = include_str!("data/transformers-config.json");
    let config = Config::from_json(saved).unwrap();
    assert_eq!(config.compress_ratios, [0, 4, 128, 4, 0]);
    assert_eq!(config.num_hash_layers, 1);
    assert_eq!((config.rope_theta, config.compress_rope_theta), (10_000.0, 160_000.0));
    assert_eq!(config.yarn, Some(Yarn { factor: 16.0, original: 256, beta_fast: 32.0, beta_slow: 1.0 }));
    assert_eq!(config.qk_rope_head_dim, 8);
    let mut flat: Value = serde_json::from_str(saved).unwrap();
    let map = flat.as_object_mut().unwrap();
    for key in ["layer_types", "compress_rates", "mlp_layer_types", "partial_rotary_factor"] {
        map.remove(key).unwrap();
    }
    let rope = map.remove("rope_parameters").unwrap();
    map.insert("rope_scaling".into(), rope["compress"].clone());
    map.insert("compress_ratios".into(), json!([0, 4, 128, 4, 0]));
    map.insert("num_hash_layers".into(), json!(1));
    assert_eq!(Config::from_json(&flat.to_string()).unwrap(), config);
    // The fraction alone is enough.
    let mut fraction: Value = serde_json::from_str(saved).unwrap();
    fraction.as_object_mut().unwrap().remove("qk_rope_head_dim").unwrap();
    assert_eq!(Config::from_json(&fraction.to_string()).unwrap(), config);
}

#[test]
fn rope_without_scaling_is_plain() {
    let mut value = flash_json();
    value.as_object_mut().unwrap().remove("rope_scaling").unwrap();
    assert_eq!(Config::from_json(&value.to_string()).unwrap().yarn, None);
    value["rope_scaling"] = Value::Null;
    assert_eq!(Config::from_json(&value.to_string()).unwrap().yarn, None);
    value["rope_scaling"] = json!({"rope_type": "default"});
    assert_eq!(Config::from_json(&value.to_string()).unwrap().yarn, None);
}

#[test]
fn draft_stages_beyond_the_mtp_blocks_are_left_out() {
    let value = published(json!({"compress_ratios": [0, 0, 4, 128, 4, 0, 0, 0]}));
    assert_eq!(Config::from_json(&value.to_string()).unwrap().compress_ratios, [0, 0, 4, 128, 4, 0]);
}

#[test]
fn every_violation_names_the_key() {
    // Key, value (null removes the key), the whole message.
    let cases = [
        ("compress_ratios", json!([0, 0, 8, 128, 4, 0]), "compress_ratios[2]: expected 0, 4 or 128, got 8"),
        ("compress_ratios", json!([0, 0, 4]), "compress_ratios: expected at least 5 entries, got 3 entries"),
        ("compress_ratios", json!([0, -4, 4]), "compress_ratios[1]: expected another kind of entry, got -4"),
        ("compress_ratios", json!(4), "compress_ratios: expected a list, got 4"),
        ("compress_ratios", Value::Null, "compress_ratios: expected a list, got nothing"),
        ("vocab_size", Value::Null, "vocab_size: expected a whole number below 2^32, got nothing"),
        ("vocab_size", json!(0), "vocab_size: expected 1 to 1048576, got 0"),
        ("vocab_size", json!(4_000_000_000u64), "vocab_size: expected 1 to 1048576, got 4000000000"),
        ("vocab_size", json!(1e30), "vocab_size: expected a whole number below 2^32, got 1e+30"),
        ("hidden_size", json!(96.5), "hidden_size: expected a whole number below 2^32, got 96.5"),
        ("hidden_size", json!("96"), "hidden_size: expected a whole number below 2^32, got \"96\""),
        ("num_hidden_layers", json!(100_000), "num_hidden_layers: expected 1 to 512, got 100000"),
        ("head_dim", json!(8), "qk_rope_head_dim: expected at most head_dim = 8, got 16"),
        ("qk_rope_head_dim", json!(15), "qk_rope_head_dim: expected an even number, got 15"),
        ("qk_rope_head_dim", json!(40), "index_head_dim: expected at least qk_rope_head_dim = 40, got 32"),
        ("o_groups", json!(3), "o_groups: expected a divisor of num_attention_heads = 4, got 3"),
        (
            "num_experts_per_tok",
            json!(11),
            "num_experts_per_tok: expected at most n_routed_experts = 10, got 11",
        ),
        ("num_hash_layers", json!(6), "num_hash_layers: expected at most num_hidden_layers = 5, got 6"),
        ("num_nextn_predict_layers", json!(99), "num_nextn_predict_layers: expected 0 to 8, got 99"),
        ("scoring_func", json!("softmax"), "scoring_func: expected \"sqrtsoftplus\", got \"softmax\""),
        ("topk_method", json!("greedy"), "topk_method: expected \"noaux_tc\", got \"greedy\""),
        ("norm_topk_prob", json!(false), "norm_topk_prob: expected true, got false"),
        ("n_group", json!(8), "n_group: expected null or 0 or 1, got 8"),
        ("tie_word_embeddings", json!(true), "tie_word_embeddings: expected false, got true"),
        ("attention_bias", json!(true), "attention_bias: expected false, got true"),
        ("hidden_act", json!("gelu"), "hidden_act: expected \"silu\", got \"gelu\""),
        ("num_key_value_heads", json!(4), "num_key_value_heads: expected 1, got 4"),
        ("n_shared_experts", json!(2), "n_shared_experts: expected 1, got 2"),
        ("model_type", json!("deepseek_v3"), "model_type: expected \"deepseek_v4\", got \"deepseek_v3\""),
        ("eos_token_id", json!(320), "eos_token_id: expected less than vocab_size = 320, got 320"),
        ("eos_token_id", json!([]), "eos_token_id: expected at least one token, got none"),
        ("swiglu_limit", json!(-1), "swiglu_limit: expected a positive number, got -1"),
        ("rms_norm_eps", json!(1e-60), "rms_norm_eps: expected a positive number, got 0.000000000000"),
        ("hc_sinkhorn_iters", json!(1_000_000), "hc_sinkhorn_iters: expected 1 to 1000, got 1000000"),
        ("rope_theta", json!(0.5), "rope_theta: expected more than 1, got 0.5"),
        (
            "rope_scaling",
            json!({"type": "linear", "factor": 2}),
            "rope_scaling.type: expected yarn or default, got \"linear\"",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 2}),
            "rope_scaling.original_max_position_embeddings: expected a whole number below 2^32, got nothing",
        ),
        ("rope_scaling", json!(7), "rope_scaling: expected an object, got 7"),
        (
            "layer_types",
            json!(["sliding_attention", "full_attention"]),
            "layer_types[1]: expected one of the three attention kinds of V4, got full_attention",
        ),
        (
            "layer_types",
            json!(["compressed_sparse_attention"]),
            "layer_types: expected the schedule of compress_ratios, got another",
        ),
        (
            "mlp_layer_types",
            json!(["moe", "hash_moe"]),
            "mlp_layer_types[1]: expected hash_moe for the first layers, then moe, got hash_moe",
        ),
        (
            "partial_rotary_factor",
            json!(0.5),
            "partial_rotary_factor: expected qk_rope_head_dim / head_dim, which is 16 channels, got 24 channels",
        ),
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "quantization_config.quant_method: expected \"fp8\", got \"gptq\"",
        ),
        (
            "quantization_config",
            json!({"weight_block_size": [64, 64]}),
            "quantization_config.weight_block_size: expected [128,128], got [64,64]",
        ),
    ];
    for (key, value, message) in cases {
        let mut changed = flash_json();
        match value {
            Value::Null => drop(changed.as_object_mut().unwrap().remove(key)),
            value => changed[key] = value,
        }
        let error = Config::from_json(&changed.to_string()).expect_err(message).to_string();
        assert!(error.starts_with(message), "{error}\nexpected {message}");
    }
}

#[test]
fn garbage_is_no_configuration() {
    let deep = "[".repeat(100_000);
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20));
    for text in ["", "{", "[]", "null", "\u{0}", "{\"vocab_size\": 1}", &deep, &long] {
        let error = Config::from_json(text).unwrap_err().to_string();
        assert!(error.len() < 400, "{error}");
    }
}

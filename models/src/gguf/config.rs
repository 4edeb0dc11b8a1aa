//! Hyperparameters to and from GGUF metadata (spec 4.2).
use super::{Metadata, Value};
use crate::config::limits::{LAYERS_MAX, MTP_MAX};
use crate::{Config, Error, Result, Yarn};

/// The only architecture read and written.
const ARCHITECTURE: &str = "deepseek4";
/// `expert_gating_func` of the square root of softplus (spec E.6).
const SQRT_SOFTPLUS: u32 = 4;

/// Keys of `config.json` and what the same is called here.
const KEYS: &[(&str, &str)] = &[
    ("vocab_size", "vocab_size"),
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("head_dim", "attention.key_length"),
    ("qk_rope_head_dim", "rope.dimension_count"),
    ("q_lora_rank", "attention.q_lora_rank"),
    ("o_groups", "attention.output_group_count"),
    ("o_lora_rank", "attention.output_lora_rank"),
    ("sliding_window", "attention.sliding_window"),
    ("index_n_heads", "attention.indexer.head_count"),
    ("index_head_dim", "attention.indexer.key_length"),
    ("index_topk", "attention.indexer.top_k"),
    ("n_routed_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("num_hash_layers", "hash_layer_count"),
    ("routed_scaling_factor", "expert_weights_scale"),
    ("swiglu_limit", "swiglu_clamp_exp"),
    ("hc_mult", "hyper_connection.count"),
    ("hc_sinkhorn_iters", "hyper_connection.sinkhorn_iterations"),
    ("hc_eps", "hyper_connection.epsilon"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("compress_rope_theta", "attention.compress_rope_freq_base"),
    ("rope_scaling.factor", "rope.scaling.factor"),
    ("rope_scaling.original_max_position_embeddings", "rope.scaling.original_context_length"),
    ("rope_scaling.beta_fast", "rope.scaling.yarn_beta_fast"),
    ("rope_scaling.beta_slow", "rope.scaling.yarn_beta_slow"),
    ("max_position_embeddings", "context_length"),
    ("num_nextn_predict_layers", "nextn_predict_layers"),
    ("compress_ratios", "attention.compress_ratios"),
];

/// The metadata key that stands for a key of `config.json`.
fn key(json: &str) -> String {
    let (_, name) = KEYS.iter().find(|(k, _)| *k == json).expect("a key of the table");
    format!("{ARCHITECTURE}.{name}")
}

/// Reads the configuration. `has` tells whether the model has a tensor of some name.
pub(super) fn read(metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Config> {
    match metadata.get("general.architecture").and_then(Value::as_str) {
        Some(ARCHITECTURE) => {}
        _ => return metadata.wrong("general.architecture", ARCHITECTURE),
    }
    refuse_other_models(metadata)?;
    let (layers, mtp) = blocks(metadata, has)?;
    let u32 = |json: &str| metadata.u32(&key(json));
    let f64 = |json: &str| metadata.f64(&key(json));
    let config = Config {
        vocab_size: vocab_size(metadata)?,
        hidden_size: u32("hidden_size")?,
        num_hidden_layers: layers,
        num_attention_heads: u32("num_attention_heads")?,
        head_dim: u32("head_dim")?,
        qk_rope_head_dim: u32("qk_rope_head_dim")?,
        q_lora_rank: u32("q_lora_rank")?,
        o_groups: u32("o_groups")?,
        o_lora_rank: u32("o_lora_rank")?,
        sliding_window: u32("sliding_window")?,
        index_n_heads: u32("index_n_heads")?,
        index_head_dim: u32("index_head_dim")?,
        index_topk: u32("index_topk")?,
        n_routed_experts: u32("n_routed_experts")?,
        num_experts_per_tok: u32("num_experts_per_tok")?,
        moe_intermediate_size: u32("moe_intermediate_size")?,
        num_hash_layers: u32("num_hash_layers")?,
        routed_scaling_factor: f64("routed_scaling_factor")?,
        swiglu_limit: f64("swiglu_limit")?,
        hc_mult: u32("hc_mult")?,
        hc_sinkhorn_iters: u32("hc_sinkhorn_iters")?,
        hc_eps: f64("hc_eps")?,
        rms_norm_eps: f64("rms_norm_eps")?,
        rope_theta: f64("rope_theta")?,
        compress_rope_theta: f64("compress_rope_theta")?,
        yarn: yarn(metadata)?,
        max_position_embeddings: u32("max_position_embeddings")?,
        num_nextn_predict_layers: mtp,
        compress_ratios: ratios(metadata, layers, mtp)?,
        bos_token_id: metadata.u32_or("tokenizer.ggml.bos_token_id", 0)?,
        eos_token_ids: vec![metadata.u32_or("tokenizer.ggml.eos_token_id", 1)?],
    };
    config.check().map_err(in_our_words)?;
    Ok(config)
}

/// A violation under the metadata's name of the key.
fn in_our_words(error: Error) -> Error {
    match error {
        Error::Config { key: json, expected, got } => {
            let (name, rest) = json.split_at(json.find('[').unwrap_or(json.len()));
            let known = KEYS.iter().any(|(k, _)| *k == name);
            let key = if known { format!("{}{rest}", key(name)) } else { json };
            Error::Config { key, expected, got }
        }
        other => other,
    }
}

fn refuse_other_models(metadata: &Metadata) -> Result<()> {
    let at_most_one = [
        ("attention.head_count_kv", 1, 1),
        ("expert_shared_count", 1, 1),
        ("expert_group_count", 0, 1),
        ("expert_group_used_count", 0, 1),
        ("expert_gating_func", SQRT_SOFTPLUS, SQRT_SOFTPLUS),
    ];
    for (name, low, high) in at_most_one {
        let key = format!("{ARCHITECTURE}.{name}");
        let value = metadata.u32_or(&key, high)?;
        if !(low..=high).contains(&value) {
            let expected = if low == high { low.to_string() } else { format!("{low} or {high}") };
            return Err(Error::config(key, expected, value));
        }
    }
    let norm = format!("{ARCHITECTURE}.expert_weights_norm");
    if !matches!(metadata.get(&norm), None | Some(Value::Bool(true))) {
        return metadata.wrong(&norm, "true");
    }
    for (name, like) in [("attention.value_length", "head_dim"), ("swiglu_clamp_shexp", "swiglu_limit")] {
        let name = format!("{ARCHITECTURE}.{name}");
        let expected = metadata.f64(&key(like))?;
        if metadata.f64_or(&name, expected)? != expected {
            return metadata.wrong(&name, &format!("{expected} as {}", key(like)));
        }
    }
    Ok(())
}

/// Layers of the main stack and MTP blocks.
///
/// llama.cpp counts MTP blocks among `block_count` where the file has them, and leaves the key
/// `nextn_predict_layers` in files without them. DwarfStar never counts them.
fn blocks(metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<(u32, u32)> {
    let all = metadata.u32(&key("num_hidden_layers"))?;
    let nextn = metadata.u32_or(&key("num_nextn_predict_layers"), 0)?;
    let inside = all.checked_sub(nextn).filter(|n| has(&format!("blk.{n}.nextn.eh_proj.weight")));
    let layers = if nextn == 0 { all } else { inside.unwrap_or(all) };
    if LAYERS_MAX < layers {
        return Err(Error::config(key("num_hidden_layers"), format!("1 to {LAYERS_MAX}"), layers));
    }
    if MTP_MAX < nextn {
        return Err(Error::config(key("num_nextn_predict_layers"), format!("0 to {MTP_MAX}"), nextn));
    }
    let apart = (0..MTP_MAX).take_while(|j| has(&format!("mtp.{j}.e_proj.weight"))).count() as u32;
    Ok((layers, nextn.max(apart)))
}

fn vocab_size(metadata: &Metadata) -> Result<u32> {
    let key = key("vocab_size");
    match (metadata.get(&key), metadata.get("tokenizer.ggml.tokens")) {
        (None, Some(Value::Array(_, tokens))) => Ok(tokens.len() as u32),
        _ => metadata.u32(&key),
    }
}

fn ratios(metadata: &Metadata, layers: u32, mtp: u32) -> Result<Vec<u32>> {
    let key = key("compress_ratios");
    let mut ratios = metadata.u32s(&key)?;
    if ratios.len() < layers as usize {
        let got = format!("{} entries", ratios.len());
        return Err(Error::config(key, format!("at least {layers} entries"), got));
    }
    ratios.resize((layers + mtp) as usize, 0);
    Ok(ratios)
}

fn yarn(metadata: &Metadata) -> Result<Option<Yarn>> {
    let kind = format!("{ARCHITECTURE}.rope.scaling.type");
    match metadata.get(&kind).map(Value::as_str) {
        None | Some(Some("none")) => Ok(None),
        Some(Some("yarn")) => Ok(Some(Yarn {
            factor: metadata.f64(&key("rope_scaling.factor"))?,
            original: metadata.u32(&key("rope_scaling.original_max_position_embeddings"))?,
            beta_fast: metadata.f64_or(&key("rope_scaling.beta_fast"), 32.0)?,
            beta_slow: metadata.f64_or(&key("rope_scaling.beta_slow"), 1.0)?,
        })),
        _ => metadata.wrong(&kind, "yarn or none"),
    }
}

/// The metadata that describes a model of this configuration, without name and vocabulary, in the
/// order of DwarfStar's files.
pub fn metadata(config: &Config) -> Vec<(String, Value)> {
    let layers = config.num_hidden_layers as usize;
    let u32 = |name: &str, value: u32| (format!("{ARCHITECTURE}.{name}"), Value::U32(value));
    let f32 = |name: &str, value: f64| (format!("{ARCHITECTURE}.{name}"), Value::F32(value as f32));
    let mut all = vec![
        u32("block_count", config.num_hidden_layers),
        u32("context_length", config.max_position_embeddings),
        u32("embedding_length", config.hidden_size),
        u32("vocab_size", config.vocab_size),
        u32("feed_forward_length", config.moe_intermediate_size),
        u32("attention.head_count", config.num_attention_heads),
        u32("attention.head_count_kv", 1),
        u32("attention.key_length", config.head_dim),
        u32("attention.value_length", config.head_dim),
        u32("rope.dimension_count", config.qk_rope_head_dim),
        u32("attention.q_lora_rank", config.q_lora_rank),
        u32("attention.output_lora_rank", config.o_lora_rank),
        u32("attention.output_group_count", config.o_groups),
        u32("expert_count", config.n_routed_experts),
        u32("expert_used_count", config.num_experts_per_tok),
        u32("expert_feed_forward_length", config.moe_intermediate_size),
        u32("expert_shared_count", 1),
        u32("hash_layer_count", config.num_hash_layers),
        u32("expert_gating_func", SQRT_SOFTPLUS),
        u32("attention.sliding_window", config.sliding_window),
        u32("attention.indexer.head_count", config.index_n_heads),
        u32("attention.indexer.key_length", config.index_head_dim),
        u32("attention.indexer.top_k", config.index_topk),
        u32("hyper_connection.count", config.hc_mult),
        u32("hyper_connection.sinkhorn_iterations", config.hc_sinkhorn_iters),
        f32("hyper_connection.epsilon", config.hc_eps),
        f32("attention.layer_norm_rms_epsilon", config.rms_norm_eps),
        f32("expert_weights_scale", config.routed_scaling_factor),
        (format!("{ARCHITECTURE}.expert_weights_norm"), Value::Bool(true)),
        f32("rope.freq_base", config.rope_theta),
        f32("attention.compress_rope_freq_base", config.compress_rope_theta),
    ];
    if let Some(yarn) = &config.yarn {
        all.push((format!("{ARCHITECTURE}.rope.scaling.type"), Value::str("yarn")));
        all.push(f32("rope.scaling.factor", yarn.factor));
        all.push(u32("rope.scaling.original_context_length", yarn.original));
        all.push(f32("rope.scaling.yarn_beta_fast", yarn.beta_fast));
        all.push(f32("rope.scaling.yarn_beta_slow", yarn.beta_slow));
    }
    let ratios = Value::u32s(&config.compress_ratios[..layers]);
    let clamps = Value::f32s(&vec![config.swiglu_limit as f32; layers]);
    all.push((key("compress_ratios"), ratios));
    all.push((key("swiglu_limit"), clamps));
    all
}

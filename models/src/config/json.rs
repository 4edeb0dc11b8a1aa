//! Reads `config.json`, as the publisher ships it and as Hugging Face transformers saves it.
//!
//! The two differ in three places: the layer schedule (`compress_ratios` or `layer_types` with
//! `compress_rates`), hash routing (`num_hash_layers` or `mlp_layer_types`) and RoPE
//! (`rope_theta`, `compress_rope_theta`, `rope_scaling` or nested `rope_parameters`).
use super::fields::Fields;
use super::limits::{CONFIG_BYTES_MAX, LAYERS_MAX};
use super::{Config, Yarn};
use crate::{Error, Result};
use serde_json::Value;

impl Config {
    /// Reads a configuration from the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key: JSON that does not parse, absent or ill-typed keys, values
    /// out of range, and values that stand for a model ds4 does not compute.
    pub fn from_json(text: &str) -> Result<Config> {
        if CONFIG_BYTES_MAX < text.len() as u64 {
            let got = format!("{} bytes", text.len());
            return Err(Error::config("config.json", format!("at most {CONFIG_BYTES_MAX} bytes"), got));
        }
        let value: Value = serde_json::from_str(text).map_err(|e| Error::config("config.json", "JSON", e))?;
        let Value::Object(map) = &value else {
            return Err(Error::config("config.json", "an object", &value));
        };
        let fields = Fields { map, prefix: "" };
        refuse_other_models(&fields)?;
        let rope = rope(&fields)?;
        let num_hidden_layers = fields.u32("num_hidden_layers")?;
        let num_nextn_predict_layers = fields.u32_or("num_nextn_predict_layers", 0)?;
        let config = Config {
            vocab_size: fields.u32("vocab_size")?,
            hidden_size: fields.u32("hidden_size")?,
            num_hidden_layers,
            num_attention_heads: fields.u32("num_attention_heads")?,
            head_dim: fields.u32("head_dim")?,
            qk_rope_head_dim: rotary_channels(&fields)?,
            q_lora_rank: fields.u32("q_lora_rank")?,
            o_groups: fields.u32("o_groups")?,
            o_lora_rank: fields.u32("o_lora_rank")?,
            sliding_window: fields.u32("sliding_window")?,
            index_n_heads: fields.u32("index_n_heads")?,
            index_head_dim: fields.u32("index_head_dim")?,
            index_topk: fields.u32("index_topk")?,
            n_routed_experts: fields.u32("n_routed_experts")?,
            num_experts_per_tok: fields.u32("num_experts_per_tok")?,
            moe_intermediate_size: fields.u32("moe_intermediate_size")?,
            num_hash_layers: hash_layers(&fields, num_hidden_layers)?,
            routed_scaling_factor: fields.f64("routed_scaling_factor")?,
            swiglu_limit: fields.f64("swiglu_limit")?,
            hc_mult: fields.u32("hc_mult")?,
            hc_sinkhorn_iters: fields.u32("hc_sinkhorn_iters")?,
            hc_eps: fields.f64("hc_eps")?,
            rms_norm_eps: fields.f64("rms_norm_eps")?,
            rope_theta: rope.plain_base,
            compress_rope_theta: rope.compressed_base,
            yarn: rope.yarn,
            max_position_embeddings: fields.u32("max_position_embeddings")?,
            num_nextn_predict_layers,
            compress_ratios: ratios(&fields, num_hidden_layers, num_nextn_predict_layers)?,
            bos_token_id: fields.u32_or("bos_token_id", 0)?,
            eos_token_ids: eos_tokens(&fields)?,
        };
        config.check()?;
        Ok(config)
    }
}

/// Keys whose other values mean another model. An absent key means the value given here.
const FIXED: &[(&str, &[&str])] = &[
    ("model_type", &["\"deepseek_v4\""]),
    ("hidden_act", &["\"silu\""]),
    ("scoring_func", &["\"sqrtsoftplus\""]),
    ("topk_method", &["\"noaux_tc\""]),
    ("norm_topk_prob", &["true"]),
    ("num_key_value_heads", &["1"]),
    ("n_shared_experts", &["1"]),
    ("tie_word_embeddings", &["false"]),
    ("attention_bias", &["false"]),
    ("mlp_bias", &["false"]),
    ("n_group", &["null", "0", "1"]),
    ("topk_group", &["null", "0", "1"]),
];

fn refuse_other_models(fields: &Fields<'_>) -> Result<()> {
    for (key, allowed) in FIXED {
        let Some(value) = fields.map.get(*key) else { continue };
        if !allowed.contains(&value.to_string().as_str()) {
            return Err(Error::config(*key, allowed.join(" or "), value));
        }
    }
    if let Some(quantization) = fields.object("quantization_config")? {
        quantization.fixed("quant_method", "\"fp8\"")?;
        quantization.fixed("fmt", "\"e4m3\"")?;
        quantization.fixed("weight_block_size", "[128,128]")?;
    }
    Ok(())
}

/// RoPE of both layer kinds.
struct Rope {
    plain_base: f64,
    compressed_base: f64,
    yarn: Option<Yarn>,
}

fn rope(fields: &Fields<'_>) -> Result<Rope> {
    let parameters = fields.object("rope_parameters")?;
    if let Some(parameters) = &parameters
        && let (Some(main), Some(compress)) = (
            parameters.nested("main", "rope_parameters.main.")?,
            parameters.nested("compress", "rope_parameters.compress.")?,
        )
    {
        if yarn(&main)?.is_some() {
            return Err(Error::config("rope_parameters.main.rope_type", "default", "yarn"));
        }
        for part in [&main, &compress] {
            rotary_agrees(fields, part)?;
        }
        return Ok(Rope {
            plain_base: main.f64("rope_theta")?,
            compressed_base: compress.f64("rope_theta")?,
            yarn: yarn(&compress)?,
        });
    }
    let flat = match fields.object("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => parameters,
    };
    Ok(Rope {
        plain_base: fields.f64("rope_theta")?,
        compressed_base: fields.f64("compress_rope_theta")?,
        yarn: flat.map_or(Ok(None), |scaling| yarn(&scaling))?,
    })
}

/// The scaling that one RoPE description asks for.
fn yarn(scaling: &Fields<'_>) -> Result<Option<Yarn>> {
    let (key, kind) = match scaling.map.get("rope_type") {
        Some(kind) => ("rope_type", Some(kind)),
        None => ("type", scaling.map.get("type")),
    };
    match kind.and_then(Value::as_str) {
        Some("default") => return Ok(None),
        Some("yarn") => {}
        None if kind.is_none() && scaling.map.get("factor").is_none() => return Ok(None),
        _ => {
            let got = kind.map_or("nothing".into(), Value::to_string);
            return Err(Error::config(scaling.key(key), "yarn or default", got));
        }
    }
    // Spec 2.2: cosines and sines are not scaled.
    let magnitude = scaling.f64_or("attention_factor", 1.0)?;
    if magnitude != 1.0 {
        return Err(Error::config(scaling.key("attention_factor"), "1", magnitude));
    }
    Ok(Some(Yarn {
        factor: scaling.f64("factor")?,
        original: scaling.u32("original_max_position_embeddings")?,
        beta_fast: scaling.f64_or("beta_fast", 32.0)?,
        beta_slow: scaling.f64_or("beta_slow", 1.0)?,
    }))
}

/// `qk_rope_head_dim`, or the same as a fraction of `head_dim`.
fn rotary_channels(fields: &Fields<'_>) -> Result<u32> {
    if fields.present("qk_rope_head_dim") {
        rotary_agrees(fields, fields)?;
        return fields.u32("qk_rope_head_dim");
    }
    if fields.present("partial_rotary_factor") {
        return rotary_fraction(fields, fields);
    }
    fields.u32("qk_rope_head_dim")
}

/// Channels that the `partial_rotary_factor` of `part` stands for.
fn rotary_fraction(fields: &Fields<'_>, part: &Fields<'_>) -> Result<u32> {
    let factor = part.f64("partial_rotary_factor")?;
    if !(0.0..=1.0).contains(&factor) {
        return Err(Error::config(part.key("partial_rotary_factor"), "0 to 1", factor));
    }
    // The quotient was rounded when it was written; a whole number lies very near.
    Ok((f64::from(fields.u32("head_dim")?) * factor + 1e-6).floor() as u32)
}

fn rotary_agrees(fields: &Fields<'_>, part: &Fields<'_>) -> Result<()> {
    if !part.present("partial_rotary_factor") || !fields.present("qk_rope_head_dim") {
        return Ok(());
    }
    let (channels, fraction) = (fields.u32("qk_rope_head_dim")?, rotary_fraction(fields, part)?);
    if channels != fraction {
        let expected = format!("qk_rope_head_dim / head_dim, which is {channels} channels");
        return Err(Error::config(
            part.key("partial_rotary_factor"),
            expected,
            format!("{fraction} channels"),
        ));
    }
    Ok(())
}

/// One ratio per layer and MTP block, from whichever schedule is there.
fn ratios(fields: &Fields<'_>, layers: u32, mtp: u32) -> Result<Vec<u32>> {
    if LAYERS_MAX < layers {
        return Err(Error::config("num_hidden_layers", format!("1 to {LAYERS_MAX}"), layers));
    }
    let listed = fields.list("compress_ratios", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))?;
    let typed = layer_types(fields)?;
    let (key, mut ratios) = match (listed, typed) {
        (Some(listed), typed) => {
            if let Some(typed) = typed
                && !listed.starts_with(&typed)
            {
                return Err(Error::config("layer_types", "the schedule of compress_ratios", "another"));
            }
            ("compress_ratios", listed)
        }
        (None, Some(typed)) => ("layer_types", typed),
        (None, None) => return Err(Error::config("compress_ratios", "a list", "nothing")),
    };
    if ratios.len() < layers as usize {
        let got = format!("{} entries", ratios.len());
        return Err(Error::config(key, format!("at least {layers} entries"), got));
    }
    // Draft stages that are no MTP blocks have entries of their own (spec appendix B); a schedule
    // that knows no MTP block means window-only ones (spec 1.2).
    ratios.resize((layers + mtp.min(super::limits::MTP_MAX)) as usize, 0);
    Ok(ratios)
}

/// The schedule as transformers writes it.
fn layer_types(fields: &Fields<'_>) -> Result<Option<Vec<u32>>> {
    let Some(types) = fields.list("layer_types", |v| v.as_str().map(str::to_owned))? else {
        return Ok(None);
    };
    let rates = fields.object("compress_rates")?;
    let rate = |kind: &str, usual: u32| rates.as_ref().map_or(Ok(usual), |r| r.u32_or(kind, usual));
    let ratio = |(i, kind): (usize, &String)| match kind.as_str() {
        "sliding_attention" => Ok(0),
        "compressed_sparse_attention" => rate(kind, 4),
        "heavily_compressed_attention" => rate(kind, 128),
        _ => Err(Error::config(format!("layer_types[{i}]"), "one of the three attention kinds of V4", kind)),
    };
    types.iter().enumerate().map(ratio).collect::<Result<_>>().map(Some)
}

fn hash_layers(fields: &Fields<'_>, layers: u32) -> Result<u32> {
    let Some(types) = fields.list("mlp_layer_types", |v| v.as_str().map(str::to_owned))? else {
        return fields.u32("num_hash_layers");
    };
    let hashed = types.iter().take_while(|t| *t == "hash_moe").count();
    if let Some(i) = (hashed..types.len()).find(|i| types[*i] != "moe") {
        let expected = "hash_moe for the first layers, then moe";
        return Err(Error::config(format!("mlp_layer_types[{i}]"), expected, &types[i]));
    }
    if types.len() != layers as usize {
        let got = format!("{} entries", types.len());
        return Err(Error::config("mlp_layer_types", format!("{layers} entries"), got));
    }
    let hashed = hashed as u32;
    if fields.present("num_hash_layers") && fields.u32("num_hash_layers")? != hashed {
        return Err(Error::config("num_hash_layers", format!("{hashed} as in mlp_layer_types"), "another"));
    }
    Ok(hashed)
}

fn eos_tokens(fields: &Fields<'_>) -> Result<Vec<u32>> {
    match fields.map.get("eos_token_id") {
        Some(Value::Array(_)) => {
            let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
            Ok(fields.list("eos_token_id", id)?.unwrap_or_default())
        }
        _ => Ok(vec![fields.u32_or("eos_token_id", 1)?]),
    }
}

//! What every configuration must satisfy, whichever file it came from.
use super::Config;
use crate::{Error, Result};

/// The largest values that are taken for sizes rather than for damage. Each leaves the real models
/// at least a factor of four.
pub mod limits {
    /// `vocab_size`.
    pub const VOCAB_MAX: u32 = 1 << 20;
    /// `hidden_size`, `q_lora_rank`, `o_lora_rank`, `moe_intermediate_size`.
    pub const WIDTH_MAX: u32 = 1 << 16;
    /// `num_hidden_layers`.
    pub const LAYERS_MAX: u32 = 512;
    /// `num_nextn_predict_layers`.
    pub const MTP_MAX: u32 = 8;
    /// `num_attention_heads`, `index_n_heads`, `o_groups`.
    pub const HEADS_MAX: u32 = 2048;
    /// `head_dim`, `index_head_dim`.
    pub const HEAD_DIM_MAX: u32 = 4096;
    /// `n_routed_experts`.
    pub const EXPERTS_MAX: u32 = 4096;
    /// `sliding_window`, `index_topk`.
    pub const WINDOW_MAX: u32 = 1 << 16;
    /// `hc_mult`.
    pub const STREAMS_MAX: u32 = 16;
    /// `hc_sinkhorn_iters`.
    pub const SINKHORN_MAX: u32 = 1000;
    /// `max_position_embeddings` and the original context of YaRN.
    pub const CONTEXT_MAX: u32 = 1 << 26;
    /// Bytes of a `config.json`.
    pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
}
use limits::*;

impl Config {
    /// Checks ranges and the relations between fields.
    ///
    /// # Errors
    /// [`Error::Config`] for the first violation, under the key of `config.json`.
    pub fn check(&self) -> Result<()> {
        self.check_sizes()?;
        self.check_numbers()?;
        self.check_relations()?;
        self.check_ratios()
    }

    fn check_sizes(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1, VOCAB_MAX),
            ("hidden_size", self.hidden_size, 1, WIDTH_MAX),
            ("num_hidden_layers", self.num_hidden_layers, 1, LAYERS_MAX),
            ("num_attention_heads", self.num_attention_heads, 1, HEADS_MAX),
            ("head_dim", self.head_dim, 2, HEAD_DIM_MAX),
            ("qk_rope_head_dim", self.qk_rope_head_dim, 2, HEAD_DIM_MAX),
            ("q_lora_rank", self.q_lora_rank, 1, WIDTH_MAX),
            ("o_groups", self.o_groups, 1, HEADS_MAX),
            ("o_lora_rank", self.o_lora_rank, 1, WIDTH_MAX),
            ("sliding_window", self.sliding_window, 1, WINDOW_MAX),
            ("index_n_heads", self.index_n_heads, 1, HEADS_MAX),
            ("index_head_dim", self.index_head_dim, 2, HEAD_DIM_MAX),
            ("index_topk", self.index_topk, 1, WINDOW_MAX),
            ("n_routed_experts", self.n_routed_experts, 1, EXPERTS_MAX),
            ("num_experts_per_tok", self.num_experts_per_tok, 1, EXPERTS_MAX),
            ("moe_intermediate_size", self.moe_intermediate_size, 1, WIDTH_MAX),
            ("num_hash_layers", self.num_hash_layers, 0, LAYERS_MAX),
            ("hc_mult", self.hc_mult, 1, STREAMS_MAX),
            ("hc_sinkhorn_iters", self.hc_sinkhorn_iters, 1, SINKHORN_MAX),
            ("max_position_embeddings", self.max_position_embeddings, 1, CONTEXT_MAX),
            ("num_nextn_predict_layers", self.num_nextn_predict_layers, 0, MTP_MAX),
        ];
        for (key, value, min, max) in sizes {
            if value < min || max < value {
                return Err(Error::config(key, format!("{min} to {max}"), value));
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<()> {
        let mut numbers = vec![
            ("routed_scaling_factor", self.routed_scaling_factor),
            ("swiglu_limit", self.swiglu_limit),
            ("hc_eps", self.hc_eps),
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
            ("compress_rope_theta", self.compress_rope_theta),
        ];
        if let Some(yarn) = &self.yarn {
            numbers.push(("rope_scaling.factor", yarn.factor));
            numbers.push(("rope_scaling.beta_fast", yarn.beta_fast));
            numbers.push(("rope_scaling.beta_slow", yarn.beta_slow));
            if yarn.original < 1 || CONTEXT_MAX < yarn.original {
                let key = "rope_scaling.original_max_position_embeddings";
                return Err(Error::config(key, format!("1 to {CONTEXT_MAX}"), yarn.original));
            }
        }
        for (key, value) in numbers {
            // The numbers reach kernels as f32.
            if !(value as f32).is_normal() || value < 0.0 {
                return Err(Error::config(key, "a positive number", value));
            }
        }
        for (key, base) in
            [("rope_theta", self.rope_theta), ("compress_rope_theta", self.compress_rope_theta)]
        {
            if base <= 1.0 {
                return Err(Error::config(key, "more than 1", base));
            }
        }
        Ok(())
    }

    fn check_relations(&self) -> Result<()> {
        let rope = self.qk_rope_head_dim;
        if !rope.is_multiple_of(2) {
            return Err(Error::config("qk_rope_head_dim", "an even number", rope));
        }
        if self.head_dim < rope {
            let expected = format!("at most head_dim = {}", self.head_dim);
            return Err(Error::config("qk_rope_head_dim", expected, rope));
        }
        if self.compress_ratios.contains(&4) && self.index_head_dim < rope {
            let expected = format!("at least qk_rope_head_dim = {rope}");
            return Err(Error::config("index_head_dim", expected, self.index_head_dim));
        }
        if !self.num_attention_heads.is_multiple_of(self.o_groups) {
            let expected = format!("a divisor of num_attention_heads = {}", self.num_attention_heads);
            return Err(Error::config("o_groups", expected, self.o_groups));
        }
        if self.n_routed_experts < self.num_experts_per_tok {
            let expected = format!("at most n_routed_experts = {}", self.n_routed_experts);
            return Err(Error::config("num_experts_per_tok", expected, self.num_experts_per_tok));
        }
        if self.num_hidden_layers < self.num_hash_layers {
            let expected = format!("at most num_hidden_layers = {}", self.num_hidden_layers);
            return Err(Error::config("num_hash_layers", expected, self.num_hash_layers));
        }
        let tokens = [("bos_token_id", self.bos_token_id)];
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        for (key, id) in tokens.into_iter().chain(ends) {
            if self.vocab_size <= id {
                let expected = format!("less than vocab_size = {}", self.vocab_size);
                return Err(Error::config(key, expected, id));
            }
        }
        if self.eos_token_ids.is_empty() {
            return Err(Error::config("eos_token_id", "at least one token", "none"));
        }
        Ok(())
    }

    fn check_ratios(&self) -> Result<()> {
        let layers = (self.num_hidden_layers + self.num_nextn_predict_layers) as usize;
        if self.compress_ratios.len() != layers {
            let got = format!("{} entries", self.compress_ratios.len());
            return Err(Error::config("compress_ratios", format!("{layers} entries"), got));
        }
        for (i, ratio) in self.compress_ratios.iter().enumerate() {
            if ![0, 4, 128].contains(ratio) {
                return Err(Error::config(format!("compress_ratios[{i}]"), "0, 4 or 128", ratio));
            }
        }
        Ok(())
    }
}

//! The hyperparameters of a DeepSeek V4 model.
//!
//! A [`Config`] that exists has passed [`Config::check`]: whoever builds a graph from it may rely
//! on every extent being positive and bounded, and on the divisions it needs coming out even.
mod check;
mod fields;
mod json;

pub use check::limits;

/// RoPE scaling of compressed layers (spec 2.2).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Yarn {
    /// `factor`: how much the slow frequencies are stretched.
    pub factor: f64,
    /// `original_max_position_embeddings`: context before stretching, in tokens.
    pub original: u32,
    /// `beta_fast`: turns over the original context above which a pair is left alone.
    pub beta_fast: f64,
    /// `beta_slow`: turns over the original context below which a pair is stretched fully.
    pub beta_slow: f64,
}

/// A model's hyperparameters under the names of the official `config.json` (spec 1.1).
///
/// What every V4 model has in common is not here: one KV head, one shared expert, square root of
/// softplus as router score, normalised expert weights, no biases, untied head.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// `vocab_size`: tokens.
    pub vocab_size: u32,
    /// `hidden_size`: width of a residual stream.
    pub hidden_size: u32,
    /// `num_hidden_layers`: layers of the main stack.
    pub num_hidden_layers: u32,
    /// `num_attention_heads`: query heads.
    pub num_attention_heads: u32,
    /// `head_dim`: width of a query head and of the one key/value vector.
    pub head_dim: u32,
    /// `qk_rope_head_dim`: rotary channels, the last ones of each head.
    pub qk_rope_head_dim: u32,
    /// `q_lora_rank`: rank of the query projection.
    pub q_lora_rank: u32,
    /// `o_groups`: head groups of the output projection.
    pub o_groups: u32,
    /// `o_lora_rank`: output rank of each group.
    pub o_lora_rank: u32,
    /// `sliding_window`: uncompressed positions a query sees, its own included.
    pub sliding_window: u32,
    /// `index_n_heads`: heads of the indexer.
    pub index_n_heads: u32,
    /// `index_head_dim`: width of an index head and of an index key.
    pub index_head_dim: u32,
    /// `index_topk`: compressed entries a query of a ratio-4 layer attends to.
    pub index_topk: u32,
    /// `n_routed_experts`: routed experts of a layer.
    pub n_routed_experts: u32,
    /// `num_experts_per_tok`: routed experts that a token uses.
    pub num_experts_per_tok: u32,
    /// `moe_intermediate_size`: inner width of a routed and of the shared expert.
    pub moe_intermediate_size: u32,
    /// `num_hash_layers`: leading layers whose experts follow from the token id.
    pub num_hash_layers: u32,
    /// `routed_scaling_factor`: what the normalised expert weights are multiplied by.
    pub routed_scaling_factor: f64,
    /// `swiglu_limit`: clamp inside the experts.
    pub swiglu_limit: f64,
    /// `hc_mult`: residual streams.
    pub hc_mult: u32,
    /// `hc_sinkhorn_iters`: Sinkhorn rounds, the softmax round included.
    pub hc_sinkhorn_iters: u32,
    /// `hc_eps`: epsilon of the hyper-connections.
    pub hc_eps: f64,
    /// `rms_norm_eps`: epsilon of all RMS norms.
    pub rms_norm_eps: f64,
    /// `rope_theta`: RoPE base of uncompressed layers, which have no scaling.
    pub rope_theta: f64,
    /// `compress_rope_theta`: RoPE base of compressed layers.
    pub compress_rope_theta: f64,
    /// `rope_scaling`: scaling of compressed layers, `None` for plain RoPE.
    pub yarn: Option<Yarn>,
    /// `max_position_embeddings`: longest context, in tokens.
    pub max_position_embeddings: u32,
    /// `num_nextn_predict_layers`: MTP blocks the configuration speaks of. Files may lack them.
    pub num_nextn_predict_layers: u32,
    /// `compress_ratios`: 0, 4 or 128 for each layer and then for each MTP block.
    pub compress_ratios: Vec<u32>,
    /// `bos_token_id`: the token that opens every prompt.
    pub bos_token_id: u32,
    /// `eos_token_id`: the tokens that end an answer; at least one.
    pub eos_token_ids: Vec<u32>,
}

impl Config {
    /// DeepSeek-V4-Flash, 284 billion parameters, as published (spec 1.1, 1.2).
    pub fn flash() -> Config {
        let mut compress_ratios: Vec<u32> = (0..43).map(|i| if i % 2 == 0 { 4 } else { 128 }).collect();
        compress_ratios[..2].fill(0);
        compress_ratios.push(0);
        Config {
            vocab_size: 129_280,
            hidden_size: 4096,
            num_hidden_layers: 43,
            num_attention_heads: 64,
            head_dim: 512,
            qk_rope_head_dim: 64,
            q_lora_rank: 1024,
            o_groups: 8,
            o_lora_rank: 1024,
            sliding_window: 128,
            index_n_heads: 64,
            index_head_dim: 128,
            index_topk: 512,
            n_routed_experts: 256,
            num_experts_per_tok: 6,
            moe_intermediate_size: 2048,
            num_hash_layers: 3,
            routed_scaling_factor: 1.5,
            swiglu_limit: 10.0,
            hc_mult: 4,
            hc_sinkhorn_iters: 20,
            hc_eps: 1e-6,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            compress_rope_theta: 160_000.0,
            yarn: Some(Yarn { factor: 16.0, original: 65_536, beta_fast: 32.0, beta_slow: 1.0 }),
            max_position_embeddings: 1 << 20,
            num_nextn_predict_layers: 1,
            compress_ratios,
            bos_token_id: 0,
            eos_token_ids: vec![1],
        }
    }

    /// DeepSeek-V4-Pro, 1.6 trillion parameters, as published (spec 1.1, 1.2).
    pub fn pro() -> Config {
        let mut compress_ratios: Vec<u32> = (0..61).map(|i| if i % 2 == 0 { 4 } else { 128 }).collect();
        compress_ratios[..2].fill(128);
        compress_ratios.push(0);
        Config {
            hidden_size: 7168,
            num_hidden_layers: 61,
            num_attention_heads: 128,
            q_lora_rank: 1536,
            o_groups: 16,
            index_topk: 1024,
            n_routed_experts: 384,
            moe_intermediate_size: 3072,
            routed_scaling_factor: 2.5,
            compress_ratios,
            ..Config::flash()
        }
    }

    /// The same model with only its first `layers` layers.
    ///
    /// # Panics
    /// If `layers` is 0 or more than the model has.
    pub fn truncated(&self, layers: u32) -> Config {
        assert!(layers > 0 && layers <= self.num_hidden_layers, "{layers} of {}", self.num_hidden_layers);
        let mtp = &self.compress_ratios[self.num_hidden_layers as usize..];
        Config {
            num_hidden_layers: layers,
            num_hash_layers: self.num_hash_layers.min(layers),
            compress_ratios: [&self.compress_ratios[..layers as usize], mtp].concat(),
            ..self.clone()
        }
    }

    /// Compression ratio of a layer, or of MTP block `j` under index `num_hidden_layers + j`.
    pub fn ratio(&self, layer: u32) -> u32 {
        self.compress_ratios[layer as usize]
    }

    /// Whether the experts of a layer follow from the token id. MTP blocks never do.
    pub fn is_hash_routed(&self, layer: u32) -> bool {
        layer < self.num_hash_layers
    }

    /// Rows of a compressor's projections: two lanes where blocks overlap, which is tied to
    /// ratio 4 (spec 1.2). `width` is the width of an entry.
    pub fn compressor_rows(ratio: u32, width: u32) -> u32 {
        if ds4_ir::StateKind::overlaps(ratio) { 2 * width } else { width }
    }

    /// Outputs of a sublayer's hyper-connection: gates in, gates out, mixing matrix (spec 2.1).
    pub fn hc_rows(&self) -> u32 {
        (2 + self.hc_mult) * self.hc_mult
    }
}

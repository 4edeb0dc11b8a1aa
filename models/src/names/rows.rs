//! The tables behind [`super`]: every tensor once, with all that is known about it (spec 4.1).
use super::Content;
use crate::Config;
use ds4_ir::Scalar;

/// Which layers have a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// All.
    Always,
    /// Those with a compressor: ratio not 0.
    Compressed,
    /// Those with an indexer: ratio 4.
    Indexed,
    /// Those whose experts follow from the token id.
    HashRouted,
    /// The others.
    ScoreRouted,
}

/// One tensor of the top, of a block, or of an MTP block.
#[derive(Debug)]
pub(crate) struct Row {
    /// The project's name without prefix, which is DwarfStar's.
    pub(crate) name: &'static str,
    /// What the tensor holds.
    pub(crate) content: Content,
    /// The layers that have it.
    pub(crate) when: When,
    /// Official name without prefix; `{e}` stands for the expert.
    pub(crate) official: &'static str,
    /// Further names in safetensors files, without `model.` or `layers.{i}.`.
    pub(crate) aliases: &'static [&'static str],
    /// A transformers tensor that stacks several: its name, this one's index, how many.
    pub(crate) fused: Option<(&'static str, u32, u32)>,
    /// llama.cpp's name where it is not DwarfStar's.
    pub(crate) llama: Option<&'static str>,
    /// A llama.cpp tensor whose rows hold this one's beside another's.
    pub(crate) side_by_side: Option<&'static str>,
    /// What GGUF names end in.
    pub(crate) ending: &'static str,
    /// Type in the official checkpoint.
    pub(crate) official_type: Scalar,
    /// Type in DwarfStar's files; routed experts depend on the mix.
    pub(crate) dwarfstar_type: Scalar,
    /// Type in llama.cpp's unrequantised files.
    pub(crate) llama_type: Scalar,
    /// Extents for a configuration and the ratio of the layer.
    pub(crate) shape: fn(&Config, u32) -> Vec<u32>,
}

use Content::{Experts, Ids, Matrix, Vector};
use Scalar::{Bf16, F16, F32, Fp4, Fp8, I32, I64, Iq2Xxs, Mxfp4, Q2K, Q8_0};
use When::{Always, Compressed, HashRouted, Indexed, ScoreRouted};

/// A row without the rarer fields.
const fn row(
    name: &'static str,
    content: Content,
    when: When,
    official: &'static str,
    aliases: &'static [&'static str],
    types: [Scalar; 3],
    shape: fn(&Config, u32) -> Vec<u32>,
) -> Row {
    let [official_type, dwarfstar_type, llama_type] = types;
    Row {
        name,
        content,
        when,
        official,
        aliases,
        fused: None,
        llama: None,
        side_by_side: None,
        ending: "weight",
        official_type,
        dwarfstar_type,
        llama_type,
        shape,
    }
}

// Types as [official, DwarfStar, llama.cpp].
const FP8: [Scalar; 3] = [Fp8, Q8_0, Q8_0];
const HALF: [Scalar; 3] = [Bf16, F16, Bf16];
const NORM: [Scalar; 3] = [Bf16, F32, F32];
const FULL: [Scalar; 3] = [F32, F32, F32];
/// F32 matrices that DwarfStar rounds.
const ROUNDED: [Scalar; 3] = [F32, F16, F32];

/// Embedding and output.
#[rustfmt::skip]
pub(crate) static TOP: &[Row] = &[
    row("token_embd", Matrix, Always, "embed.weight", &["embed_tokens.weight"], HALF, |c, _| vec![c.vocab_size, c.hidden_size]),
    row("output_hc_base", Vector, Always, "hc_head_base", &["hc_head.hc_base"], FULL, |c, _| vec![c.hc_mult]),
    row("output_hc_fn", Matrix, Always, "hc_head_fn", &["hc_head.hc_fn"], ROUNDED, |c, _| vec![c.hc_mult, c.hc_mult * c.hidden_size]),
    row("output_hc_scale", Vector, Always, "hc_head_scale", &["hc_head.hc_scale"], FULL, |_, _| vec![1]),
    row("output_norm", Vector, Always, "norm.weight", &[], NORM, |c, _| vec![c.hidden_size]),
    row("output", Matrix, Always, "head.weight", &["lm_head.weight"], [Bf16, Q8_0, Bf16], |c, _| vec![c.vocab_size, c.hidden_size]),
];

/// A layer, and the layer part of an MTP block.
#[rustfmt::skip]
pub(crate) static BLOCK: &[Row] = &[
    row("hc_attn_fn", Matrix, Always, "hc_attn_fn", &["attn_hc.fn"], ROUNDED, |c, _| vec![c.hc_rows(), c.hc_mult * c.hidden_size]),
    row("hc_attn_scale", Vector, Always, "hc_attn_scale", &["attn_hc.scale"], FULL, |_, _| vec![3]),
    row("hc_attn_base", Vector, Always, "hc_attn_base", &["attn_hc.base"], FULL, |c, _| vec![c.hc_rows()]),
    row("hc_ffn_fn", Matrix, Always, "hc_ffn_fn", &["ffn_hc.fn"], ROUNDED, |c, _| vec![c.hc_rows(), c.hc_mult * c.hidden_size]),
    row("hc_ffn_scale", Vector, Always, "hc_ffn_scale", &["ffn_hc.scale"], FULL, |_, _| vec![3]),
    row("hc_ffn_base", Vector, Always, "hc_ffn_base", &["ffn_hc.base"], FULL, |c, _| vec![c.hc_rows()]),
    row("attn_norm", Vector, Always, "attn_norm.weight", &["input_layernorm.weight"], NORM, |c, _| vec![c.hidden_size]),
    row("attn_q_a", Matrix, Always, "attn.wq_a.weight", &["self_attn.q_a_proj.weight"], FP8, |c, _| vec![c.q_lora_rank, c.hidden_size]),
    row("attn_q_a_norm", Vector, Always, "attn.q_norm.weight", &["self_attn.q_a_norm.weight"], NORM, |c, _| vec![c.q_lora_rank]),
    row("attn_q_b", Matrix, Always, "attn.wq_b.weight", &["self_attn.q_b_proj.weight"], FP8, |c, _| vec![c.num_attention_heads * c.head_dim, c.q_lora_rank]),
    row("attn_kv", Matrix, Always, "attn.wkv.weight", &["self_attn.kv_proj.weight"], FP8, |c, _| vec![c.head_dim, c.hidden_size]),
    row("attn_kv_a_norm", Vector, Always, "attn.kv_norm.weight", &["attn.norm.weight", "self_attn.kv_norm.weight"], NORM, |c, _| vec![c.head_dim]),
    row("attn_sinks", Vector, Always, "attn.attn_sink", &["self_attn.sinks"], FULL, |c, _| vec![c.num_attention_heads]),
    row("attn_output_a", Matrix, Always, "attn.wo_a.weight", &["self_attn.o_a_proj.weight"], FP8, |c, _| vec![c.o_groups * c.o_lora_rank, c.num_attention_heads / c.o_groups * c.head_dim]),
    row("attn_output_b", Matrix, Always, "attn.wo_b.weight", &["self_attn.o_b_proj.weight"], FP8, |c, _| vec![c.hidden_size, c.o_groups * c.o_lora_rank]),
    row("attn_compressor_ape", Matrix, Compressed, "attn.compressor.ape", &["self_attn.compressor.position_bias"], ROUNDED, |c, m| vec![m, Config::compressor_rows(m, c.head_dim)]),
    row("attn_compressor_kv", Matrix, Compressed, "attn.compressor.wkv.weight", &["self_attn.compressor.kv_proj.weight"], HALF, |c, m| vec![Config::compressor_rows(m, c.head_dim), c.hidden_size]),
    row("attn_compressor_gate", Matrix, Compressed, "attn.compressor.wgate.weight", &["self_attn.compressor.gate_proj.weight"], HALF, |c, m| vec![Config::compressor_rows(m, c.head_dim), c.hidden_size]),
    row("attn_compressor_norm", Vector, Compressed, "attn.compressor.norm.weight", &["self_attn.compressor.kv_norm.weight"], NORM, |c, _| vec![c.head_dim]),
    row("indexer.attn_q_b", Matrix, Indexed, "attn.indexer.wq_b.weight", &["self_attn.compressor.indexer.q_b_proj.weight"], [Fp8, F16, Q8_0], |c, _| vec![c.index_n_heads * c.index_head_dim, c.q_lora_rank]),
    row("indexer.proj", Matrix, Indexed, "attn.indexer.weights_proj.weight", &["self_attn.compressor.indexer.scorer.weights_proj.weight"], HALF, |c, _| vec![c.index_n_heads, c.hidden_size]),
    row("indexer_compressor_ape", Matrix, Indexed, "attn.indexer.compressor.ape", &["self_attn.compressor.indexer.position_bias"], ROUNDED, |c, m| vec![m, Config::compressor_rows(m, c.index_head_dim)]),
    row("indexer_compressor_kv", Matrix, Indexed, "attn.indexer.compressor.wkv.weight", &["self_attn.compressor.indexer.kv_proj.weight"], HALF, |c, m| vec![Config::compressor_rows(m, c.index_head_dim), c.hidden_size]),
    row("indexer_compressor_gate", Matrix, Indexed, "attn.indexer.compressor.wgate.weight", &["self_attn.compressor.indexer.gate_proj.weight"], HALF, |c, m| vec![Config::compressor_rows(m, c.index_head_dim), c.hidden_size]),
    row("indexer_compressor_norm", Vector, Indexed, "attn.indexer.compressor.norm.weight", &["self_attn.compressor.indexer.kv_norm.weight"], NORM, |c, _| vec![c.index_head_dim]),
    row("ffn_norm", Vector, Always, "ffn_norm.weight", &["post_attention_layernorm.weight"], NORM, |c, _| vec![c.hidden_size]),
    row("ffn_gate_inp", Matrix, Always, "ffn.gate.weight", &["mlp.gate.weight"], HALF, |c, _| vec![c.n_routed_experts, c.hidden_size]),
    row("ffn_gate_tid2eid", Ids, HashRouted, "ffn.gate.tid2eid", &["mlp.gate.tid2eid"], [I64, I32, I32], |c, _| vec![c.vocab_size, c.num_experts_per_tok]),
    Row { ending: "bias", ..row("exp_probs_b", Vector, ScoreRouted, "ffn.gate.bias", &["mlp.gate.e_score_correction_bias"], FULL, |c, _| vec![c.n_routed_experts]) },
    Row { fused: Some(("mlp.experts.gate_up_proj", 0, 2)), ..row("ffn_gate_exps", Experts, Always, "ffn.experts.{e}.w1.weight", &[], [Fp4, Iq2Xxs, Mxfp4], inward) },
    Row { fused: Some(("mlp.experts.gate_up_proj", 1, 2)), ..row("ffn_up_exps", Experts, Always, "ffn.experts.{e}.w3.weight", &[], [Fp4, Iq2Xxs, Mxfp4], inward) },
    Row { fused: Some(("mlp.experts.down_proj", 0, 1)), ..row("ffn_down_exps", Experts, Always, "ffn.experts.{e}.w2.weight", &[], [Fp4, Q2K, Mxfp4], outward) },
    row("ffn_gate_shexp", Matrix, Always, "ffn.shared_experts.w1.weight", &["mlp.shared_experts.gate_proj.weight"], FP8, |c, _| vec![c.moe_intermediate_size, c.hidden_size]),
    row("ffn_up_shexp", Matrix, Always, "ffn.shared_experts.w3.weight", &["mlp.shared_experts.up_proj.weight"], FP8, |c, _| vec![c.moe_intermediate_size, c.hidden_size]),
    row("ffn_down_shexp", Matrix, Always, "ffn.shared_experts.w2.weight", &["mlp.shared_experts.down_proj.weight"], FP8, |c, _| vec![c.hidden_size, c.moe_intermediate_size]),
];

/// What an MTP block has beside a layer's tensors.
#[rustfmt::skip]
pub(crate) static MTP: &[Row] = &[
    Row { side_by_side: Some("nextn.eh_proj.weight"), ..row("e_proj", Matrix, Always, "e_proj.weight", &[], FP8, |c, _| vec![c.hidden_size, c.hidden_size]) },
    Row { side_by_side: Some("nextn.eh_proj.weight"), ..row("h_proj", Matrix, Always, "h_proj.weight", &[], FP8, |c, _| vec![c.hidden_size, c.hidden_size]) },
    Row { llama: Some("nextn.enorm"), ..row("enorm", Vector, Always, "enorm.weight", &[], NORM, |c, _| vec![c.hidden_size]) },
    Row { llama: Some("nextn.hnorm"), ..row("hnorm", Vector, Always, "hnorm.weight", &[], NORM, |c, _| vec![c.hidden_size]) },
    Row { llama: Some("nextn.shared_head_norm"), ..row("norm", Vector, Always, "norm.weight", &[], NORM, |c, _| vec![c.hidden_size]) },
    row("hc_head_fn", Matrix, Always, "hc_head_fn", &[], ROUNDED, |c, _| vec![c.hc_mult, c.hc_mult * c.hidden_size]),
    row("hc_head_base", Vector, Always, "hc_head_base", &[], FULL, |c, _| vec![c.hc_mult]),
    row("hc_head_scale", Vector, Always, "hc_head_scale", &[], FULL, |_, _| vec![1]),
];

fn inward(c: &Config, _: u32) -> Vec<u32> {
    vec![c.n_routed_experts, c.moe_intermediate_size, c.hidden_size]
}

fn outward(c: &Config, _: u32) -> Vec<u32> {
    vec![c.n_routed_experts, c.hidden_size, c.moe_intermediate_size]
}

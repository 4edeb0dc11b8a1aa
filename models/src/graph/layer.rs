//! One layer: hyper-connection, attention, hyper-connection, mixture of experts (spec 2).
use super::GraphError;
use super::builder::{A, Builder, Built, WeightTypes};
use super::shapes::{Shapes, closed, tokens};
use crate::Config;
use ds4_ir::{Class, StateKind, Value};

/// The values that a sublayer passes to the next: the streams, and this step's positions.
struct Step {
    pos: Value,
    angles: Value,
    /// Rotary angles of the entries that this step closes; compressed layers only.
    closed: Option<Value>,
}

/// Builds the function of layer `layer`; `layer` past the main stack is an MTP block's layer part.
pub(super) fn layer(
    config: &Config,
    class: Class,
    types: &dyn WeightTypes,
    layer: u32,
) -> Result<Built, GraphError> {
    let main = config.num_hidden_layers;
    let prefix = if layer < main { format!("blk.{layer}.") } else { format!("mtp.{}.", layer - main) };
    let module_name = |local: &str| format!("{prefix}{local}");
    let (ratio, hashed) = (config.ratio(layer), config.is_hash_routed(layer));
    let kind = match ratio {
        0 => "swa",
        4 => "csa",
        _ => "hca",
    };
    let name = format!("{kind}_{}", if hashed { "hash" } else { "topk" });
    let mut b = Builder::new(&name, class, types, &module_name);
    let shapes = Shapes::new(config, class);

    let h = b.input("h", shapes.streams());
    let ids = hashed.then(|| b.input("ids", shapes.ids()));
    let pos = b.input("pos", shapes.ids());
    let angles = b.input("angles", shapes.angles(tokens()));
    let closed = (ratio > 0).then(|| b.input("closed", shapes.angles(closed(ratio))));
    let step = Step { pos, angles, closed };
    declare_states(&mut b, config, &shapes, ratio);

    let (x, gates) = hc_enter(&mut b, config, h, "attn");
    let (y, states) = attention(&mut b, config, &shapes, ratio, x, &step);
    let h = b.op("h1", "hc_post", [h.into(), y.into(), gates.into()]);
    let (x, gates) = hc_enter(&mut b, config, h, "ffn");
    let y = moe(&mut b, config, x, ids);
    let h = b.op("h2", "hc_post", [h.into(), y.into(), gates.into()]);

    let mut results = vec![h];
    results.extend(states);
    b.finish(&results)
}

/// The states of a layer (spec 3.1).
fn declare_states(b: &mut Builder<'_>, c: &Config, shapes: &Shapes, ratio: u32) {
    b.state("raw", shapes.ring());
    if ratio > 0 {
        b.state("tail", shapes.tail(ratio, c.head_dim));
        b.state("entries", shapes.entries(ratio));
    }
    if StateKind::overlaps(ratio) {
        b.state("index_tail", shapes.tail(ratio, c.index_head_dim));
        b.state("index_entries", shapes.index_entries(ratio));
    }
}

/// Spec 2.1: gates from all streams, the streams joined, the sublayer's norm.
fn hc_enter(b: &mut Builder<'_>, c: &Config, h: Value, sub: &str) -> (Value, Value) {
    let at = |name: &str| format!("{sub}.{name}");
    let flat = b.op(&at("flat"), "flat_norm", [h.into(), A::Real(c.rms_norm_eps)]);
    let mix = b.unrounded(&at("mix"), flat, &format!("hc_{sub}_fn"));
    let (scale, base) = (format!("hc_{sub}_scale"), format!("hc_{sub}_base"));
    let rounds = A::Int(c.hc_sinkhorn_iters);
    let gates =
        b.op(&at("gates"), "hc_gates", [mix.into(), A::W(&scale), A::W(&base), rounds, A::Real(c.hc_eps)]);
    let x = b.op(&at("x"), "hc_pre", [h.into(), gates.into()]);
    let norm = format!("{sub}_norm");
    (b.op(&at("xn"), "rms_norm", [x.into(), A::W(&norm), A::Real(c.rms_norm_eps)]), gates)
}

/// Spec 2.3, 2.4, 2.7. Answers the output and the last versions of the states.
fn attention(
    b: &mut Builder<'_>,
    c: &Config,
    shapes: &Shapes,
    ratio: u32,
    x: Value,
    step: &Step,
) -> (Value, Vec<Value>) {
    let eps = || A::Real(c.rms_norm_eps);
    let (pos, angles) = (step.pos, step.angles);
    let raw0 = b.get_state("raw");

    // Queries through a low rank, normed per head.
    let qa = b.linear("qa", x, "attn_q_a");
    let qr = b.op("qr", "rms_norm", [qa.into(), A::W("attn_q_a_norm"), eps()]);
    let qb = b.linear("qb", qr, "attn_q_b");
    let qh = b.op("qh", "split", [qb.into(), A::Int(c.num_attention_heads)]);
    let qn = b.op("qn", "head_norm", [qh.into(), eps()]);
    let q = b.op("q", "rope", [qn.into(), angles.into()]);

    // One latent row, key and value of all heads.
    let ka = b.linear("ka", x, "attn_kv");
    let kn = b.op("kn", "rms_norm", [ka.into(), A::W("attn_kv_a_norm"), eps()]);
    let kr = b.op("kr", "rope", [kn.into(), angles.into()]);
    let row = shapes.to_row(b, "row", kr);

    let sinks = || A::W("attn_sinks");
    let (att, mut states) = match step.closed {
        None => {
            let args = [q.into(), raw0.into(), row.into(), sinks(), pos.into()];
            (b.op("att", "attend_window", args), vec![])
        }
        Some(closed) => {
            let (entry, tail1) = compressor(b, c, "attn", "c", x, closed, pos);
            let entry = shapes.to_row(b, "c.row", entry);
            let entries0 = b.get_state("entries");
            let entries1 = b.op("entries1", "append", [entries0.into(), entry.into(), pos.into()]);
            if StateKind::overlaps(ratio) {
                let (idx, mut index_states) = indexer(b, c, shapes, x, qr, step, closed);
                let sel = b.op("sel", "gather_rows", [entries1.into(), idx.into()]);
                let args = [q.into(), raw0.into(), row.into(), sel.into(), idx.into(), sinks(), pos.into()];
                index_states.splice(0..0, [tail1, entries1]);
                (b.op("att", "attend_selected", args), index_states)
            } else {
                let args = [q.into(), raw0.into(), row.into(), entries1.into(), sinks(), pos.into()];
                (b.op("att", "attend_entries", args), vec![tail1, entries1])
            }
        }
    };
    // The ring forgets, so it is read before it is written.
    let raw1 = b.op("raw1", "push", [raw0.into(), row.into(), pos.into()]);
    states.insert(0, raw1);

    let un = b.op("un", "unrope", [att.into(), angles.into()]);
    let un = b.round(un, "attn_output_a", false);
    let low = b.op("low", "grouped_matmul", [un.into(), A::W("attn_output_a"), A::Int(c.o_groups)]);
    (b.linear("y", low, "attn_output_b"), states)
}

/// Spec 2.5, up to the rope of the entry: the normed, rotated rows, and the new tail.
fn compressor(
    b: &mut Builder<'_>,
    c: &Config,
    weights: &str,
    values: &str,
    x: Value,
    closed: Value,
    pos: Value,
) -> (Value, Value) {
    let w = |part: &str| format!("{weights}_compressor_{part}");
    let v = |part: &str| format!("{values}.{part}");
    let tail_name = if weights == "attn" { "tail" } else { "index_tail" };
    let tail0 = b.get_state(tail_name);
    let k = b.unrounded(&v("k"), x, &w("kv"));
    let gate = b.unrounded(&v("gate"), x, &w("gate"));
    let ape = w("ape");
    let operands = || [tail0.into(), k.into(), gate.into(), A::W(&ape), pos.into()];
    let pooled = b.op(&v("pool"), "compress_pool", operands());
    let tail1 = b.op(&v("tail1"), "compress_push", operands());
    let norm = w("norm");
    let normed = b.op(&v("norm"), "rms_norm", [pooled.into(), A::W(&norm), A::Real(c.rms_norm_eps)]);
    (b.op(&v("rope"), "rope", [normed.into(), closed.into()]), tail1)
}

/// Spec 2.6: which entries each token reads, and the last versions of the indexer's states.
fn indexer(
    b: &mut Builder<'_>,
    c: &Config,
    shapes: &Shapes,
    x: Value,
    qr: Value,
    step: &Step,
    closed: Value,
) -> (Value, Vec<Value>) {
    let fmt = shapes.index_format();
    let (key, tail1) = compressor(b, c, "indexer", "i", x, closed, step.pos);
    let key = b.op("i.row", "to_index", [key.into(), A::Word(&fmt)]);
    let keys0 = b.get_state("index_entries");
    let keys1 = b.op("keys1", "append", [keys0.into(), key.into(), step.pos.into()]);

    let jb = b.linear("jb", qr, "indexer.attn_q_b");
    let jh = b.op("jh", "split", [jb.into(), A::Int(c.index_n_heads)]);
    let jr = b.op("jr", "rope", [jh.into(), step.angles.into()]);
    let jq = b.op("jq", "to_index", [jr.into(), A::Word(&fmt)]);
    let jw = b.unrounded("jw", x, "indexer.proj");
    let scores = b.op("scores", "index_scores", [jq.into(), jw.into(), keys1.into(), step.pos.into()]);
    (b.op("idx", "topk", [scores.into(), A::Int(c.index_topk)]), vec![tail1, keys1])
}

/// Spec 2.8. `ids` are given where experts follow from the token id.
fn moe(b: &mut Builder<'_>, c: &Config, x: Value, ids: Option<Value>) -> Value {
    let scale = || A::Real(c.routed_scaling_factor);
    let clamp = || A::Real(c.swiglu_limit);
    let logits = b.unrounded("logits", x, "ffn_gate_inp");
    let scores = b.op("probs", "router_scores", [logits.into()]);
    let routes = match ids {
        Some(ids) => {
            b.op("routes", "hash_experts", [scores.into(), A::W("ffn_gate_tid2eid"), ids.into(), scale()])
        }
        None => {
            let biased = b.op("biased", "add", [scores.into(), A::W("exp_probs_b")]);
            let k = A::Int(c.num_experts_per_tok);
            b.op("routes", "select_experts", [scores.into(), biased.into(), k, scale()])
        }
    };

    let xr = b.round(x, "ffn_gate_exps", true);
    let gate = b.op("e.gate", "expert_matmul", [xr.into(), A::W("ffn_gate_exps"), routes.into()]);
    let xr = b.round(x, "ffn_up_exps", true);
    let up = b.op("e.up", "expert_matmul", [xr.into(), A::W("ffn_up_exps"), routes.into()]);
    let act = b.op("e.act", "swiglu", [gate.into(), up.into(), clamp()]);
    let scaled = b.op("e.scaled", "route_scale", [act.into(), routes.into()]);
    let scaled = b.round(scaled, "ffn_down_exps", true);
    let down = b.op("e.down", "expert_matmul", [scaled.into(), A::W("ffn_down_exps"), routes.into()]);
    let routed = b.op("e.sum", "expert_sum", [down.into()]);

    let gate = b.linear("s.gate", x, "ffn_gate_shexp");
    let up = b.linear("s.up", x, "ffn_up_shexp");
    let act = b.op("s.act", "swiglu", [gate.into(), up.into(), clamp()]);
    let shared = b.linear("s.down", act, "ffn_down_shexp");
    b.op("moe", "add", [routed.into(), shared.into()])
}

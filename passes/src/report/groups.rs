//! Weights by what they are for.
use crate::cost::{Site, args_of, weight_bytes};
use crate::{canonicalize, unfuse};
use ds4_ir::plan::Maxima;
use ds4_ir::{Arg, Module};
use serde::Serialize;
use std::collections::BTreeMap;

/// Weights that serve one purpose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Group {
    /// Purpose.
    pub name: String,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes that one decoded token reads, each weight once.
    pub token_bytes: u64,
}

/// Purposes, and what a name must contain to belong to one; the first that fits counts.
const GROUPS: &[(&str, &[&str])] = &[
    ("draft block", &["mtp."]),
    ("embedding row", &["token_embd", "tid2eid"]),
    ("routed experts", &["_exps"]),
    ("hyper-connection", &["hc_"]),
    ("output head", &["output"]),
    ("shared expert", &["shexp"]),
    ("indexer", &["indexer"]),
    ("compressor", &["compressor"]),
    ("attention projections", &["attn"]),
    ("router and norms", &[""]),
];

fn group_of(weight: &str) -> usize {
    // The output projection of attention and the norm before the head are not the head.
    let name = if weight == "output" { weight } else { weight.trim_start_matches("output_") };
    let name = if name.contains("attn_output") { "attn" } else { name };
    let fits = |(_, parts): &(&str, &[&str])| parts.iter().any(|part| name.contains(part));
    GROUPS.iter().position(fits).expect("the last group takes all")
}

/// The groups of a module's weights, in order of what a token reads.
pub fn groups(module: &Module) -> Vec<Group> {
    let mut all: Vec<Group> =
        GROUPS.iter().map(|(name, _)| Group { name: name.to_string(), bytes: 0, token_bytes: 0 }).collect();
    for weight in &module.weights {
        all[group_of(&weight.name)].bytes += weight_bytes(&weight.ty);
    }
    for (weight, bytes) in token_weights(module) {
        all[group_of(&module.weights[weight].name)].token_bytes += bytes;
    }
    all.retain(|g| g.bytes > 0);
    all.sort_by_key(|g| std::cmp::Reverse(g.token_bytes));
    all
}

/// Bytes of each weight that one decoded token reads, by index of the module's weights.
fn token_weights(module: &Module) -> BTreeMap<usize, u64> {
    let token = Maxima { tokens: 1, wanted: 1, ctx: module.ctx };
    let funcs: Vec<_> = module.funcs.iter().map(|f| canonicalize(&unfuse(f))).collect();
    let mut read = BTreeMap::new();
    let main = module.graphs.iter().filter(|g| g.name == "main");
    for call in main.flat_map(|g| &g.calls) {
        let func = &funcs[call.func];
        for (v, node) in func.nodes() {
            let args = args_of(func, v);
            let site = Site { op: node.op, args: &args, ty: func.ty(v) };
            for arg in &node.args {
                let Arg::Weight(w) = arg else { continue };
                let bytes = site.weight_bytes(func.weight_type(*w), &token);
                let most: &mut u64 = read.entry(call.weights[w.index()]).or_default();
                *most = bytes.max(*most);
            }
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_group() {
        let of = |name: &str| GROUPS[group_of(name)].0;
        assert_eq!(of("output"), "output head");
        assert_eq!(of("output_norm"), "router and norms");
        assert_eq!(of("output_hc_fn"), "hyper-connection");
        assert_eq!(of("blk.3.attn_output_a"), "attention projections");
        assert_eq!(of("blk.3.hc_attn_fn"), "hyper-connection");
        assert_eq!(of("blk.3.indexer_compressor_kv"), "indexer");
        assert_eq!(of("blk.3.attn_compressor_kv"), "compressor");
        assert_eq!(of("blk.3.exp_probs_b"), "router and norms");
        assert_eq!(of("blk.3.ffn_up_exps"), "routed experts");
        assert_eq!(of("mtp.0.hc_attn_fn"), "draft block");
    }
}

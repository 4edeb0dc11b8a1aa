//! Fused ops: one row each, defined by the expression that it replaces.
//!
//! A row is there because it saves launches or bytes on some target; which targets have a kernel for
//! it is in the price tables of `passes`. What a matmul's input is rounded to is an operand, so each
//! row serves every numeric class. Operands are in the order in which the definition reads them.
use super::{Op, defined};

pub(super) const ROWS: &[Op] = &[
    defined!("linear", "x @w fmt=", "A matmul that rounds its own input.", "(matmul (round_act ?x ?fmt) ?w)"),
    defined!(
        "norm_linear",
        "x @norm @w eps= fmt=",
        "A matmul that norms and rounds its own input.",
        "(matmul (round_act (rms_norm ?x ?norm ?eps) ?fmt) ?w)"
    ),
    defined!(
        "out_low",
        "x @w groups= fmt=",
        "The first half of the output projection with the rounding of its input (spec 2.7).",
        "(grouped_matmul (round_act ?x ?fmt) ?w ?groups)"
    ),
    defined!(
        "out_post",
        "h x @w gates fmt=",
        "The second half of the output projection, mixed into the streams (spec 2.7, 2.1).",
        "(hc_post ?h (matmul (round_act ?x ?fmt) ?w) ?gates)"
    ),
    defined!(
        "hc_enter",
        "h @w @scale @base norm_eps= fmt= iters= eps=",
        "All gates of a sublayer from its streams (spec 2.1).",
        "(hc_gates (matmul (round_act (flat_norm ?h ?norm_eps) ?fmt) ?w) ?scale ?base ?iters ?eps)"
    ),
    defined!(
        "hc_head_enter",
        "h @w @scale @base norm_eps= fmt= eps=",
        "The gates of the head from the streams (spec 2.1, head).",
        "(hc_head_gates (matmul (round_act (flat_norm ?h ?norm_eps) ?fmt) ?w) ?scale ?base ?eps)"
    ),
    defined!(
        "hc_pre_norm",
        "h gates @w eps=",
        "The streams joined and normed: a sublayer's input (spec 2.1).",
        "(rms_norm (hc_pre ?h ?gates) ?w ?eps)"
    ),
    defined!(
        "head_rope",
        "x table parts= eps=",
        "Queries normed per head and rotated (spec 2.3).",
        "(rope (head_norm (split ?x ?parts) ?eps) ?table)"
    ),
    defined!(
        "kv_row",
        "x @w table eps= fmt= dims=",
        "A key/value row normed, rotated and rounded (spec 2.3).",
        "(to_row (rope (rms_norm ?x ?w ?eps) ?table) ?fmt ?dims)"
    ),
    defined!(
        "compress_row",
        "tail k gate @ape pos @w table eps= fmt= dims=",
        "The entries that this step closes, ready to be appended (spec 2.5).",
        "(to_row (rope (rms_norm (compress_pool ?tail ?k ?gate ?ape ?pos) ?w ?eps) ?table) ?fmt ?dims)"
    ),
    defined!(
        "compress_index_row",
        "tail k gate @ape pos @w table eps= fmt=",
        "The index keys that this step closes, ready to be appended (spec 2.6).",
        "(to_index (rope (rms_norm (compress_pool ?tail ?k ?gate ?ape ?pos) ?w ?eps) ?table) ?fmt)"
    ),
    defined!(
        "compress_append",
        "entries! tail k gate @ape pos @w table eps= fmt= dims=",
        "compress_row straight into the state.",
        "(append ?entries (to_row (rope (rms_norm (compress_pool ?tail ?k ?gate ?ape ?pos) ?w ?eps) ?table) ?fmt ?dims) ?pos)"
    ),
    defined!(
        "compress_index_append",
        "entries! tail k gate @ape pos @w table eps= fmt=",
        "compress_index_row straight into the state.",
        "(append ?entries (to_index (rope (rms_norm (compress_pool ?tail ?k ?gate ?ape ?pos) ?w ?eps) ?table) ?fmt) ?pos)"
    ),
    defined!(
        "index_query",
        "x table parts= fmt=",
        "Index queries rotated and rounded (spec 2.6).",
        "(to_index (rope (split ?x ?parts) ?table) ?fmt)"
    ),
    defined!(
        "index_select",
        "q weights entries pos k=",
        "The entries that each token reads; the scores are never stored (spec 2.6).",
        "(topk (index_scores ?q ?weights ?entries ?pos) ?k)"
    ),
    defined!(
        "swa_attend",
        "q ring row @sinks pos table",
        "Attention over the window, rotated back (spec 2.4).",
        "(unrope (attend_window ?q ?ring ?row ?sinks ?pos) ?table)"
    ),
    defined!(
        "csa_attend",
        "q ring row entries idx @sinks pos table",
        "Attention over the window and the selected entries, gathered on the way, rotated back (spec 2.4).",
        "(unrope (attend_selected ?q ?ring ?row (gather_rows ?entries ?idx) ?idx ?sinks ?pos) ?table)"
    ),
    defined!(
        "hca_attend",
        "q ring row entries @sinks pos table",
        "Attention over the window and all entries, rotated back (spec 2.4).",
        "(unrope (attend_entries ?q ?ring ?row ?entries ?sinks ?pos) ?table)"
    ),
    defined!(
        "swa_query_attend",
        "x table ring row @sinks pos parts= eps=",
        "swa_attend that norms and rotates its own queries (spec 2.3, 2.4).",
        "(unrope (attend_window (rope (head_norm (split ?x ?parts) ?eps) ?table) ?ring ?row ?sinks ?pos) ?table)"
    ),
    defined!(
        "csa_query_attend",
        "x table ring row entries idx @sinks pos parts= eps=",
        "csa_attend that norms and rotates its own queries (spec 2.3, 2.4).",
        "(unrope (attend_selected (rope (head_norm (split ?x ?parts) ?eps) ?table) ?ring ?row (gather_rows ?entries ?idx) ?idx ?sinks ?pos) ?table)"
    ),
    defined!(
        "hca_query_attend",
        "x table ring row entries @sinks pos parts= eps=",
        "hca_attend that norms and rotates its own queries (spec 2.3, 2.4).",
        "(unrope (attend_entries (rope (head_norm (split ?x ?parts) ?eps) ?table) ?ring ?row ?entries ?sinks ?pos) ?table)"
    ),
    defined!(
        "moe_route",
        "x @w @bias fmt= k= scale=",
        "Experts by score (spec 2.8).",
        "(select_experts (router_scores (matmul (round_act ?x ?fmt) ?w)) (add (router_scores (matmul (round_act ?x ?fmt) ?w)) ?bias) ?k ?scale)"
    ),
    defined!(
        "moe_route_hash",
        "x @w @table ids fmt= scale=",
        "Experts by token id, weighted by score (spec 2.8).",
        "(hash_experts (router_scores (matmul (round_act ?x ?fmt) ?w)) ?table ?ids ?scale)"
    ),
    defined!(
        "moe_up",
        "x @gate @up routes fmt= clamp=",
        "The routed experts up to their activations, weighted (spec 2.8).",
        "(route_scale (swiglu (expert_matmul (round_act ?x ?fmt) ?gate ?routes) (expert_matmul (round_act ?x ?fmt) ?up ?routes) ?clamp) ?routes)"
    ),
    defined!(
        "moe_down",
        "x @w routes y @v fmt= y_fmt=",
        "The routed experts' outputs and the shared expert's, summed (spec 2.8).",
        "(add (expert_sum (expert_matmul (round_act ?x ?fmt) ?w ?routes)) (matmul (round_act ?y ?y_fmt) ?v))"
    ),
    defined!(
        "moe_post",
        "h x @w routes y @v gates fmt= y_fmt=",
        "moe_down, mixed into the streams (spec 2.8, 2.1).",
        "(hc_post ?h (add (expert_sum (expert_matmul (round_act ?x ?fmt) ?w ?routes)) (matmul (round_act ?y ?y_fmt) ?v)) ?gates)"
    ),
    defined!(
        "mlp_up",
        "x @gate @up fmt= clamp=",
        "The shared expert up to its activations (spec 2.8).",
        "(swiglu (matmul (round_act ?x ?fmt) ?gate) (matmul (round_act ?x ?fmt) ?up) ?clamp)"
    ),
];

#[cfg(test)]
mod tests {
    use super::ROWS;
    use crate::ops::Term;

    #[test]
    fn definitions_use_every_operand_and_consume_at_the_root_only() {
        for row in ROWS {
            let definition = row.definition().expect("a fused row");
            for (i, formal) in row.operands().enumerate() {
                let used = definition.terms.contains(&Term::Formal(i));
                assert!(used, "{}: `{}` is not used", row.name, formal.name);
            }
            let (last, inner) = definition.terms.split_last().expect("a term");
            for term in inner {
                let Term::Apply(op, _) = term else { continue };
                assert_eq!(op.writes(), None, "{}: `{}` below the root", row.name, op.name);
            }
            let Term::Apply(root, args) = last else { panic!("{}", row.name) };
            let consumed = root.writes().map(|i| definition.terms[args[i]].clone());
            assert_eq!(consumed, row.writes().map(Term::Formal), "{}", row.name);
            if let Some(consumed) = consumed {
                let reads = definition.terms.iter().filter_map(|t| match t {
                    Term::Apply(_, args) => Some(args),
                    Term::Formal(_) => None,
                });
                let uses = reads.flatten().filter(|i| definition.terms[**i] == consumed).count();
                assert_eq!(uses, 1, "{}: reads the state that it writes", row.name);
            }
        }
    }

    #[test]
    fn a_definition_shares_equal_parts() {
        let route = crate::op("moe_route").expect("a row").definition().expect("fused");
        let applied = route.terms.iter().filter(|t| matches!(t, Term::Apply(..))).count();
        assert_eq!(applied, 5, "{route:?}");
    }
}

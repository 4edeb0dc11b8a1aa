//! The cheapest node of every class, a shared value priced once.
//!
//! egg's own extractor prices a shared value once per use; on a graph with residual streams that
//! misprices every choice.
use crate::term::{Kinds, Term};
use egg::{EGraph, Id};
use std::collections::BTreeMap;

/// The chosen node of a class, and the price of each class that it needs.
pub(crate) struct Choice {
    pub(crate) term: Term,
    parts: BTreeMap<Id, u64>,
    total: u64,
}

/// Choices for all classes that can be had at a finite price.
pub(crate) fn extract(
    egraph: &EGraph<Term, Kinds>,
    price: impl Fn(&Term, Id) -> Option<u64>,
) -> BTreeMap<Id, Choice> {
    let mut priced: Vec<(Id, &Term, u64)> = Vec::new();
    for class in egraph.classes() {
        let nodes = class.nodes.iter();
        priced.extend(nodes.filter_map(|term| Some((class.id, term, price(term, class.id)?))));
    }
    priced.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut best: BTreeMap<Id, Choice> = BTreeMap::new();
    // Every round lowers a total or ends; totals are sums of the same prices, so it ends.
    loop {
        let mut changed = false;
        for (id, term, own) in &priced {
            let Some(choice) = choose(egraph, &best, *id, term, *own) else { continue };
            if best.get(id).is_none_or(|old| choice.total < old.total) {
                best.insert(*id, choice);
                changed = true;
            }
        }
        if !changed {
            return best;
        }
    }
}

fn choose(
    egraph: &EGraph<Term, Kinds>,
    best: &BTreeMap<Id, Choice>,
    id: Id,
    term: &Term,
    own: u64,
) -> Option<Choice> {
    let mut parts = BTreeMap::from([(id, own)]);
    for arg in &term.args {
        let choice = best.get(&egraph.find(*arg))?;
        // A class cannot be a part of itself.
        if choice.parts.contains_key(&id) {
            return None;
        }
        parts.extend(&choice.parts);
    }
    let total = parts.values().sum();
    Some(Choice { term: term.clone(), parts, total })
}

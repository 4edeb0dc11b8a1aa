//! The cheapest spelling of a graph, a shared value priced once.
//!
//! egg's own extractor prices a shared value once per use; on a graph with residual streams that
//! misprices every choice. Here each class first takes the node whose own graph is cheapest; then
//! single choices change as long as that makes the whole graph cheaper, because only there can it be
//! seen that a value is needed anyway.
use crate::term::{Kinds, Term};
use egg::{EGraph, Id};
use std::collections::{BTreeMap, BTreeSet};

/// A node of a class and its price.
type Priced<'a> = (&'a Term, u64);

/// The chosen node of each class that can be had at a finite price.
pub(crate) fn extract(
    egraph: &EGraph<Term, Kinds>,
    roots: &[Id],
    price: impl Fn(&Term, Id) -> Option<u64>,
) -> BTreeMap<Id, Term> {
    let mut spellings: BTreeMap<Id, Vec<Priced<'_>>> = BTreeMap::new();
    for class in egraph.classes() {
        let mut nodes: Vec<Priced<'_>> =
            class.nodes.iter().filter_map(|term| Some((term, price(term, class.id)?))).collect();
        nodes.sort_by_key(|(term, _)| *term);
        spellings.insert(class.id, nodes);
    }
    let mut search = Search { egraph, spellings, chosen: alone(egraph, price) };
    search.improve(roots);
    search.chosen.into_iter().map(|(id, (term, _))| (id, term.clone())).collect()
}

/// For each class the node whose own graph is cheapest.
fn alone<'a>(
    egraph: &'a EGraph<Term, Kinds>,
    price: impl Fn(&Term, Id) -> Option<u64>,
) -> BTreeMap<Id, Priced<'a>> {
    let mut priced: Vec<(Id, &Term, u64)> = Vec::new();
    for class in egraph.classes() {
        let nodes = class.nodes.iter();
        priced.extend(nodes.filter_map(|term| Some((class.id, term, price(term, class.id)?))));
    }
    priced.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut best: BTreeMap<Id, Choice<'_>> = BTreeMap::new();
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
            return best.into_iter().map(|(id, c)| (id, (c.term, c.parts[&id]))).collect();
        }
    }
}

/// A node, and the price of each class that it needs.
struct Choice<'a> {
    term: &'a Term,
    parts: BTreeMap<Id, u64>,
    total: u64,
}

fn choose<'a>(
    egraph: &EGraph<Term, Kinds>,
    best: &BTreeMap<Id, Choice<'_>>,
    id: Id,
    term: &'a Term,
    own: u64,
) -> Option<Choice<'a>> {
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
    Some(Choice { term, parts, total })
}

/// Choices that change one at a time.
struct Search<'a> {
    egraph: &'a EGraph<Term, Kinds>,
    spellings: BTreeMap<Id, Vec<Priced<'a>>>,
    chosen: BTreeMap<Id, Priced<'a>>,
}

impl Search<'_> {
    fn improve(&mut self, roots: &[Id]) {
        let Some((mut total, mut used)) = self.total(roots) else { return };
        loop {
            let before = total;
            for id in used.clone() {
                for spelling in self.spellings[&id].clone() {
                    let old = self.chosen.insert(id, spelling).expect("a used class is chosen");
                    match self.total(roots) {
                        Some((lower, now)) if lower < total => (total, used) = (lower, now),
                        _ => {
                            self.chosen.insert(id, old);
                        }
                    }
                }
            }
            if total == before {
                return;
            }
        }
    }

    /// The price of everything that the roots need, and what that is; `None` if something has no
    /// finite price or needs itself.
    fn total(&self, roots: &[Id]) -> Option<(u64, BTreeSet<Id>)> {
        let (mut total, mut done, mut open) = (0u64, BTreeSet::new(), BTreeSet::new());
        let mut stack: Vec<(Id, bool)> = roots.iter().map(|id| (self.egraph.find(*id), false)).collect();
        while let Some((id, left)) = stack.pop() {
            if left {
                open.remove(&id);
                done.insert(id);
                continue;
            }
            if done.contains(&id) {
                continue;
            }
            if !open.insert(id) {
                return None;
            }
            let (term, price) = self.chosen.get(&id)?;
            total = total.checked_add(*price)?;
            stack.push((id, true));
            stack.extend(term.args.iter().map(|a| (self.egraph.find(*a), false)));
        }
        Some((total, done))
    }
}

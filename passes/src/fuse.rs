//! Vertical fusion by equality saturation.
//!
//! Read left to right a fused op's definition is the rewrite rule, read right to left it is the op's
//! meaning, which `unfuse` restores. A rule applies where
//!
//! - every reader of an absorbed value lies inside the pattern, or the value is cheap to compute
//!   again;
//! - the states that the pattern reads may still be read when all its operands are there;
//! - the fused op takes the operands: literals that a formal unites must be equal.
//!
//! The work is bounded by nodes and rounds, never by the clock.
use crate::cost::Site;
use crate::extract::extract;
use crate::rebuild::{Rebuild, before, reorder};
use crate::term::{Head, Kind, Kinds, Term, sig_args};
use ds4_ir::ops::{Op, Sig, Term as Part, ops};
use ds4_ir::{Arg, Func, Node, Value};
use egg::{Applier, EGraph, ENodeOrVar, Id, Pattern, PatternAst, RecExpr, Rewrite, Runner, SimpleScheduler};
use egg::{Subst, Symbol, Var};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Rounds of rewriting. Definitions are of primitives only, so one round finds all.
const ROUNDS_MAX: usize = 4;
/// E-nodes of one function; a layer has a few hundred.
const NODES_MAX: usize = 100_000;

/// What choosing a node costs; `None` is infinite: there is no kernel.
pub type Price<'a> = dyn Fn(&Site<'_>) -> Option<u64> + 'a;

/// Replaces nodes of a canonical function by fused ones where that lowers the price.
pub fn fuse(func: &Func, price: &Price<'_>) -> Func {
    let (egraph, ids) = load(func);
    let facts = Arc::new(Facts::new(func, &ids));
    let rules: Vec<Rewrite<Term, Kinds>> = ops().filter_map(|op| rule(op, &facts)).collect();
    let runner: Runner<Term, Kinds> = Runner::new(Kinds::of(func))
        .with_egraph(egraph)
        .with_iter_limit(ROUNDS_MAX)
        .with_node_limit(NODES_MAX)
        .with_time_limit(Duration::MAX)
        .with_scheduler(SimpleScheduler)
        .run(&rules);
    let egraph = &runner.egraph;
    let roots: Vec<Id> = func.results.iter().map(|v| ids[v.index()]).collect();
    let chosen = extract(egraph, &roots, |term, id| match (&term.head, &egraph[id].data) {
        (Head::Op(op), Kind::Value(ty)) => price(&Site { op, args: &sig_args(egraph, &term.args), ty }),
        _ => Some(0),
    });
    // Where the target lacks even a primitive there is nothing to choose.
    if func.results.iter().any(|v| !chosen.contains_key(&egraph.find(ids[v.index()]))) {
        return func.clone();
    }
    let mut emit =
        Emit { func, egraph, chosen: &chosen, ids: &ids, r: Rebuild::new(func), done: BTreeMap::new() };
    let fused = emit.all();
    in_order(func, &fused).unwrap_or_else(|| func.clone())
}

/// The function as a graph of terms, and the class of each value.
fn load(func: &Func) -> (EGraph<Term, Kinds>, Vec<Id>) {
    let mut egraph = EGraph::new(Kinds::of(func));
    let mut ids: Vec<Id> = Vec::new();
    for v in func.values() {
        let term = match func.node(v) {
            None => Term { head: Head::Input(v.index()), args: vec![] },
            Some(node) => {
                let arg = |arg: &Arg| match arg {
                    Arg::Value(a) => ids[a.index()],
                    Arg::Weight(w) => egraph.add(Term { head: Head::Weight(w.index()), args: vec![] }),
                    Arg::Lit(lit) => egraph.add(Term { head: Head::Lit(lit.clone()), args: vec![] }),
                };
                let args = node.args.iter().map(arg).collect();
                Term { head: Head::Op(node.op), args }
            }
        };
        ids.push(egraph.add(term));
    }
    egraph.rebuild();
    (egraph, ids)
}

/// What the conditions of the rules need to know of the function. Rules only add spellings to
/// classes, they never join two values, so the classes of the start are those of the end.
struct Facts {
    /// How often nodes and results read a class.
    reads: BTreeMap<Id, usize>,
    /// Which classes a class depends on, itself included.
    needs: BTreeMap<Id, BTreeSet<Id>>,
    /// The class of the version that follows a state version.
    next: BTreeMap<Id, Id>,
}

impl Facts {
    fn new(func: &Func, ids: &[Id]) -> Facts {
        let (mut reads, mut needs, mut next) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let id = |v: Value| ids[v.index()];
        func.results.iter().for_each(|v| *reads.entry(id(*v)).or_insert(0) += 1);
        for v in func.values() {
            let mut mine = BTreeSet::from([id(v)]);
            for a in func.node(v).into_iter().flat_map(Node::values) {
                *reads.entry(id(a)).or_insert(0) += 1;
                let theirs: &BTreeSet<Id> = &needs[&id(a)];
                mine.extend(theirs);
            }
            needs.insert(id(v), mine);
            if let Some(before) = func.node(v).and_then(Node::consumes) {
                next.insert(id(before), id(v));
            }
        }
        Facts { reads, needs, next }
    }
}

/// The rule of a fused op, `None` for a primitive.
fn rule(op: &'static Op, facts: &Arc<Facts>) -> Option<Rewrite<Term, Kinds>> {
    let definition = op.definition()?;
    let var = |i: usize| Var::from_u32(u32::try_from(i).expect("few operands"));
    let mut ast: PatternAst<Term> = RecExpr::default();
    let mut places: Vec<Id> = Vec::new();
    for part in &definition.terms {
        places.push(ast.add(match part {
            Part::Formal(i) => ENodeOrVar::Var(var(*i)),
            Part::Apply(op, args) => {
                let args = args.iter().map(|i| places[*i]).collect();
                ENodeOrVar::ENode(Term { head: Head::Op(op), args })
            }
        }));
    }
    let vars = (0..op.operands().count()).map(var).collect();
    let applier = Absorb { op, ast: ast.clone(), vars, facts: facts.clone() };
    Some(Rewrite::new(op.name, Pattern::new(ast), applier).expect("a definition binds every operand"))
}

/// Adds the fused spelling where the conditions hold.
struct Absorb {
    op: &'static Op,
    ast: PatternAst<Term>,
    vars: Vec<Var>,
    facts: Arc<Facts>,
}

impl Applier<Term, Kinds> for Absorb {
    fn apply_one(
        &self,
        egraph: &mut EGraph<Term, Kinds>,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<Term>>,
        _: Symbol,
    ) -> Vec<Id> {
        let args: Vec<Id> = self.vars.iter().map(|v| egraph.find(subst[*v])).collect();
        if !self.takes(egraph, class, &args) || !self.absorbs(egraph, subst, &args) {
            return vec![];
        }
        let fused = egraph.add(Term { head: Head::Op(self.op), args });
        if egraph.union_trusted(class, fused, self.op.name) { vec![class] } else { vec![] }
    }

    fn vars(&self) -> Vec<Var> {
        self.vars.clone()
    }
}

impl Absorb {
    /// Whether the operands are of the kinds that the row names and give the type of the class.
    fn takes(&self, egraph: &EGraph<Term, Kinds>, class: Id, args: &[Id]) -> bool {
        let sig = Sig { args: sig_args(egraph, args) };
        let kinds = self.op.operands().zip(&sig.args).all(|(formal, arg)| formal.takes(arg));
        kinds && matches!((self.op.infer(&sig), &egraph[class].data), (Ok(ty), Kind::Value(is)) if ty == *is)
    }

    fn absorbs(&self, egraph: &EGraph<Term, Kinds>, subst: &Subst, operands: &[Id]) -> bool {
        let mut ids: Vec<Id> = Vec::new();
        let mut inner: BTreeSet<Id> = BTreeSet::new();
        let mut reads: BTreeSet<(Id, usize, Id)> = BTreeSet::new();
        for node in self.ast.as_ref() {
            ids.push(match node {
                ENodeOrVar::Var(var) => egraph.find(subst[*var]),
                ENodeOrVar::ENode(term) => {
                    let args: Vec<Id> = term.args.iter().map(|a| ids[usize::from(*a)]).collect();
                    let Some(id) = egraph.lookup(Term { head: term.head.clone(), args: args.clone() }) else {
                        return false;
                    };
                    reads.extend(args.iter().enumerate().map(|(i, arg)| (id, i, *arg)));
                    if !matches!(&term.head, Head::Op(op) if op.is_cheap()) {
                        inner.insert(id);
                    }
                    id
                }
            });
        }
        let root = *ids.last().expect("a definition has a root");
        inner.remove(&root);
        let sole_reader = |id: &Id| {
            let inside = reads.iter().filter(|(_, _, arg)| arg == id).count();
            self.facts.reads.get(id).is_some_and(|all| *all == inside)
        };
        inner.iter().all(sole_reader) && self.still_readable(root, operands)
    }

    /// The parts now run when all operands are there: no operand may need a later version of a state
    /// that they read.
    fn still_readable(&self, root: Id, operands: &[Id]) -> bool {
        operands.iter().all(|state| match self.facts.next.get(state) {
            // The root itself may be the write that consumes it.
            Some(next) if *next != root => {
                operands.iter().all(|o| self.facts.needs.get(o).is_none_or(|needs| !needs.contains(next)))
            }
            _ => true,
        })
    }
}

/// Writes the chosen nodes as a function.
struct Emit<'a> {
    func: &'a Func,
    egraph: &'a EGraph<Term, Kinds>,
    chosen: &'a BTreeMap<Id, Term>,
    ids: &'a [Id],
    r: Rebuild<'a>,
    done: BTreeMap<Id, Value>,
}

impl Emit<'_> {
    fn all(&mut self) -> Func {
        let names: BTreeMap<Id, Value> =
            self.func.values().rev().map(|v| (self.egraph.find(self.ids[v.index()]), v)).collect();
        for v in self.func.inputs() {
            self.done.insert(self.egraph.find(self.ids[v.index()]), self.r.get(v));
        }
        // Two results may be one value spelled twice: each keeps its own node.
        for v in self.func.results.clone() {
            self.value(self.ids[v.index()], &names);
            let id = self.egraph.find(self.ids[v.index()]);
            if names[&id] != v && self.func.node(v).is_some() {
                let term = self.chosen[&id].clone();
                let node = self.node(&term);
                self.r.define(v, node);
            }
        }
        let from = Rebuild::new(self.func);
        std::mem::replace(&mut self.r, from).finish()
    }

    fn value(&mut self, id: Id, names: &BTreeMap<Id, Value>) {
        let id = self.egraph.find(id);
        let leaf = !matches!(self.chosen[&id].head, Head::Op(_));
        if leaf || self.done.contains_key(&id) {
            return;
        }
        let term = self.chosen[&id].clone();
        term.args.iter().for_each(|a| self.value(*a, names));
        let node = self.node(&term);
        let v = names[&id];
        self.r.define(v, node);
        self.done.insert(id, self.r.get(v));
    }

    fn node(&self, term: &Term) -> Node {
        let Head::Op(op) = term.head else { unreachable!("leaves are not emitted") };
        let arg = |id: &Id| {
            let id = self.egraph.find(*id);
            match &self.chosen[&id].head {
                Head::Op(_) | Head::Input(_) => Arg::Value(self.done[&id]),
                Head::Weight(i) => {
                    Arg::Weight(self.func.weights().nth(*i).expect("a weight of the function"))
                }
                Head::Lit(lit) => Arg::Lit(lit.clone()),
            }
        };
        Node { op, args: term.args.iter().map(arg).collect() }
    }
}

/// The nodes in an order that every reader of a state accepts, the source's where it may be chosen.
/// `None` if there is none: two fusions that are fine alone can wait for each other.
fn in_order(source: &Func, fused: &Func) -> Option<Func> {
    let launches: Vec<Vec<Value>> =
        fused.nodes().filter(|(v, _)| fused.view_of(*v).is_none()).map(|(v, _)| vec![v]).collect();
    let before = before(fused, &launches);
    let place = |i: usize| source.find(fused.name(launches[i][0])).map(Value::index);
    let mut done: Vec<usize> = Vec::new();
    let mut open: Vec<usize> = (0..launches.len()).collect();
    while !open.is_empty() {
        let ready = open.iter().filter(|i| before[**i].iter().all(|j| done.contains(j)));
        let next = *ready.min_by_key(|i| place(**i))?;
        open.retain(|i| *i != next);
        done.push(next);
    }
    let order: Vec<Vec<Value>> = done.into_iter().map(|i| launches[i].clone()).collect();
    Some(reorder(fused, &order))
}

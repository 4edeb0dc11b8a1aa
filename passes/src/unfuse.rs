//! Every fused op replaced by its definition: the inverse of `fuse`.
use crate::canonicalize;
use crate::rebuild::Rebuild;
use ds4_ir::ops::Term;
use ds4_ir::{Arg, Func, Node, infer};

/// The function in primitive ops. Parts that several fused ops spell are one node again.
pub fn unfuse(func: &Func) -> Func {
    let mut r = Rebuild::new(func);
    for (v, node) in func.nodes() {
        let node = r.node(node);
        let Some(definition) = node.op.definition() else {
            r.define(v, node);
            continue;
        };
        let mut built: Vec<Arg> = Vec::new();
        let last = definition.terms.len() - 1;
        for (i, term) in definition.terms.iter().enumerate() {
            built.push(match term {
                Term::Formal(at) => node.args[*at].clone(),
                Term::Apply(op, args) => {
                    let part = Node { op, args: args.iter().map(|a| built[*a].clone()).collect() };
                    if i == last {
                        r.define(v, part);
                        break;
                    }
                    let ty = infer(&r.out, &part).expect("the fused node has a type, so its parts do");
                    let name = fresh(&r.out, &format!("{}.{i}", func.name(v)));
                    Arg::Value(r.out.push(name, ty, part))
                }
            });
        }
    }
    canonicalize(&r.finish())
}

/// `name`, or the first `name_2`, `name_3`, … that the function does not have.
fn fresh(func: &Func, name: &str) -> String {
    let taken = |name: &str| func.find(name).is_some();
    let numbered = (2..).map(|i| format!("{name}_{i}"));
    let mut names = std::iter::once(name.to_string()).chain(numbered);
    names.find(|n| !taken(n)).expect("endless")
}

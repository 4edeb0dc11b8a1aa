//! What each fused op saves: the real Flash, compiled without it.
use super::common::{model, target};
use ds4_ir::cost::{Kernels, Needs, Rates, Site, args_of};
use ds4_ir::ops::ops;
use ds4_ir::plan::Maxima;
use ds4_ir::{Class, Func, Module, Value};
use ds4_models::Mix;
use ds4_passes::{Target, optimize};

/// A target but for one of its fused ops. A primitive that it has no kernel for counts as one launch.
struct Without {
    target: Target,
    op: &'static str,
}

impl Without {
    fn target(target: Target, op: &'static str) -> Target {
        Target::Gpu(Box::leak(Box::new(Without { target, op })))
    }
}

impl Kernels for Without {
    fn name(&self) -> &'static str {
        "all but one"
    }

    fn rates(&self) -> Rates {
        self.target.rates()
    }

    fn has(&self, op: &str) -> bool {
        op != self.op && self.target.has_kernel(op)
    }

    fn needs(&self, site: &Site<'_>, maxima: &Maxima) -> Option<Needs> {
        let known = self.target.launches(site, maxima).filter(|_| site.op.name != self.op);
        let launches = known.or(site.op.definition().is_none().then_some(1))?;
        Some(Needs { launches, scratch: self.target.scratch(site, maxima) })
    }

    fn block(&self, func: &Func, members: &[Value], maxima: &Maxima) -> Option<u64> {
        let one = |v: &Value| {
            let op = func.node(*v).expect("launches are nodes").op;
            self.needs(&Site { op, args: &args_of(func, *v), ty: func.ty(*v) }, maxima).map(|n| n.launches)
        };
        let known = self.target.block(func, members, maxima);
        known.or_else(|| members.iter().map(one).max().flatten())
    }
}

/// Launches and bytes of values of one decoded token.
fn token(module: &Module, target: Target) -> (i64, i64) {
    let (module, _) = optimize(module, target, &mut |_, _| ()).unwrap();
    let sizes = Maxima::of(&module, 1);
    let cost = |call: &ds4_ir::module::Call| ds4_passes::func_cost(&module.funcs[call.func], target, &sizes);
    let calls = &module.graph("main").expect("a graph").calls;
    let all: ds4_passes::Cost = calls.iter().map(cost).sum();
    (i64::try_from(all.launches).unwrap(), i64::try_from(all.values).unwrap())
}

/// A table of every fused op: what a token costs more without it, by target.
///
/// # Panics
/// If there is an op that saves nothing on any of the targets.
pub(crate) fn table() -> String {
    let modules = [(Mix::Ds4Q2, Class::Fast), (Mix::Official, Class::Exact)]
        .map(|(mix, class)| model("flash", mix, class, 131_072));
    let names = ["cpu", "cuda"];
    let mut text = "| without | on cpu: launches, kB | on cuda: launches, kB |\n|---|---|---|\n".to_string();
    let all = names.map(|name| modules.each_ref().map(|m| token(m, target(name))));
    for op in ops().filter(|op| op.definition().is_some()) {
        let mut cells = Vec::new();
        let mut saves = false;
        for (name, all) in names.into_iter().zip(&all) {
            if !target(name).has_kernel(op.name) {
                cells.push("no kernel".to_string());
                continue;
            }
            let more = modules.iter().zip(all).map(|(module, all)| {
                let other = token(module, Without::target(target(name), op.name));
                (other.0 - all.0, other.1 - all.1)
            });
            let more: Vec<(i64, i64)> = more.collect();
            saves |= more.iter().any(|(launches, bytes)| *launches > 0 || *bytes > 0);
            let cell = more.iter().find(|m| **m != (0, 0)).unwrap_or(&(0, 0));
            cells.push(format!("{:+}, {:+.0}", cell.0, cell.1 as f64 / 1e3));
        }
        assert!(saves, "`{}` saves neither launches nor bytes", op.name);
        text += &format!("| `{}` | {} |\n", op.name, cells.join(" | "));
    }
    text
}

//! Every node of every planned model has its kernels on every GPU, and the plan gives them the scratch
//! they need.
use super::common::{fixture, model};
use ds4::target::CompileTarget;
use ds4_codegen::{launches, scratch_bytes};
use ds4_ir::cost::{Site, args_of};
use ds4_ir::{Class, Module};
use ds4_models::Mix;
use ds4_passes::optimize;
use std::collections::BTreeSet;

/// What is missing for a module on a target, a line each.
fn missing(module: &Module, target: &ds4_codegen::Target, found: &mut BTreeSet<String>) {
    let (module, plan) = optimize(module, CompileTarget::Gpu(*target).prices(), &mut |_, _| ()).unwrap();
    for bucket in &plan.buckets {
        for ((func, part), list) in module.funcs.iter().zip(&bucket.funcs).zip(&plan.launches) {
            for name in &list.launches {
                let v = func.find(name).unwrap();
                let (args, op) = (args_of(func, v), func.node(v).unwrap().op);
                let site = Site { op, args: &args, ty: func.ty(v) };
                let planned = part.scratch[v.index()].map_or(0, |(_, bytes)| bytes);
                let tokens = bucket.maxima.tokens;
                match launches(&site, &bucket.maxima, target) {
                    None => drop(found.insert(format!("{target} {}: no kernel for {:?}", op.name, args))),
                    Some(list) if scratch_bytes(&list) > planned => {
                        let needed = scratch_bytes(&list);
                        found.insert(format!(
                            "{target} {} t={tokens}: needs {needed}, planned {planned}",
                            op.name
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

#[test]
fn every_node_has_its_kernels_and_their_scratch() {
    let mut found = BTreeSet::new();
    for (_, api) in ds4_codegen::Api::ALL {
        let target = ds4_codegen::Target::default_of(api);
        for class in [Class::Exact, Class::Official, Class::Fast] {
            for mix in [Mix::Official, Mix::OfficialLike, Mix::Ds4Q2, Mix::Ds4Q2Q4, Mix::Ds4Q4] {
                missing(&model("flash", mix, class, 16_384), &target, &mut found);
                missing(&model("pro", mix, class, 16_384), &target, &mut found);
            }
            for name in ["flash-bf16", "pro-mixed"] {
                missing(&fixture(name, class), &target, &mut found);
            }
        }
    }
    let list: Vec<String> = found.into_iter().collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}

//! The pipeline on the real models and the fixtures.
use super::common::{fixture, model, target, targets};
use ds4_ir::plan::Plan;
use ds4_ir::{Class, Module, Type, parse_module};
use ds4_models::Mix;
use ds4_passes::{Phase, Target, canonicalize, normal_form, optimize, unfuse};
use std::process::Command;

const CLASSES: [Class; 3] = [Class::Exact, Class::Official, Class::Fast];

fn compiled(module: &Module, target: Target) -> (Module, Plan) {
    optimize(module, target, &mut |_, _| ()).unwrap()
}

/// Every function after every phase is its source, fused ops taken apart.
fn keeps_its_meaning(module: &Module, target: Target) {
    optimize(module, target, &mut |phase: Phase, now: &Module| {
        for (before, after) in module.funcs.iter().zip(&now.funcs) {
            let expected = normal_form(&canonicalize(before));
            assert_eq!(normal_form(&unfuse(after)), expected, "{target} {phase:?} @{}", before.name);
        }
        let text = now.to_string();
        assert!(parse_module(&text).unwrap().to_string() == text, "{target} {phase:?}");
    })
    .unwrap();
}

#[test]
fn unfused_functions_are_what_they_were() {
    for (_, target) in targets() {
        for class in CLASSES {
            for name in ["flash-bf16", "pro-mixed"] {
                keeps_its_meaning(&fixture(name, class), target);
            }
            for mix in [Mix::Official, Mix::Ds4Q2Q4] {
                keeps_its_meaning(&model("flash", mix, class, 131_072), target);
                keeps_its_meaning(&model("pro", mix, class, 131_072), target);
            }
        }
    }
}

/// Launches of a call of the function, one token.
fn launches(module: &Module, func: &str, target: Target) -> u64 {
    let func = module.func(func).unwrap();
    ds4_passes::func_cost(func, target, &ds4_ir::plan::Maxima::of(module, 1)).launches
}

#[test]
fn a_layer_takes_few_launches_on_a_gpu() {
    for target in ["cuda", "hip", "metal"].map(target) {
        for (class, mix) in [(Class::Fast, Mix::Ds4Q2), (Class::Official, Mix::Official)] {
            let (module, _) = compiled(&model("flash", mix, class, 131_072), target);
            let kinds = ["swa_hash", "hca_topk", "csa_topk", "csa_hash"];
            let counts = kinds.map(|kind| launches(&module, kind, target));
            assert_eq!(counts, [20, 25, 34, 34], "{target} {class}");
        }
    }
}

#[test]
fn the_arena_of_a_long_prompt_is_bounded() {
    for (_, target) in targets() {
        for mix in [Mix::Official, Mix::Ds4Q2] {
            for class in CLASSES {
                let (_, plan) = compiled(&model("flash", mix, class, 131_072), target);
                let bucket = plan.buckets.iter().find(|b| b.maxima.tokens == 512).unwrap();
                let mib = bucket.arena_bytes as f64 / f64::from(1 << 20);
                println!("{target} {class}: {mib:.1} MiB");
                // Index queries in f32 are seven times as large as in `idx4`, and class `exact` has them
                // beside the queries. Metal's matrix units take rounded inputs in f32.
                let most = match class {
                    Class::Exact => 200.0,
                    Class::Fast if target.to_string() == "metal" => 184.0,
                    _ => 176.0,
                };
                assert!(mib <= most, "{target} {class}: {mib} MiB");
            }
        }
    }
}

#[test]
fn every_fused_op_has_a_use() {
    let mut unused: Vec<&str> =
        ds4_ir::ops::ops().filter(|op| op.definition().is_some()).map(|op| op.name).collect();
    for target in ["cpu", "cuda"].map(target) {
        let (module, _) = compiled(&model("flash", Mix::Ds4Q2, Class::Fast, 32_768), target);
        let ops: Vec<&str> = module.funcs.iter().flat_map(|f| f.nodes().map(|(_, n)| n.op.name)).collect();
        unused.retain(|name| !ops.contains(name));
    }
    assert!(unused.is_empty(), "{unused:?}");
}

/// Text of modules and their plans.
fn planned() -> String {
    let mut text = String::new();
    for (name, target) in [("flash", target("cuda")), ("pro", Target::Cpu)] {
        let (module, plan) = compiled(&model(name, Mix::Ds4Q2Q4, Class::Fast, 65_536), target);
        text += &ds4_passes::planned(&module, &plan);
    }
    text
}

#[test]
fn any_build_plans_the_same() {
    // Kept by whatever build wrote it last: a debug and a release build must agree on it.
    insta::assert_snapshot!("planned-hash", hash(&planned()));
}

fn hash(text: &str) -> String {
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[test]
fn print_planned() {
    if std::env::var("PRINT_PLANNED").is_ok() {
        println!("planned {}", hash(&planned()));
    }
}

#[test]
fn twenty_processes_plan_the_same() {
    let run = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["models::print_planned", "--exact", "--nocapture"]).env("PRINT_PLANNED", "1");
        let out = String::from_utf8(command.output().unwrap().stdout).unwrap();
        out.lines().find_map(|l| l.split_once("planned ")).expect("a hash").1.to_string()
    };
    let first = run();
    assert!((1..20).all(|_| run() == first));
}

#[test]
fn broken_plans_are_refused() {
    let (module, plan) = compiled(&model("flash", Mix::Ds4Q2, Class::Fast, 16_384), target("cuda"));
    let layer = module.funcs.iter().position(|f| f.name == "csa_topk").unwrap();
    let func = &module.funcs[layer];
    let value = |name: &str| func.find(name).unwrap().index();
    let refuse = |what: &str, expected: &str, break_it: &dyn Fn(&mut Plan)| {
        let mut broken = plan.clone();
        break_it(&mut broken);
        let why = broken.check(&module).expect_err(what).to_string();
        assert!(why.contains(expected), "{what}: {why}");
    };
    plan.check(&module).unwrap();
    let last = plan.buckets.len() - 1;
    refuse("a result on an operand", "where", &|p| {
        let addresses = &mut p.buckets[last].funcs[layer].addresses;
        addresses[value("q")] = addresses[value("qb")];
    });
    refuse("scratch on an operand", "where", &|p| {
        let at = p.buckets[last].funcs[layer].addresses[value("jq")].unwrap();
        p.buckets[last].funcs[layer].scratch[value("idx")].as_mut().unwrap().0 = at;
    });
    refuse("two results of one launch on each other", "where", &|p| {
        let addresses = &mut p.buckets[last].funcs[layer].addresses;
        addresses[value("ka")] = addresses[value("c.k")];
    });
    refuse("scratch outside", "outside", &|p| {
        p.buckets[0].funcs[layer].scratch[value("un")].as_mut().unwrap().1 = 1 << 40;
    });
    refuse("an arena too small", "outside", &|p| p.buckets[last].arena_bytes /= 2);
    refuse("no address", "has no address", &|p| {
        p.buckets[0].funcs[layer].addresses[value("q")] = None;
    });
    refuse("an odd address", "not aligned", &|p| {
        *p.buckets[0].funcs[layer].addresses[value("q")].as_mut().unwrap() += 8;
    });
    refuse("a launch left out", "launches other nodes", &|p| {
        p.launches[layer].launches.pop();
    });
    refuse("a part on the streams", "", &|p| {
        let (graph, call) = (&module.graphs[0], 3);
        let streams = p.buckets[last].graphs[0].addresses[graph.calls[call].args[0]];
        p.buckets[last].graphs[0].parts[call] = streams;
    });
}

#[test]
fn broken_modules_are_refused() {
    let (module, _) = compiled(&model("flash", Mix::Ds4Q2, Class::Fast, 16_384), target("cuda"));
    let text = module.to_string();
    let refuse = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}");
        let broken = parse_module(&text.replacen(from, to, 1)).expect("well spelled");
        let errors = ds4_ir::verify_module(&broken).expect_err(to);
        assert!(errors.iter().any(|e| e.message.contains(expected)), "{to}: {}", errors[0]);
    };
    refuse("groups=8, fmt=q8_0 : f32[t, 8192]", "groups=8, fmt=q8_0 : f32[t, 4096]", "gives f32[t, 8192]");
    refuse("k=6, scale", "k=7, scale", "gives route[t, 7]");
    refuse("groups=8, fmt=q8_0", "groups=8, fmt=q9", "fmt: expected");
    // A write before the attention that reads the ring.
    let layer = module.func("csa_topk").unwrap();
    let (push, attend) = ("%raw1 = push", "%un = csa_attend");
    let printed = layer.to_string();
    let line = |start: &str| printed.lines().find(|l| l.trim_start().starts_with(start)).unwrap().to_string();
    let moved = printed.replacen(&format!("{}\n", line(push)), "", 1);
    let moved = moved.replacen(&line(attend), &format!("{}\n{}", line(push).trim_start(), line(attend)), 1);
    let funcs = ds4_ir::parse_funcs(&moved).unwrap();
    let errors = ds4_ir::verify(&funcs[0]).expect_err("read after write");
    assert!(errors[0].message.contains("after it was consumed"), "{}", errors[0]);
}

#[test]
fn one_launch_holds_no_pair_that_waits() {
    let (module, _) = compiled(&model("pro", Mix::Official, Class::Official, 16_384), target("metal"));
    let layer = module.func("csa_topk").unwrap();
    let printed = layer.to_string();
    assert!(printed.contains("    launch {\n"), "{printed}");
    // Joining two launches of which one reads the other is refused.
    let joined = printed.replacen("    }\n    launch {\n", "", 1);
    assert_ne!(joined, printed);
    let errors = ds4_ir::verify(&ds4_ir::parse_funcs(&joined).unwrap()[0]).expect_err("a reader inside");
    assert!(errors[0].message.contains("its own launch"), "{}", errors[0]);
    assert!(layer.inputs().any(|v| matches!(layer.ty(v), Type::State(_))));
}

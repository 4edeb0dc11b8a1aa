//! The text of every kernel, once per target, on its first case; and those that only long steps launch, each on the
//! first case that does. Review changes with
//! `INSTA_UPDATE=always cargo test -p ds4-codegen --features gpu --test texts` and `git diff`.
use ds4_codegen::emit::{emit, emit_joint};
use ds4_codegen::{Api, Case, KERNELS, Launch, Target, block, launches};
use ds4_ir::cost::{Site, args_of};
use ds4_ir::plan::Maxima;
use std::collections::BTreeSet;

/// Tokens of a short and of a long step.
const SHORT: u32 = 2;
const LONG: u32 = 64;

/// The launches of a case in a bucket of so many tokens.
fn launches_of(case: &Case, tokens: u32, target: &Target) -> Vec<Launch> {
    let func = ds4_ir::parse_funcs(&case.func()).unwrap().remove(0);
    let (value, node) = func.nodes().next().unwrap();
    let args = args_of(&func, value);
    let site = Site { op: node.op, args: &args, ty: func.ty(value) };
    launches(&site, &Maxima { tokens, wanted: tokens, ctx: 256 }, target)
        .unwrap_or_else(|| panic!("{target} has no kernel for {}", case.node))
}

/// Snapshots lie in `texts/` under their own names.
fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("texts");
    settings.set_omit_expression(true);
    settings
}

#[test]
fn texts_are_as_reviewed() {
    let mut settings = settings();
    let mut check = |of: &str, launch: &Launch, target: &Target| {
        let text = emit(launch, target).unwrap_or_else(|e| panic!("{e}"));
        settings.set_description(launch.key());
        let name = format!("{of}-{}-{}", text.entry, target.api.extension());
        settings.bind(|| insta::assert_snapshot!(name, text.source));
    };
    for (_, api) in Api::ALL {
        let target = Target::default_of(api);
        let mut names = BTreeSet::new();
        for kernel in KERNELS {
            for launch in launches_of(&kernel.cases[0], SHORT, &target) {
                names.insert(launch.text.name());
                check(kernel.op, &launch, &target);
            }
        }
        for case in KERNELS.iter().flat_map(|kernel| kernel.cases) {
            for launch in launches_of(case, LONG, &target) {
                if names.insert(launch.text.name()) {
                    check("long", &launch, &target);
                }
            }
        }
    }
}

/// A product over two axes of blocks, a row through shared memory, and a copy.
const BLOCK: &str =
    "func @block(%x: f32[t, 96], %ring: state ring/16 f32[40], %row: f32[t, 40], %pos: i32[t], \
    %k: f32[t, 144], %angles: f32[t, 16], @a: q8_0[40, 96], @norm: f32[144]) {
  launch {
    %p = linear %x, @a, fmt=q8_0 : f32[t, 40]
    %r = kv_row %k, @norm, %angles, eps=1e-6, fmt=kv8, dims=16 : kv8r16[t, 144]
    %ring1 = push %ring, %row, %pos : state ring/16 f32[40]
  }
  return %p, %r, %ring1
}
";

#[test]
fn the_text_of_a_block_is_as_reviewed() {
    let mut settings = settings();
    let func = ds4_ir::parse_funcs(BLOCK).unwrap().remove(0);
    for (_, api) in Api::ALL {
        let target = Target::default_of(api);
        let maxima = Maxima { tokens: SHORT, wanted: SHORT, ctx: 256 };
        let joints = block(&func, &func.launches()[0], &maxima, &target).unwrap();
        let [joint] = &joints[..] else { panic!("one launch: {joints:?}") };
        let text = emit_joint(joint, &target).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(emit_joint(joint, &target), Ok(text.clone()), "{target}: the same every time");
        settings.set_description(joint.key());
        let name = format!("block-{}-{}", text.entry, api.extension());
        settings.bind(|| insta::assert_snapshot!(name, text.source));
    }
}

#[test]
fn a_text_is_the_same_every_time() {
    let target = Target::default_of(Api::Metal);
    for kernel in KERNELS {
        for launch in launches_of(&kernel.cases[0], SHORT, &target) {
            assert_eq!(emit(&launch, &target), emit(&launch, &target), "{}", launch.key());
        }
    }
}

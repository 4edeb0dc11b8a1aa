//! The text of every kernel, once per target, on its first case; and those that only long steps launch, each on the
//! first case that does. Review changes with
//! `INSTA_UPDATE=always cargo test -p ds4-codegen --features gpu --test texts` and `git diff`.
use ds4_codegen::emit::emit;
use ds4_codegen::{Api, Case, KERNELS, Launch, Target, launches};
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

#[test]
fn texts_are_as_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("texts");
    settings.set_omit_expression(true);
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

#[test]
fn a_text_is_the_same_every_time() {
    let target = Target::default_of(Api::Metal);
    for kernel in KERNELS {
        for launch in launches_of(&kernel.cases[0], SHORT, &target) {
            assert_eq!(emit(&launch, &target), emit(&launch, &target), "{}", launch.key());
        }
    }
}

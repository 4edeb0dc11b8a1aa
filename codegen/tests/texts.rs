//! The text of every kernel, once per target, on its first case. Review changes with
//! `INSTA_UPDATE=always cargo test -p ds4-codegen --features gpu --test texts` and `git diff`.
use ds4_codegen::emit::emit;
use ds4_codegen::{Api, Case, KERNELS, Launch, Target, launches};
use ds4_ir::cost::{Site, args_of};
use ds4_ir::plan::Maxima;

const MAXIMA: Maxima = Maxima { tokens: 2, wanted: 2, ctx: 256 };

/// The launches of a case in a bucket of two tokens.
fn launches_of(case: &Case, target: &Target) -> Vec<Launch> {
    let func = ds4_ir::parse_funcs(&case.func()).unwrap().remove(0);
    let (value, node) = func.nodes().next().unwrap();
    let args = args_of(&func, value);
    let site = Site { op: node.op, args: &args, ty: func.ty(value) };
    launches(&site, &MAXIMA, target).unwrap_or_else(|| panic!("{target} has no kernel for {}", case.node))
}

#[test]
fn texts_are_as_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("texts");
    settings.set_omit_expression(true);
    for (_, api) in Api::ALL {
        let target = Target::default_of(api);
        for kernel in KERNELS {
            for launch in launches_of(&kernel.cases[0], &target) {
                let text = emit(&launch, &target).unwrap_or_else(|e| panic!("{e}"));
                settings.set_description(launch.key());
                let name = format!("{}-{}-{}", kernel.op, text.entry, api.extension());
                settings.bind(|| insta::assert_snapshot!(name, text.source));
            }
        }
    }
}

#[test]
fn a_text_is_the_same_every_time() {
    let target = Target::default_of(Api::Metal);
    for kernel in KERNELS {
        for launch in launches_of(&kernel.cases[0], &target) {
            assert_eq!(emit(&launch, &target), emit(&launch, &target), "{}", launch.key());
        }
    }
}

//! What is printed reads back as the same thing, for every function and module the project builds.
mod common;

use common::{artifact, fixture};
use ds4::compile::{Request, module_without_weights};
use ds4::target::CompileTarget;
use ds4_ir::{Class, Module, parse_funcs, parse_module, verify_module};
use ds4_models::{Config, Mix};
use std::path::Path;

/// Fails unless the module and each of its functions survive their text.
fn reads_back(module: &Module) {
    let name = format!("{} {}", module.name, module.class);
    assert_eq!(verify_module(module), Ok(()), "{name}");
    let text = module.to_string();
    let again = parse_module(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(again == *module, "{name}: the module reads back as another");
    assert_eq!(again.to_string(), text, "{name}");
    for func in &module.funcs {
        let again = parse_funcs(&func.to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(again.len(), 1, "{name} @{}", func.name);
        assert!(again[0] == *func, "{name} @{}: the function reads back as another", func.name);
    }
}

#[test]
fn built_in_models_read_back() {
    for (name, config) in [("flash", Config::flash()), ("pro", Config::pro())] {
        for (_, mix) in Mix::NAMES {
            for (_, class) in Class::ALL {
                let request = Request { class, ctx: Some(1 << 20), target: CompileTarget::Cpu };
                let module = module_without_weights(name, &config, *mix, request);
                reads_back(&module.unwrap_or_else(|e| panic!("{name} {mix:?} {class}: {e:#}")));
            }
        }
    }
}

#[test]
fn models_on_disk_read_back() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    for model in [fixture("flash-bf16"), fixture("pro-mixed"), demo] {
        for (_, class) in Class::ALL {
            reads_back(&artifact(&model, class).module);
        }
    }
}

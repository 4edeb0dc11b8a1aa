//! Modules of the real models, without their weights.
use ds4_ir::{Class, Module};
use ds4_models::graph::{Builtin, Options, build};
use ds4_models::{Config, Mix};

/// The model of that name with the types of a mix.
pub fn model(name: &str, mix: Mix, class: Class, ctx: u32) -> Module {
    let config = match name {
        "flash" => Config::flash(),
        "pro" => Config::pro(),
        other => panic!("no model {other}"),
    };
    let options = Options { name: name.to_string(), class, ctx, mtp_blocks: 1 };
    build(&config, &Builtin::new(&config, mix), &options).unwrap()
}

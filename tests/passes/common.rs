//! Modules of the real models, without their weights, and of the fixtures.
use ds4::target::CompileTarget;
use ds4_ir::{Class, Module, TensorType};
use ds4_models::graph::{Builtin, GraphError, Options, WeightTypes, build};
use ds4_models::{Checkpoint, Config, Mix};
use ds4_passes::Target;
use std::path::Path;

/// The model of that name with the types of a mix.
pub(crate) fn model(name: &str, mix: Mix, class: Class, ctx: u32) -> Module {
    let config = match name {
        "flash" => Config::flash(),
        "pro" => Config::pro(),
        other => panic!("no model {other}"),
    };
    let options = Options { name: name.to_string(), class, ctx, mtp_blocks: 1 };
    build(&config, &Builtin::new(&config, mix), &options).unwrap()
}

struct Files(Checkpoint);

impl WeightTypes for Files {
    fn weight_type(&self, name: &str) -> Result<TensorType, GraphError> {
        Ok(self.0.weight(name)?.ty)
    }
}

/// A module of a fixture.
pub(crate) fn fixture(name: &str, class: Class) -> Module {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let files = Files(Checkpoint::open(&folder).unwrap());
    let config = files.0.config().clone();
    let options =
        Options { name: name.to_string(), class, ctx: 256, mtp_blocks: files.0.mtp_blocks().min(1) };
    build(&config, &files, &options).unwrap()
}

/// The target of that name.
pub(crate) fn target(name: &str) -> Target {
    CompileTarget::parse(name).unwrap().prices()
}

/// Every kind of target by name.
pub(crate) fn targets() -> [(&'static str, Target); 4] {
    ["cpu", "cuda", "hip", "metal"].map(|name| (name, target(name)))
}

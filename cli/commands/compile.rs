//! `ds4c compile`: a model to an artifact.
use super::emit::{Emit, EmitArgs};
use crate::args::{CompileArgs, LayoutFlag};
use crate::compile::{self, Request};
use crate::open::{CLASS_DEFAULT, cache};
use crate::{demo, layouts, progress, selftest, tuning};
use anyhow::{Context, Result, bail};
use clap::Args;
use ds4_ir::Module;
use ds4_models::{Config, Mix};
use ds4_runtime::{Artifact, layout};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Compile a model for this machine.
#[derive(Args, Debug)]
pub struct CompileCommand {
    /// A Hugging Face folder, a .gguf, `demo`, or with --emit the built-in `flash` or `pro`
    model: PathBuf,
    /// The artifact, or the text or texts with --emit; MODEL.ds4 or standard output if absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    emit: EmitArgs,
    /// Types of the weights of `flash` and `pro`: official, official-like, ds4-q2, ds4-q4, ds4-q2q4
    #[arg(long, value_name = "MIX", value_parser = mix, requires = "emit")]
    weights: Option<Mix>,
    /// Layouts of the weights; others than `stored` are packed into a file beside the artifact
    #[arg(long, value_enum, default_value_t = LayoutFlag::Stored, conflicts_with = "emit")]
    layout: LayoutFlag,
    /// Measure the kernels for about so long, 60s or 2m; without it, what was measured here before
    #[arg(long, value_name = "TIME", value_parser = tuning::duration, conflicts_with = "emit")]
    tune: Option<Duration>,
    /// Hash every byte of the weights for `verify --full`; done anyhow for up to 1 GB
    #[arg(long)]
    hash: bool,
}

/// A mix of element types by name.
pub(super) fn mix(text: &str) -> Result<Mix, String> {
    let names: Vec<&str> = Mix::NAMES.iter().map(|(n, _)| *n).collect();
    Mix::parse(text).ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

/// A built-in configuration by name, unless a file of that name is meant.
fn built_in(model: &Path) -> Option<(&'static str, Config)> {
    let known = [("flash", Config::flash as fn() -> Config), ("pro", Config::pro)];
    let found = known.into_iter().find(|(name, _)| model == Path::new(name) && !model.exists())?;
    Some((found.0, found.1()))
}

/// Runs the command.
///
/// # Errors
/// A model that cannot be compiled, a file that cannot be written.
pub fn compile(args: &CompileCommand) -> Result<()> {
    let wish = args.compile.wish();
    let target = args.emit.target;
    let request = Request { class: wish.class.unwrap_or(CLASS_DEFAULT), ctx: wish.ctx, target };
    if let Some((name, config)) = built_in(&args.model) {
        let Some(form) = args.emit.emit else {
            bail!("{name}: the built-in configuration has no weights: expected --emit, or a folder or file");
        };
        let mix = args.weights.unwrap_or(Mix::Official);
        let module = compile::module_without_weights(name, &config, mix, request)?;
        return emit(args, &module, form);
    }
    if args.weights.is_some() {
        bail!("--weights: expected with `flash` or `pro`, got {}", args.model.display());
    }
    let is_demo = args.model == Path::new(demo::NAME) && !args.model.exists();
    let model = if is_demo { demo::unpack(&cache()?)? } else { args.model.clone() };
    if let Some(form) = args.emit.emit {
        return emit(args, &compile::module_of(&model, request)?, form);
    }
    let output = match &args.output {
        Some(path) => path.clone(),
        None => default_output(&model)?,
    };
    let folder = match output.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let spinner = progress::spinner(&format!("compiling {}", model.display()));
    let mut artifact = compile::compile(&model, &folder, request)?;
    artifact.selftest = Some(selftest::make(&artifact, &model, &folder, args.hash)?);
    spinner.finish_and_clear();
    lay_out(&mut artifact, args.layout, &output, &folder)?;
    tuning::add(&mut artifact, &folder, args.tune)?;
    artifact.write(&output)?;
    let (module, size) = (&artifact.module, std::fs::metadata(&output).map_or(0, |m| m.len()));
    let (path, class, ctx) = (output.display(), module.class, module.ctx);
    eprintln!("{path}: target {target}, class {class}, context {ctx}, {size} bytes");
    Ok(())
}

/// Packs the weights of an artifact that will be `output` as the flag says.
fn lay_out(artifact: &mut Artifact, flag: LayoutFlag, output: &Path, folder: &Path) -> Result<()> {
    let name = output.file_name().and_then(|n| n.to_str()).context("expected a name in UTF-8")?;
    artifact.layouts = layout::choose(artifact, flag.into(), folder, &format!("{name}.layout"));
    if artifact.layouts.is_some() {
        return layouts::build(artifact, folder, 0);
    }
    if matches!(flag, LayoutFlag::Packed | LayoutFlag::Expanded) {
        eprintln!("note: no kernel of this machine packs a weight of this model: all are read as stored");
    }
    Ok(())
}

fn default_output(model: &Path) -> Result<PathBuf> {
    let absolute = model.canonicalize().with_context(|| model.display().to_string())?;
    let stem = absolute.file_stem().context("expected a model with a name")?;
    Ok(PathBuf::from(stem).with_extension("ds4"))
}

fn emit(args: &CompileCommand, module: &Module, form: Emit) -> Result<()> {
    if form == Emit::Kernels {
        return args.emit.kernels(module, args.output.as_deref());
    }
    let text = args.emit.text(module, form)?;
    match &args.output {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string()),
        None => Ok(stdout().lock().write_all(text.as_bytes())?),
    }
}

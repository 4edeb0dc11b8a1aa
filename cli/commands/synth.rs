//! `ds4c synth`: a model of true geometry with random weights, to measure a machine before the
//! download.
use super::compile::mix;
use crate::progress;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use ds4_models::synth::{self, Alias, Spec, placeholder_vocab, vocab_from_json};
use ds4_models::{Config, Mix};
use std::path::PathBuf;

/// A built-in model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum BuiltIn {
    /// DeepSeek-V4-Flash, 43 layers
    Flash,
    /// DeepSeek-V4-Pro, 61 layers
    Pro,
}

/// Write a GGUF of true geometry with random weights.
#[derive(Args, Debug)]
pub struct SynthArgs {
    /// The model
    #[arg(value_enum)]
    model: BuiltIn,
    /// Only the first N layers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=61))]
    layers: Option<u32>,
    /// Let layers share three sets of weights: a small file that is read like a large one
    #[arg(long)]
    alias: bool,
    /// Element types: official-like, ds4-q2, ds4-q4, ds4-q2q4
    #[arg(long, value_name = "MIX", value_parser = mix, default_value = "ds4-q2")]
    weights: Mix,
    /// A tokenizer.json; a placeholder vocabulary if absent
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The GGUF
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A mix that GGUF does not hold, a tokenizer that does not fit, a file that cannot be written.
pub fn synth(args: &SynthArgs) -> Result<()> {
    let (name, config) = match args.model {
        BuiltIn::Flash => ("flash", Config::flash()),
        BuiltIn::Pro => ("pro", Config::pro()),
    };
    let layers = args.layers.unwrap_or(config.num_hidden_layers);
    anyhow::ensure!(
        layers <= config.num_hidden_layers,
        "--layers: expected at most {}, got {layers}",
        config.num_hidden_layers
    );
    let config = config.truncated(layers);
    let vocab = match &args.tokenizer {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            vocab_from_json(&text, &config).with_context(|| path.display().to_string())?
        }
        None => placeholder_vocab(&config),
    };
    let alias = args.alias.then(Alias::default);
    let spec = Spec { config, name: format!("{name}-synthetic"), mix: args.weights, alias, vocab, seed: 0 };
    let bar = progress::bar("bytes", 0);
    synth::write(&spec, &args.output, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(())
}

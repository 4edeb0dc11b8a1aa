//! `ds4c`: compiles models and looks into what it made.
use clap::{Parser, Subcommand};
use ds4::commands::{compile, diff, exit, inspect, layout, probe, synth, verify};
use std::process::ExitCode;

/// Compile DeepSeek V4 models for one machine.
#[derive(Parser, Debug)]
#[command(name = "ds4c", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Compile(compile::CompileCommand),
    Inspect(inspect::InspectArgs),
    Layout(layout::LayoutArgs),
    Verify(verify::VerifyArgs),
    Diff(diff::DiffArgs),
    Synth(synth::SynthArgs),
    Probe(probe::ProbeArgs),
}

fn main() -> ExitCode {
    exit(match Cli::parse().command {
        Command::Compile(args) => compile::compile(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Layout(args) => layout::layout(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Diff(args) => diff::diff(&args),
        Command::Synth(args) => synth::synth(&args),
        Command::Probe(args) => probe::probe(&args),
    })
}

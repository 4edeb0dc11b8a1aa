//! `ds4`: runs compiled models, and compiles on demand.
use clap::{Parser, Subcommand};
use ds4::commands::{bench, chat, exit, kv, logits, run, tokens};
use std::process::ExitCode;

/// Run DeepSeek V4 models.
#[derive(Parser, Debug)]
#[command(name = "ds4", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::RunArgs),
    Chat(chat::ChatArgs),
    Tokens(tokens::TokensArgs),
    Logits(logits::LogitsArgs),
    Bench(bench::BenchArgs),
    Kv(kv::KvCommand),
}

fn main() -> ExitCode {
    // `-sys` is how people know `--system` from other engines.
    let args = std::env::args_os().map(|a| if a == "-sys" { "--system".into() } else { a });
    exit(match Cli::parse_from(args).command {
        Command::Run(args) => run::run(&args),
        Command::Chat(args) => chat::chat(&args),
        Command::Tokens(args) => tokens::tokens(&args),
        Command::Logits(args) => logits::logits(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Kv(args) => kv::kv(&args),
    })
}

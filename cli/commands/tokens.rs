//! `ds4 tokens`: how a text is cut.
use crate::args::ModelArgs;
use anyhow::Result;
use clap::Args;
use std::io::{Write, stdout};

/// Show the token ids and pieces of a text.
#[derive(Args, Debug)]
pub struct TokensArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text
    #[arg(short, long, value_name = "TEXT")]
    prompt: String,
}

/// Runs the command: one line per token, id and piece.
///
/// # Errors
/// A model that cannot be opened or has no tokenizer.
pub fn tokens(args: &TokensArgs) -> Result<()> {
    let tokenizer = args.model.open()?.tokenizer()?;
    let mut out = stdout().lock();
    for id in tokenizer.encode_text(&args.prompt) {
        let piece = String::from_utf8_lossy(tokenizer.piece(id).unwrap_or_default()).into_owned();
        writeln!(out, "{id}\t{piece:?}")?;
    }
    Ok(())
}

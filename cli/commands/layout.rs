//! `ds4c layout`: builds the layout file of an artifact again.
use crate::layouts;
use anyhow::{Context, Result};
use clap::Args;
use ds4_runtime::Artifact;
use std::path::{Path, PathBuf};

/// Build the layout file of an artifact, where it is missing or damaged.
#[derive(Args, Debug)]
pub struct LayoutArgs {
    /// The artifact
    file: PathBuf,
    /// Threads; one per core if 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// No artifact, or weights or a file that cannot be used.
pub fn layout(args: &LayoutArgs) -> Result<()> {
    let mut artifact = Artifact::read(&args.file)?;
    if artifact.layouts.is_none() {
        eprintln!("{}: all weights as stored, there is nothing to build", args.file.display());
        return Ok(());
    }
    let folder = args.file.parent().unwrap_or(Path::new(""));
    layouts::build(&mut artifact, folder, args.threads)?;
    // The artifact remembers when the file was built.
    artifact.write(&args.file).with_context(|| args.file.display().to_string())
}

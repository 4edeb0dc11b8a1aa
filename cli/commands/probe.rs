//! `ds4c probe`: measures this machine.
use anyhow::{Context, Result};
use clap::Args;
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Measure this machine and print its profile as JSON.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// Where to write the profile; standard output if absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A folder on the disk that models lie on; a file is written there and removed
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Size of the measured memory and file in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    size: u32,
}

/// Runs the command.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn probe(args: &ProbeArgs) -> Result<()> {
    let profile = ds4_runtime::probe(&args.folder, (args.size as usize) << 20);
    let profile = profile.with_context(|| args.folder.display().to_string())?;
    let text = format!("{profile:#}\n");
    match &args.output {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string()),
        None => Ok(stdout().lock().write_all(text.as_bytes())?),
    }
}

//! `ds4c probe`: measures this machine.
use crate::open::machine_file;
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
    /// Threads to measure with; all if 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Keep the profile in the cache, where `ds4 bench` finds it
    #[arg(long)]
    save: bool,
}

/// Runs the command.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn probe(args: &ProbeArgs) -> Result<()> {
    let profile = ds4_runtime::probe(&args.folder, (args.size as usize) << 20, args.threads);
    let profile = profile.with_context(|| args.folder.display().to_string())?;
    let text = format!("{profile:#}\n");
    if args.save {
        let path = machine_file()?;
        std::fs::write(&path, &text).with_context(|| path.display().to_string())?;
        eprintln!("{}: kept for predictions", path.display());
    }
    match &args.output {
        None if args.save => Ok(()),
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string()),
        None => Ok(stdout().lock().write_all(text.as_bytes())?),
    }
}

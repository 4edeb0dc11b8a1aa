//! `ds4c verify`: does this artifact answer here what it answered to its compiler?
use crate::target::DeviceArgs;
use crate::{interrupt, progress, selftest};
use anyhow::{Result, bail};
use clap::Args;
use ds4_runtime::{Artifact, layout};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

/// Check an artifact on this machine.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The artifact
    file: PathBuf,
    /// Hash every byte of the weights too
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Threads; one per core if 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// The artifact does not pass.
pub fn verify(args: &VerifyArgs) -> Result<()> {
    let artifact = Artifact::read(&args.file)?;
    let folder = args.file.parent().unwrap_or(Path::new(""));
    if args.full {
        selftest::verify_bytes(&artifact, folder)?;
        writeln!(stdout(), "weights   every byte as compiled")?;
        if artifact.layouts.is_some() {
            let bar = progress::bytes("reading the layout file");
            layout::verify(&artifact, folder, interrupt::flag(), &mut |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            })?;
            bar.finish_and_clear();
            writeln!(stdout(), "layouts   every byte as packed")?;
        }
    }
    let made_by = artifact.selftest.as_ref().map_or(String::new(), |t| t.made_by.clone());
    let verdict = selftest::verify(artifact, folder, args.threads, &args.device)?;
    let (worst, median) = verdict.allowed;
    let mut out = stdout().lock();
    writeln!(
        out,
        "logits    against {made_by}: worst difference {:.2e}, at most {worst:.0e}",
        verdict.worst
    )?;
    writeln!(out, "          median difference {:.2e}, at most {median:.0e}", verdict.median)?;
    if !verdict.passes() {
        bail!("{}: the logits differ by more than the class allows", args.file.display());
    }
    Ok(writeln!(out, "passed")?)
}

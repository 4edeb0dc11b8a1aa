//! Tuning records: measured on demand, kept in the cache for the next compile on this machine.
use crate::open::cache;
use crate::{interrupt, progress};
use anyhow::{Context, Result};
use ds4_runtime::tune::{self, MachineId, Record};
use ds4_runtime::{Artifact, write_whole};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Puts into an artifact that lies in `folder` what is known of the kernels of this machine: measured
/// now for about `budget`, or what an earlier compile has measured.
///
/// # Errors
/// Weights that cannot be read, a cache that cannot be written, Ctrl-C.
pub fn add(artifact: &mut Artifact, folder: &Path, budget: Option<Duration>) -> Result<()> {
    let file = cache_file()?;
    // A cached record that cannot be read is measured again when that is asked for.
    let known = std::fs::read(&file).ok().and_then(|b| serde_json::from_slice::<Record>(&b).ok());
    let Some(budget) = budget else {
        if let Some(known) = known {
            artifact.tuning = tune::reuse(artifact, folder, &known)?;
        }
        return Ok(());
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let bar = progress::bar("tuning kernels", 0);
    let record = tune::tune(artifact, folder, threads, budget, interrupt::flag(), &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let record = record?;
    let mut kept = record.clone();
    if let Some(known) = known {
        tune::merge(&mut kept, known);
    }
    let bytes = serde_json::to_vec_pretty(&kept).context("tuning record")?;
    write_whole(&file, &bytes)?;
    for site in &record.sites {
        for kernel in site.kernels.iter().filter(|k| k.refused.is_some()) {
            let why = kernel.refused.as_deref().unwrap_or_default();
            eprintln!(
                "note: {} {}: kernel {} is not used: {why}",
                site.site.weight, site.site.packing, kernel.kernel
            );
        }
    }
    artifact.tuning = Some(record);
    Ok(())
}

/// Where records of this machine with the kernels of this build are kept.
fn cache_file() -> Result<PathBuf> {
    let folder = cache()?.join("tuning");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let machine = serde_json::to_vec(&MachineId::here()).context("machine")?;
    Ok(folder.join(format!("{}.json", &blake3::hash(&machine).to_hex()[..32])))
}

/// Lines on the kernels that were measured.
pub fn describe(artifact: &Artifact) -> String {
    let Some(record) = &artifact.tuning else {
        return "tuning    none: the static order of kernels\n".to_string();
    };
    let (machine, threads) = (&record.machine.processor, record.threads);
    let here = if record.machine == MachineId::here() { "" } else { "; not this machine, so unused here" };
    let mut text = format!("tuning    on {machine}, {threads} threads{here}\n");
    for site in &record.sites {
        let key = &site.site;
        let best =
            site.kernels.iter().find(|k| k.kernel == site.winner).and_then(|k| k.femtoseconds.iter().min());
        let best = best.map_or(String::new(), |fs| format!("  {fs} fs/product"));
        text += &format!(
            "  {:<9} {:<10} width {:>6}, {:>2} columns: {} of {}{best}\n",
            key.weight,
            key.packing,
            key.width,
            key.columns,
            site.winner,
            site.kernels.len()
        );
    }
    text
}

/// A duration as a flag spells it: `60s`, `2m`, or plain seconds.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = digits.parse::<f64>().ok().map(|n| n * unit).filter(|n| *n > 0.0 && *n <= 86_400.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected a time such as 60s or 2m, at most a day".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "s", "0s", "-1s", "nan", "1h", "100000m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

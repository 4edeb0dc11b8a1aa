//! `--target` and `--device`: what a model runs on.
use anyhow::{Result, bail};
use clap::Args;
use ds4_codegen::Target;
use ds4_passes::Target as Prices;
use std::fmt;

/// What a model is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompileTarget {
    /// The processor itself.
    Cpu,
    /// A GPU.
    Gpu(Target),
}

impl CompileTarget {
    /// Reads `cpu`, `cuda`, `cuda:sm_90`, `hip:gfx942`, `metal`.
    ///
    /// # Errors
    /// The names there are.
    pub fn parse(text: &str) -> Result<CompileTarget, String> {
        if text == "cpu" {
            return Ok(CompileTarget::Cpu);
        }
        Target::parse(text)
            .map(CompileTarget::Gpu)
            .map_err(|why| why.replacen("expected ", "expected cpu, ", 1))
    }

    /// Where the passes take their prices from.
    pub fn prices(self) -> Prices {
        match self {
            CompileTarget::Cpu => Prices::Cpu,
            CompileTarget::Gpu(target) => Prices::Gpu(target.known()),
        }
    }
}

impl fmt::Display for CompileTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompileTarget::Cpu => f.write_str("cpu"),
            CompileTarget::Gpu(target) => target.fmt(f),
        }
    }
}

/// What a command runs the model on.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// What runs the model: auto, cpu, cuda, hip, metal; a GPU's architecture may follow (cuda:sm_90)
    #[arg(long, default_value = "auto", value_name = "NAME", value_parser = name)]
    pub target: String,
    /// Number of the GPU, or `emulate` for an emulated one (needs clang)
    #[arg(long, value_name = "N|emulate", value_parser = device)]
    pub device: Option<String>,
}

impl Default for DeviceArgs {
    fn default() -> DeviceArgs {
        DeviceArgs { target: "auto".to_string(), device: None }
    }
}

fn name(text: &str) -> Result<String, String> {
    if text != "auto" {
        CompileTarget::parse(text).map_err(|why| why.replacen("expected ", "expected auto, ", 1))?;
    }
    Ok(text.to_string())
}

fn device(text: &str) -> Result<String, String> {
    if text != "emulate" && text.parse::<usize>().is_err() {
        return Err("expected a number or `emulate`".to_string());
    }
    Ok(text.to_string())
}

impl DeviceArgs {
    /// The target that was asked for; `None` for `auto`.
    pub fn asked(&self) -> Option<CompileTarget> {
        let parsed = CompileTarget::parse(&self.target);
        parsed.ok().filter(|_| self.target != "auto")
    }

    /// Whether an artifact made for `made_for` (`None` for the processor) is what was asked for.
    ///
    /// # Errors
    /// It is for something else.
    pub fn check(&self, made_for: Option<&str>) -> Result<()> {
        let made_for = made_for.unwrap_or("cpu");
        let api = |name: &str| name.split(':').next().unwrap_or_default().to_string();
        let fits = match self.target.as_str() {
            "auto" => true,
            asked if asked.contains(':') => asked == made_for,
            asked => asked == api(made_for),
        };
        if !fits {
            bail!(
                "target: expected an artifact for {}, got one for {made_for}; compile the model again",
                self.target
            );
        }
        if made_for == "cpu" && self.device.is_some() {
            bail!("--device: expected with a GPU target, got an artifact for the processor");
        }
        Ok(())
    }

    /// What a model that is compiled on demand is compiled for, and why.
    ///
    /// # Errors
    /// A GPU in a build that knows none; `--device` without a target.
    pub fn choose(&self) -> Result<(CompileTarget, String)> {
        match self.asked() {
            Some(CompileTarget::Cpu) if self.device.is_some() => {
                bail!("--device: expected with a GPU target, got cpu")
            }
            Some(CompileTarget::Gpu(target)) if !cfg!(feature = "gpu") => {
                bail!("target {target}: this build knows no GPUs; build it with --features gpu")
            }
            Some(target) => Ok((target, "as asked for".to_string())),
            None if self.device.is_some() => {
                bail!("--device: expected a target beside it (--target cuda, hip or metal), got auto")
            }
            None => Ok(found()),
        }
    }
}

#[cfg(not(feature = "gpu"))]
fn found() -> (CompileTarget, String) {
    (CompileTarget::Cpu, "this build knows no GPUs".to_string())
}

/// The first GPU that answers, else the processor.
#[cfg(feature = "gpu")]
fn found() -> (CompileTarget, String) {
    let mut reasons = Vec::new();
    for found in ds4_runtime::device::found() {
        match found.devices {
            Ok(devices) => match devices.first() {
                Some(device) => return (target_of(device), device.to_string()),
                None => reasons.push(format!("{}: no device", found.api)),
            },
            Err(_) => reasons.push(format!("{}: no driver", found.api)),
        }
    }
    (CompileTarget::Cpu, reasons.join(", "))
}

/// The target whose binaries the device takes, the nearest if there are several; else the API's first with such
/// subgroups.
#[cfg(feature = "gpu")]
fn target_of(device: &ds4_runtime::device::DeviceInfo) -> CompileTarget {
    use ds4_runtime::device::runs_on;
    let api = device.api.to_string();
    let mut same = Target::ALL.iter().filter(|t| t.api.to_string() == api && t.subgroup == device.subgroup);
    let near = same.clone().filter(|t| runs_on(t.arch, &device.arch)).max_by_key(|t| t.arch);
    near.or_else(|| same.next()).map_or(CompileTarget::Cpu, |t| CompileTarget::Gpu(*t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back() {
        for text in ["cpu", "cuda:sm_90", "hip:gfx942"] {
            assert_eq!(CompileTarget::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(CompileTarget::parse("hip").unwrap().to_string(), "hip:gfx1151");
        assert!(CompileTarget::parse("vulkan").unwrap_err().starts_with("expected cpu, cuda, hip, metal"));
    }

    #[test]
    fn an_artifact_for_something_else_is_refused() {
        let args = |target: &str| DeviceArgs { target: target.to_string(), device: None };
        assert!(args("auto").check(Some("cuda:sm_90")).is_ok());
        assert!(args("cuda").check(Some("cuda:sm_80")).is_ok());
        let why = args("cuda:sm_90").check(Some("cuda:sm_80")).unwrap_err().to_string();
        assert!(why.contains("expected an artifact for cuda:sm_90, got one for cuda:sm_80"), "{why}");
        assert!(args("cpu").check(Some("hip:gfx942")).is_err());
        assert!(args("metal").check(None).is_err());
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn a_device_gets_the_nearest_target_whose_binaries_it_takes() {
        let target = |api, arch: &str, subgroup| {
            target_of(&ds4_runtime::device::DeviceInfo {
                api,
                number: 0,
                name: String::new(),
                arch: arch.to_string(),
                memory_bytes: 0,
                subgroup,
                threads_max: 1024,
                shared_bytes_max: 65536,
                allocation_bytes_max: 0,
                is_emulated: false,
            })
            .to_string()
        };
        use ds4_runtime::device::Api::{Cuda, Hip, Metal};
        assert_eq!(target(Cuda, "sm_121", 32), "cuda:sm_121a");
        assert_eq!(target(Cuda, "sm_89", 32), "cuda:sm_89");
        assert_eq!(target(Cuda, "sm_103", 32), "cuda:sm_100");
        assert_eq!(target(Hip, "gfx942", 64), "hip:gfx942");
        assert_eq!(target(Hip, "gfx1036", 32), "hip:gfx1151");
        assert_eq!(target(Metal, "metal", 32), "metal:apple7");
    }
}

//! `--emit`: a form of the model on its way to an artifact, as text.
use crate::target::CompileTarget;
use crate::{compile, launches};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use ds4_ir::Module;
use ds4_passes::{Machine, Phase, dot, optimize, planned, report};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where to stop and print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Emit {
    /// The module as the builders wrote it
    Model,
    /// One node per value
    Canonical,
    /// Fused ops chosen
    Fused,
    /// Siblings grouped into launches
    Packed,
    /// Launches ordered
    Scheduled,
    /// With the address of every value
    Planned,
    /// The launches as a graph for Graphviz
    Dot,
    /// Launches, bytes and, with --machine, predicted speed
    Report,
    /// The report as JSON
    ReportJson,
    /// The text of every kernel of a GPU, and what launches it, as files in the folder that -o names
    Kernels,
}

/// Flags of what is printed.
#[derive(Args, Debug)]
pub struct EmitArgs {
    /// Print a form of the model instead of writing an artifact
    #[arg(long, value_enum)]
    pub emit: Option<Emit>,
    /// What to compile for: cpu, cuda[:sm_90], hip[:gfx1151], metal
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = CompileTarget::parse)]
    pub target: CompileTarget,
    /// A machine profile that `ds4c probe` wrote, for predictions
    #[arg(long, value_name = "FILE", requires = "emit")]
    machine: Option<PathBuf>,
    /// Tell on standard error how long each pass took
    #[arg(long, requires = "emit")]
    time_passes: bool,
}

impl EmitArgs {
    /// The text that is asked for.
    ///
    /// # Errors
    /// A module that has no plan, a machine profile that cannot be read.
    pub fn text(&self, module: &Module, emit: Emit) -> Result<String> {
        let machine = self.machine()?;
        let wanted = match emit {
            Emit::Model => Some(Phase::Model),
            Emit::Canonical => Some(Phase::Canonical),
            Emit::Fused => Some(Phase::Fused),
            Emit::Packed => Some(Phase::Packed),
            Emit::Scheduled => Some(Phase::Scheduled),
            _ => None,
        };
        let (mut found, mut last) = (None, Instant::now());
        let prices = self.target.prices();
        let (module, plan) = optimize(module, prices, &mut |phase, now| {
            if self.time_passes {
                eprintln!("{phase:?}: {:.2} ms", last.elapsed().as_secs_f64() * 1e3);
            }
            if wanted == Some(phase) {
                found = Some(now.to_string());
            }
            last = Instant::now();
        })?;
        if let Some(text) = found {
            return Ok(text);
        }
        Ok(match emit {
            Emit::Planned => planned(&module, &plan),
            Emit::Dot => dot(&module),
            Emit::ReportJson => report::report(&module, &plan, prices, machine.as_ref()).to_json() + "\n",
            _ => report::report(&module, &plan, prices, machine.as_ref()).to_string(),
        })
    }

    /// Writes the texts of the kernels of `module` into `folder`, and says how many there are.
    ///
    /// # Errors
    /// A target that has no texts, or that this build does not know; a file that cannot be written.
    pub fn kernels(&self, module: &Module, folder: Option<&Path>) -> Result<()> {
        let CompileTarget::Gpu(target) = self.target else {
            bail!("--emit kernels: expected --target cuda, hip or metal, got {}", self.target);
        };
        let folder = folder.context("--emit kernels: expected a folder to write to (-o DIR), got none")?;
        let (module, plan) = optimize(module, self.target.prices(), &mut |_, _| ())?;
        let kernels = compile::kernels(&module, &plan, self.target)?.expect("a GPU has kernels");
        let count = launches::write(folder, &module, &plan, &kernels, target.api)?;
        eprintln!("{}: {count} texts for {target}", folder.display());
        Ok(())
    }

    fn machine(&self) -> Result<Option<Machine>> {
        let Some(path) = &self.machine else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let machine = Machine::from_json(&text).map_err(|why| anyhow!("{}: {why}", path.display()))?;
        let target = self.target.prices().to_string();
        if !machine.devices.contains_key(&target) {
            bail!("{}: expected rates of {target}, got none", path.display());
        }
        Ok(Some(machine))
    }
}

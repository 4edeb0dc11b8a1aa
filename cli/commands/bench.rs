//! `ds4 bench`: how fast a model runs here.
use crate::args::Numerics;
use crate::bench::chart::chart;
use crate::bench::measure::{Wanted, fitting, measure};
use crate::open::{Wish, context_max, machine_file, open};
use crate::target::DeviceArgs;
use crate::{interrupt, progress};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ds4_passes::Machine;
use ds4_runtime::reset_peak;
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Prompts in tokens unless others are asked for.
const PREFILL: [usize; 3] = [32, 128, 512];
/// Contexts in tokens unless others are asked for.
const CONTEXTS: [u32; 3] = [64, 4096, 65_536];

/// Measure tokens per second, and what the machine's memory allows.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// A Hugging Face folder, a .gguf, an artifact, or `demo`; the bundled demo if absent
    model: Option<PathBuf>,
    /// Numeric class; `fast` unless an artifact says otherwise
    #[arg(long, value_enum)]
    numerics: Option<Numerics>,
    /// Lengths of prompts in tokens; 0 for none [default: 32,128,512 as far as they fit]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    prefill: Option<Vec<usize>>,
    /// Tokens to decode at each context; 0 for none
    #[arg(long, default_value_t = 32, value_name = "N")]
    decode: usize,
    /// Contexts to decode at, in tokens [default: 64,4096,65536 as far as they fit]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    ctx: Option<Vec<u32>>,
    /// Compute the states of a context; without it they are filled with random rows of their type
    #[arg(long)]
    prefilled: bool,
    /// Threads; one per core if 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// A machine profile for predictions; the one of `ds4c probe --save` if absent
    #[arg(long, value_name = "FILE")]
    machine: Option<PathBuf>,
    /// Also tell where the time of a token goes: waves of launches that run at once, by their ops
    #[arg(long)]
    waves: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw tokens per second over context
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A model that cannot be run, a length that it does not hold, a file that cannot be read or written,
/// Ctrl-C.
pub fn bench(args: &BenchArgs) -> Result<()> {
    let cancel = interrupt::flag();
    let mut wanted = args.wanted();
    let max = context_max(args.model.as_deref())?;
    fitting(&mut wanted, max, (args.prefill.is_some(), args.ctx.is_some()))?;
    args.tell_left_out(&wanted, max);
    let longest = wanted.contexts.iter().map(|n| *n as usize + wanted.decoded());
    let longest = longest.chain(wanted.prefill.iter().copied()).max().unwrap_or(1);
    let ctx = u32::try_from(longest).expect("lengths fit the context").next_multiple_of(128).min(max);
    let wish = Wish { class: args.numerics.map(Into::into), ctx: Some(ctx), device: args.device.clone() };
    let opened = open(args.model.as_deref(), &wish)?;
    reset_peak();
    let engine = opened.engine(args.threads)?;
    if args.waves && engine.threads() == 0 {
        bail!("--waves: expected a model for the processor, got one for a device");
    }
    // `ds4c probe` measures the processor.
    let machine = if engine.threads() > 0 { args.machine(engine.threads())? } else { None };
    let spinner = progress::spinner("measuring");
    let found = measure(&engine, &wanted, machine.as_ref(), cancel, &mut |what| spinner.set_message(what));
    spinner.finish_and_clear();
    let found = found?;
    if let Some(path) = &args.svg {
        std::fs::write(path, chart(&found)).with_context(|| path.display().to_string())?;
    }
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", found.to_json())?);
    }
    Ok(write!(out, "{found}")?)
}

impl BenchArgs {
    fn wanted(&self) -> Wanted {
        let prefill = self.prefill.clone().unwrap_or(PREFILL.to_vec());
        Wanted {
            prefill: prefill.into_iter().filter(|n| *n > 0).collect(),
            decode: self.decode,
            contexts: if self.decode == 0 { vec![] } else { self.ctx.clone().unwrap_or(CONTEXTS.to_vec()) },
            prefilled: self.prefilled,
            waves: self.waves,
        }
    }

    /// Says which of the lengths that were not asked for the model does not hold.
    fn tell_left_out(&self, kept: &Wanted, max: u32) {
        let all = self.wanted();
        let gone = |all: usize, kept: usize, what: &str| {
            if kept < all {
                eprintln!("note: {} of {all} {what} left out: the model holds {max} tokens", all - kept);
            }
        };
        gone(all.prefill.len(), kept.prefill.len(), "prompts");
        gone(all.contexts.len(), kept.contexts.len(), "contexts");
    }

    /// The profile to predict by; without one, or with one of other threads, a note says so.
    fn machine(&self, threads: usize) -> Result<Option<Machine>> {
        let saved = machine_file()?;
        let path = match &self.machine {
            Some(path) => path.clone(),
            None if saved.exists() => saved,
            None => {
                eprintln!("note: no prediction without a machine profile: ds4c probe --save makes one");
                return Ok(None);
            }
        };
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let machine = Machine::from_json(&text).map_err(|why| anyhow!("{}: {why}", path.display()))?;
        let measured = machine.devices.get("cpu").map(|d| d.threads.unwrap_or(machine.host.threads) as usize);
        if measured != Some(threads) {
            let got = measured.map_or("no processor".to_string(), |n| format!("{n} threads"));
            eprintln!("note: no prediction: {} is of {got}, this run has {threads}", path.display());
            return Ok(None);
        }
        Ok(Some(machine))
    }
}

//! Flags that several commands share, and what they mean.
use crate::open::{Opened, Wish, open};
use crate::target::DeviceArgs;
use anyhow::Result;
use clap::{Args, ValueEnum};
use ds4_ir::Class;
use ds4_models::chat::{Effort, Mode};
use ds4_runtime::{Sampling, layout};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Numeric classes as a flag spells them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Numerics {
    /// Nothing is rounded: the mathematical model
    Exact,
    /// The publisher's simulated quantisation
    Official,
    /// Packed states and the inputs that fast kernels read
    Fast,
}

impl From<Numerics> for Class {
    fn from(n: Numerics) -> Class {
        match n {
            Numerics::Exact => Class::Exact,
            Numerics::Official => Class::Official,
            Numerics::Fast => Class::Fast,
        }
    }
}

/// Layouts of weights as a flag spells them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LayoutFlag {
    /// As published: no second copy on disk
    Stored,
    /// Packed for this machine's kernels, none more than 7 % larger than published
    Packed,
    /// Packed for speed, whatever size it takes
    Expanded,
    /// The fastest that fits memory and disk
    Auto,
}

impl From<LayoutFlag> for layout::Choice {
    fn from(flag: LayoutFlag) -> layout::Choice {
        match flag {
            LayoutFlag::Stored => layout::Choice::Stored,
            LayoutFlag::Packed => layout::Choice::Packed,
            LayoutFlag::Expanded => layout::Choice::Expanded,
            LayoutFlag::Auto => layout::Choice::Auto,
        }
    }
}

/// The model and how it is compiled if need be.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// A Hugging Face folder, a .gguf, an artifact, or `demo`; the bundled demo if absent
    pub model: Option<PathBuf>,
    /// How it is compiled if need be
    #[command(flatten)]
    pub compile: CompileArgs,
    /// What runs it
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Threads; one per core if 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
}

/// What decides how a model is compiled.
#[derive(Args, Clone, Debug)]
pub struct CompileArgs {
    /// Numeric class; `fast` unless an artifact says otherwise
    #[arg(long, value_enum)]
    pub numerics: Option<Numerics>,
    /// Longest context in tokens; the model's, at most 32768, if absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ctx: Option<u32>,
}

impl CompileArgs {
    /// The wish that the flags express.
    pub fn wish(&self) -> Wish {
        Wish { class: self.numerics.map(Class::from), ctx: self.ctx, ..Wish::default() }
    }
}

impl ModelArgs {
    /// The wish that the flags express.
    pub fn wish(&self) -> Wish {
        Wish { device: self.device.clone(), ..self.compile.wish() }
    }

    /// Opens the model.
    ///
    /// # Errors
    /// See [`open`].
    pub fn open(&self) -> Result<Opened> {
        open(self.model.as_deref(), &self.wish())
    }
}

/// How tokens are chosen.
#[derive(Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Temperature; 0 takes the most probable token [default: 1, for the demo 0.6]
    #[arg(long, value_name = "T")]
    pub temp: Option<f32>,
    /// Only the K most probable tokens; 0 for all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Only the most probable tokens that make up P
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f32,
    /// Only tokens at least P times as probable as the most probable
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    pub min_p: f32,
    /// Start of the random sequence; from the clock if absent
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// The settings for a model.
    pub fn sampling(&self, is_demo: bool) -> Sampling {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        Sampling {
            temperature: self.temp.unwrap_or(if is_demo { 0.6 } else { 1.0 }),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed.unwrap_or_else(clock),
        }
    }
}

/// Whether the model thinks before it answers.
#[derive(Args, Clone, Copy, Debug)]
pub struct ThinkArgs {
    /// Reason before answering
    #[arg(long, conflicts_with_all = ["think_max", "nothink"])]
    pub think: bool,
    /// Reason as hard as the context allows
    #[arg(long, conflicts_with = "nothink")]
    pub think_max: bool,
    /// Answer at once (default)
    #[arg(long)]
    pub nothink: bool,
}

impl ThinkArgs {
    /// The mode at a context of `ctx` tokens.
    pub fn mode(self, ctx: u32) -> Mode {
        match (self.think, self.think_max) {
            (true, _) => Mode::Think(Effort::Low),
            (_, true) => Mode::think_max(ctx as usize),
            _ => Mode::Chat,
        }
    }
}

//! `ds4 logits`: raw logits for given token ids.
use crate::args::ModelArgs;
use crate::open::{Wish, open};
use crate::timeline::CHUNK;
use crate::{ids, interrupt, output, progress};
use anyhow::{Result, bail};
use clap::Args;
use ds4_ir::{Bind, Buffer, Interp};
use ds4_runtime::{Engine, Error, Want};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Write the logits after each of the given tokens.
#[derive(Args, Debug)]
pub struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A JSON array of token ids
    #[arg(long, value_name = "IDS.json")]
    tokens: PathBuf,
    /// Tokens per step
    #[arg(long, default_value_t = CHUNK, value_name = "N", value_parser = chunk)]
    chunk: usize,
    /// Run the interpreter in double precision
    #[arg(long)]
    f64: bool,
    /// A safetensors file with one F32 tensor `logits [T, V]`
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,
}

fn chunk(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a whole number above 0".to_string())
}

/// Runs the command.
///
/// # Errors
/// Ids or a model that cannot be used, a file that cannot be written, Ctrl-C.
pub fn logits(args: &LogitsArgs) -> Result<()> {
    let cancel = interrupt::flag();
    let ids = ids::read(&args.tokens)?;
    if ids.is_empty() {
        bail!("{}: expected at least one token id, got none", args.tokens.display());
    }
    let opened = open(args.model.model.as_deref(), &wish(args, ids.len()))?;
    let engine = opened.engine(args.model.threads)?;
    let logits = if args.f64 {
        interpreted(&engine, &ids, args.chunk, cancel)?
    } else {
        let bar = progress::bar("tokens", ids.len() as u64);
        let mut session = engine.session()?;
        session.advance(&ids, Want::All, args.chunk, cancel, &mut |done| bar.set_position(done as u64))?
    };
    output::write(&args.output, "logits", &[ids.len(), engine.module().vocab as usize], &logits)?;
    Ok(())
}

/// The flags, with a context that holds all ids unless one is given.
fn wish(args: &LogitsArgs, n: usize) -> Wish {
    let wish = args.model.wish();
    let is_artifact = args.model.model.as_deref().is_some_and(ds4_runtime::Artifact::is_artifact);
    let needed = u32::try_from(n).ok().filter(|n| *n > 4096 && wish.ctx.is_none() && !is_artifact);
    Wish { ctx: needed.or(wish.ctx), ..wish }
}

/// The logits of every position by the interpreter in double precision, rounded at the end.
fn interpreted(engine: &Engine, ids: &[u32], chunk: usize, cancel: &AtomicBool) -> Result<Vec<f32>> {
    let module = engine.module();
    if let Some(id) = ids.iter().find(|id| **id >= module.vocab) {
        return Err(Error::Token { id: *id, vocab: module.vocab }.into());
    }
    if ids.len() > module.ctx as usize {
        return Err(Error::Context { ctx: module.ctx, position: 0, more: ids.len() }.into());
    }
    let graph = module.graph("main").expect("an engine has it");
    let mut interp = Interp::<f64>::new(module, engine.weights());
    let mut logits = Vec::new();
    let bar = progress::bar("tokens", ids.len() as u64);
    for (i, part) in ids.chunks(chunk).enumerate() {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled.into());
        }
        let (start, n) = (i * chunk, part.len());
        let ints = |x: &mut dyn Iterator<Item = usize>| Buffer::Int(x.map(|n| n as i32).collect());
        let inputs = vec![
            ints(&mut part.iter().map(|id| *id as usize)),
            ints(&mut (start..start + n)),
            ints(&mut (0..n)),
        ];
        let values = interp.step(graph, inputs, &Bind { start, tokens: n, wanted: n });
        logits.extend(values[graph.results[0]].buffer.real().iter().map(|x| *x as f32));
        bar.set_position((start + n) as u64);
    }
    Ok(logits)
}

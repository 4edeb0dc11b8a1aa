//! `ds4 run`: one prompt, one answer.
use crate::args::{ModelArgs, SamplingArgs, ThinkArgs};
use crate::generate::{Generation, Stop};
use crate::keep::{Keeper, KvArgs};
use crate::open::Opened;
use crate::timeline::Timeline;
use crate::{demo, interrupt};
use anyhow::{Context, Result, bail};
use clap::Args;
use ds4_models::chat::{AnswerReader, Conversation, Event, Options};
use ds4_models::tokenizer::Tokenizer;
use ds4_runtime::Sampler;
use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};
use std::path::PathBuf;

/// Tokens after the built-in prompt of the demo.
const DEMO_TOKENS: usize = 160;
/// Longest prompt in bytes: more than the longest context can hold.
const PROMPT_MAX: u64 = 64 << 20;

/// Generate an answer to one prompt, or go on with a text.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The prompt
    #[arg(short, long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file that holds the prompt
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Most tokens to generate; as many as the context holds if absent
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Go on with the text as it is, no roles
    #[arg(long, conflicts_with_all = ["system", "think", "think_max", "nothink"])]
    raw: bool,
    /// Instructions for the model
    #[arg(long, visible_alias = "sys", value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    think: ThinkArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    kv: KvArgs,
}

/// What goes in, and whether as plain text.
struct Input {
    text: String,
    raw: bool,
    n: usize,
}

/// Runs the command.
///
/// # Errors
/// A model, prompt or setting that cannot be used.
pub fn run(args: &RunArgs) -> Result<()> {
    let cancel = interrupt::flag();
    let opened = args.model.open()?;
    let input = input(args, &opened)?;
    let tokenizer = opened.tokenizer()?;
    let mut sampler = Sampler::new(args.sampling.sampling(opened.is_demo))?;
    let options = Options { mode: args.think.mode(opened.artifact.module.ctx), ..Options::default() };
    let mut conversation = Conversation::new(options);
    conversation.set_system(args.system.as_deref().unwrap_or(""));
    let prompt = if input.raw {
        let mut ids = vec![opened.artifact.meta.bos];
        ids.extend(tokenizer.encode_text(&input.text));
        ids
    } else {
        conversation.ask(&input.text);
        tokenizer.encode_prompt(&conversation.prompt()?)?
    };

    let session = opened.engine(args.model.threads)?.session()?;
    let mut timeline = Timeline::new(session, Keeper::open(&args.kv, true)?);
    let what = Generation { prompt: &prompt, n: input.n, eos: &opened.artifact.meta.eos, cancel };
    let mut printer = Printer::new(&tokenizer, (!input.raw).then(|| conversation.reader(&tokenizer)));
    if input.raw && opened.is_demo {
        printer.show(&[Event::Content(input.text.clone())])?;
    }
    let (stop, speed) = timeline.answer(&what, &mut sampler, &mut |id| printer.token(id, &what))?;
    printer.finish()?;
    match stop {
        Stop::Context => eprintln!("stopped: the context of {} tokens is full", timeline.tokens().len()),
        Stop::Cancelled => eprintln!("stopped"),
        Stop::Eos | Stop::Length => {}
    }
    eprintln!("{speed}");
    timeline.keeper.map_or(Ok(()), Keeper::finish)
}

fn input(args: &RunArgs, opened: &Opened) -> Result<Input> {
    let n = args.n.unwrap_or(usize::MAX);
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => text.clone(),
        (_, Some(path)) => {
            let place = || path.display().to_string();
            let length = std::fs::metadata(path).with_context(place)?.len();
            if length > PROMPT_MAX {
                bail!("{}: expected at most {PROMPT_MAX} bytes, got {length}", place());
            }
            std::fs::read_to_string(path).with_context(place)?
        }
        _ if !stdin().is_terminal() => {
            let mut text = String::new();
            stdin().take(PROMPT_MAX).read_to_string(&mut text).context("standard input")?;
            text
        }
        _ if opened.is_demo => String::new(),
        _ => bail!("no prompt: give -p TEXT, --prompt-file FILE, or text on standard input"),
    };
    // Nothing to say to the demo: it shows what it can do.
    if text.is_empty() && opened.is_demo && args.prompt.is_none() && args.prompt_file.is_none() {
        let text = demo::PROMPT.to_string();
        return Ok(Input { text, raw: true, n: args.n.unwrap_or(DEMO_TOKENS) });
    }
    Ok(Input { text, raw: args.raw, n })
}

/// Shows an answer as it comes, reasoning dimmed on a terminal.
pub(crate) struct Printer<'a> {
    /// Absent for plain text.
    reader: Option<AnswerReader<'a>>,
    decoder: ds4_models::tokenizer::Decoder<'a>,
    dim: bool,
    dimmed: bool,
    at_line_start: bool,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, reader: Option<AnswerReader<'a>>) -> Printer<'a> {
        let (decoder, dim) = (tokenizer.decoder(), stdout().is_terminal());
        Printer { reader, decoder, dim, dimmed: false, at_line_start: true }
    }

    /// Takes the next token and shows what is certain by now.
    pub(crate) fn token(&mut self, id: u32, what: &Generation<'_>) -> Result<bool> {
        let events = match &mut self.reader {
            Some(reader) => reader.push(id),
            None if what.eos.contains(&id) => vec![],
            None => vec![Event::Content(self.decoder.push(id))],
        };
        self.show(&events)?;
        Ok(true)
    }

    pub(crate) fn show(&mut self, events: &[Event]) -> Result<()> {
        let mut out = stdout().lock();
        for event in events {
            let (text, dim) = match event {
                Event::Reasoning(text) => (text.clone(), true),
                Event::Content(text) | Event::Stray(text) => (text.clone(), false),
                Event::ToolCallStart { name } => (format!("\n[call of {name}: "), true),
                Event::ToolCallArguments(text) => (text.clone(), true),
                Event::ToolCallEnd => ("]\n".to_string(), true),
                Event::ToolCallBroken => (" broken off]\n".to_string(), true),
            };
            if text.is_empty() {
                continue;
            }
            if dim != self.dimmed {
                // What is thought and what is said are paragraphs of their own.
                let shade = if self.dim { ["\x1b[0m\n", "\x1b[2m"] } else { ["\n", ""] };
                write!(out, "{}", shade[usize::from(dim)])?;
                self.dimmed = dim;
            }
            write!(out, "{text}")?;
            self.at_line_start = text.ends_with('\n');
        }
        out.flush()?;
        Ok(())
    }

    /// Ends the answer with a line break; the events that were still uncertain come first.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let rest = match self.reader.take() {
            Some(reader) => reader.finish().0,
            None => vec![Event::Content(self.decoder.finish())],
        };
        self.show(&rest)?;
        let mut out = stdout().lock();
        if self.dim && self.dimmed {
            write!(out, "\x1b[0m")?;
        }
        if !self.at_line_start {
            writeln!(out)?;
        }
        out.flush()?;
        stderr().flush()?;
        Ok(())
    }
}

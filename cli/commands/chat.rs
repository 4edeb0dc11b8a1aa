//! `ds4 chat`: a conversation at the terminal.
use super::run::Printer;
use super::told;
use crate::args::{ModelArgs, SamplingArgs, ThinkArgs};
use crate::generate::{Generation, Stop};
use crate::interrupt;
use crate::keep::{Keeper, KvArgs, warn};
use crate::open::Opened;
use crate::timeline::Timeline;
use anyhow::{Context, Result, bail};
use clap::Args;
use ds4_models::chat::{
    Answer, Content, Control, Conversation, Effort, Mode, Options, Role, Segment, to_text,
};
use ds4_models::tokenizer::Tokenizer;
use ds4_runtime::Sampler;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{IsTerminal, stdin};

const HELP: &str = "\
/help          this list
/new           a new conversation with the same instructions
/system TEXT   instructions for the model; without TEXT none
/think         reason before answering
/nothink       answer at once
/read FILE     send the content of a file
/save          have this conversation on the disk now
/list          kept conversations
/switch NAME   go on with a kept conversation
/fork [NAME]   go on with a copy of this one
/rewind [N]    take back the last N questions and answers, 1 if absent
/quit          leave; so does Ctrl-D
Ctrl-C stops an answer.";
/// Longest file that `/read` sends, in bytes.
const READ_MAX: u64 = 16 << 20;

/// Characters of its first question that tell conversations apart.
const ABOUT: usize = 48;

/// Talk to a model.
#[derive(Args, Debug)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
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

/// What a line asks for.
enum Line {
    Say(String),
    Nothing,
    Quit,
}

/// The state of the command.
struct Chat<'a> {
    opened: &'a Opened,
    tokenizer: &'a Tokenizer,
    conversation: Conversation,
    timeline: Timeline,
    sampler: Sampler,
}

/// Runs the command.
///
/// # Errors
/// A model that cannot be opened, a terminal that cannot be read, a store that cannot be used.
pub fn chat(args: &ChatArgs) -> Result<()> {
    let opened = args.model.open()?;
    let tokenizer = opened.tokenizer()?;
    let options = Options { mode: args.think.mode(opened.artifact.module.ctx), ..Options::default() };
    let mut conversation = Conversation::new(options);
    conversation.set_system(args.system.as_deref().unwrap_or(""));
    let session = opened.engine(args.model.threads)?.session()?;
    let timeline = Timeline::new(session, Keeper::open(&args.kv, false)?);
    let sampler = Sampler::new(args.sampling.sampling(opened.is_demo))?;
    let mut chat = Chat { opened: &opened, tokenizer: &tokenizer, conversation, timeline, sampler };
    interrupt::flag();
    let mut editor = DefaultEditor::new().context("terminal")?;
    if stdin().is_terminal() {
        eprintln!("{}: /help lists the commands", opened.artifact.meta.model);
    }
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("terminal"),
        };
        // A line that cannot be remembered is a line all the same.
        let _ = editor.add_history_entry(line.trim());
        let done = chat.command(line.trim()).and_then(|line| match line {
            Line::Say(text) => chat.answer(&text).map(|()| false),
            Line::Nothing => Ok(false),
            Line::Quit => Ok(true),
        });
        match done {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => eprintln!("error: {}", told(&error)),
        }
    }
    chat.timeline.keeper.map_or(Ok(()), Keeper::finish)
}

impl Chat<'_> {
    fn command(&mut self, line: &str) -> Result<Line> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "" => {}
            "/help" => eprintln!("{HELP}"),
            "/quit" | "/exit" => return Ok(Line::Quit),
            "/new" => {
                self.conversation.clear();
                self.timeline.keeper.iter_mut().for_each(Keeper::forget);
            }
            "/system" => self.conversation.set_system(rest),
            "/think" => self.conversation.options.mode = Mode::Think(Effort::Low),
            "/nothink" => self.conversation.options.mode = Mode::Chat,
            "/read" => return Ok(Line::Say(read(rest)?)),
            "/save" => self.save()?,
            "/list" => self.list()?,
            "/switch" if rest.is_empty() => {
                bail!("/switch: expected the name of a conversation; /list shows them")
            }
            "/switch" => self.switch(rest)?,
            "/fork" => self.fork(rest)?,
            "/rewind" => self.rewind(rest)?,
            _ if command.starts_with('/') => bail!("{command}: no such command; /help lists them"),
            _ => return Ok(Line::Say(line.to_string())),
        }
        Ok(Line::Nothing)
    }

    /// Says `text` and shows the answer. What fails leaves the conversation as it was.
    fn answer(&mut self, text: &str) -> Result<()> {
        let before = self.conversation.messages.len();
        self.conversation.ask(text);
        let answered = self.generate();
        if answered.is_err() {
            self.conversation.messages.truncate(before);
        }
        answered
    }

    fn generate(&mut self) -> Result<()> {
        let prompt = self.prompt()?;
        interrupt::take();
        let (eos, cancel) = (&self.opened.artifact.meta.eos, interrupt::flag());
        let what = Generation { prompt: &prompt, n: usize::MAX, eos, cancel };
        let mut reader = self.conversation.reader(self.tokenizer);
        let mut printer = Printer::new(self.tokenizer, Some(self.conversation.reader(self.tokenizer)));
        let mut answer = Answer::default();
        let result = self.timeline.answer(&what, &mut self.sampler, &mut |id| {
            answer.extend(reader.push(id));
            printer.token(id, &what)
        });
        printer.finish()?;
        let (stop, speed) = result?;
        answer.extend(reader.finish().0);
        self.conversation.answer(answer);
        match stop {
            Stop::Context => eprintln!("stopped: the context is full; /new begins a new conversation"),
            Stop::Cancelled => eprintln!("stopped"),
            Stop::Eos | Stop::Length => {}
        }
        eprintln!("{speed}");
        interrupt::take();
        Ok(())
    }

    /// The ids of the prompt. Where it goes on from what the session holds, that part is taken as it
    /// is: a text need not be cut again in the way in which the model wrote it.
    fn prompt(&self) -> Result<Vec<u32>> {
        let prompt = self.conversation.prompt()?;
        let held = self.timeline.tokens();
        let text = self.spelled(held);
        let ends = prompt.iter().enumerate().filter(|(_, s)| **s == Segment::Control(Control::Eos));
        for (i, _) in ends {
            if to_text(&prompt[..=i]) == text {
                let rest = self.tokenizer.encode_prompt(&prompt[i + 1..])?;
                return Ok([held, &rest].concat());
            }
        }
        Ok(self.tokenizer.encode_prompt(&prompt)?)
    }

    /// Tokens as text, control tokens by their names.
    fn spelled(&self, ids: &[u32]) -> String {
        let is_control = |id: u32| self.tokenizer.control_name(id);
        let runs = ids.chunk_by(|a, b| is_control(*a).is_none() && is_control(*b).is_none());
        let spell = |run: &[u32]| match is_control(run[0]) {
            Some(name) => name.to_string(),
            None => self.tokenizer.decode(run),
        };
        runs.map(spell).collect()
    }

    fn keeper(&mut self) -> Result<&mut Keeper> {
        self.timeline.keeper.as_mut().context("nothing is kept: --no-kv was given")
    }

    fn save(&mut self) -> Result<()> {
        // What is asked for is never skipped because the queue is full.
        self.keeper()?.settle()?;
        self.timeline.save();
        let (layout, tokens) = (self.timeline.session().layout(), self.timeline.tokens().to_vec());
        let keeper = self.keeper()?;
        keeper.settle()?;
        let Some(name) = keeper.name() else {
            eprintln!("nothing has been said yet");
            return Ok(());
        };
        let stored = keeper.store.find(&layout, &tokens);
        eprintln!("kept as {name}: {} tokens, states of {stored}", tokens.len());
        Ok(())
    }

    /// One line for each kept conversation, the oldest first, with its first question.
    fn list(&mut self) -> Result<()> {
        let (root, options) = (self.timeline.session().layout().root(), self.conversation.options);
        let tokenizer = self.tokenizer;
        let keeper = self.keeper()?;
        let own = keeper.name().unwrap_or_default().to_string();
        let mut lines = Vec::new();
        for name in keeper.store.session_names()? {
            let mark = if name == own { "*" } else { " " };
            let (made, about) = match keeper.store.session(&name) {
                Ok(session) if session.root != root => (session.created, "of another model or class".into()),
                Ok(session) => (session.created, about(tokenizer, &session.tokens, options)),
                // One that cannot be read hides none of the others.
                Err(error) => (0, format!("damaged: {error}")),
            };
            lines.push((made, format!("{mark} {name}  {about}")));
        }
        if lines.is_empty() {
            eprintln!("no conversation is kept yet");
        }
        lines.sort();
        lines.iter().for_each(|(_, line)| eprintln!("{line}"));
        Ok(())
    }

    fn switch(&mut self, name: &str) -> Result<()> {
        if self.keeper()?.name() == Some(name) {
            return Ok(());
        }
        let layout = self.timeline.session().layout();
        let keeper = self.keeper()?;
        let (journal, tokens) = keeper.store.open_session(&layout, name)?;
        warn(&keeper.store);
        self.conversation = read_back(self.tokenizer, &tokens, self.conversation.options)?;
        self.keeper()?.switch(journal);
        self.timeline.bring_back(&tokens);
        let n = self.conversation.messages.iter().filter(|m| m.role == Role::User).count();
        eprintln!("{name}: {}, {} tokens", questions(n), tokens.len());
        Ok(())
    }

    fn fork(&mut self, name: &str) -> Result<()> {
        let layout = self.timeline.session().layout();
        let keeper = self.keeper()?;
        if name.is_empty() {
            keeper.forget();
            eprintln!("what is said now is kept as another conversation");
            return Ok(());
        }
        let tokens = match keeper.name() {
            Some(own) => keeper.store.session(own)?.tokens,
            None => Vec::new(),
        };
        let journal = keeper.store.create_session(&layout, name, &tokens)?;
        keeper.switch(journal);
        eprintln!("goes on as {name}, {} tokens", tokens.len());
        Ok(())
    }

    fn rewind(&mut self, n: &str) -> Result<()> {
        let n: usize = if n.is_empty() { 1 } else { number(n)? };
        let messages = &mut self.conversation.messages;
        let asked: Vec<usize> = (0..messages.len()).filter(|i| messages[*i].role == Role::User).collect();
        if n > asked.len() {
            bail!("/rewind: expected at most {}, got {n}", questions(asked.len()));
        }
        if n > 0 {
            messages.truncate(asked[asked.len() - n]);
        }
        let kept = self.kept()?;
        if let (Some(kept), Some(keeper)) = (kept, &mut self.timeline.keeper) {
            keeper.rewind(kept)?;
        }
        eprintln!("left: {}", questions(asked.len() - n));
        Ok(())
    }

    /// How many of the tokens held stand for the conversation as it is now; `None` if they spell
    /// another one.
    fn kept(&self) -> Result<Option<usize>> {
        if self.conversation.messages.iter().all(|m| m.role == Role::System) {
            return Ok(Some(0));
        }
        let prompt = self.conversation.prompt()?;
        let end = |s: &Segment| *s == Segment::Control(Control::Eos);
        let Some(last) = prompt.iter().rposition(end) else { return Ok(Some(0)) };
        let answers = prompt[..=last].iter().filter(|s| end(s)).count();
        let held = self.timeline.tokens();
        let eos =
            |id: &u32| self.tokenizer.control_name(*id).and_then(Control::from_name) == Some(Control::Eos);
        let place = held.iter().enumerate().filter(|(_, id)| eos(id)).nth(answers - 1);
        let kept = place.map(|(i, _)| i + 1);
        Ok(kept.filter(|kept| self.spelled(&held[..*kept]) == to_text(&prompt[..=last])))
    }
}

/// A conversation from its tokens; none have been said in one that was taken back whole.
fn read_back(tokenizer: &Tokenizer, tokens: &[u32], options: Options) -> Result<Conversation> {
    match tokens {
        [] => Ok(Conversation::new(options)),
        tokens => Ok(Conversation::from_tokens(tokenizer, tokens, options)?),
    }
}

/// How long a conversation is and how it begins.
fn about(tokenizer: &Tokenizer, tokens: &[u32], options: Options) -> String {
    let conversation = read_back(tokenizer, tokens, options).ok();
    let question = conversation.and_then(|c| c.messages.into_iter().find(|m| m.role == Role::User));
    let question = match question.and_then(|m| m.content) {
        Some(Content::Text(text)) => text,
        _ => String::new(),
    };
    let line = question.lines().next().unwrap_or_default();
    let short: String = line.chars().take(ABOUT).collect();
    format!("{} tokens  {short}{}", tokens.len(), if short.len() < question.len() { "..." } else { "" })
}

fn questions(n: usize) -> String {
    if n == 1 { "1 question".to_string() } else { format!("{n} questions") }
}

fn number(text: &str) -> Result<usize> {
    text.parse().ok().with_context(|| format!("/rewind: expected a number, got {text}"))
}

fn read(path: &str) -> Result<String> {
    let length = std::fs::metadata(path).with_context(|| path.to_string())?.len();
    anyhow::ensure!(length <= READ_MAX, "{path}: expected at most {READ_MAX} bytes, got {length}");
    std::fs::read_to_string(path).with_context(|| path.to_string())
}

//! `ds4 chat`: a conversation at the terminal.
use super::run::Printer;
use crate::args::{ModelArgs, SamplingArgs, ThinkArgs};
use crate::generate::{Generation, Stop, generate};
use crate::interrupt;
use crate::open::Opened;
use anyhow::{Context, Result};
use clap::Args;
use ds4_models::chat::{Answer, Conversation, Effort, Mode, Options};
use ds4_models::tokenizer::Tokenizer;
use ds4_runtime::{Sampler, Session};
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
/quit          leave; so does Ctrl-D
Ctrl-C stops an answer.";
/// Longest file that `/read` sends, in bytes.
const READ_MAX: u64 = 16 << 20;

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
}

/// What a line asks for.
enum Line {
    Say(String),
    Nothing,
    Quit,
}

/// The state of the command: the conversation, and how much of it the session holds.
struct Chat<'a> {
    opened: &'a Opened,
    tokenizer: &'a Tokenizer,
    conversation: Conversation,
    session: Session,
    /// Tokens that the session holds.
    held: Vec<u32>,
    sampler: Sampler,
}

/// Runs the command.
///
/// # Errors
/// A model that cannot be opened, a terminal that cannot be read.
pub fn chat(args: &ChatArgs) -> Result<()> {
    let opened = args.model.open()?;
    let tokenizer = opened.tokenizer()?;
    let options = Options { mode: args.think.mode(opened.artifact.module.ctx), ..Options::default() };
    let mut conversation = Conversation::new(options);
    conversation.set_system(args.system.as_deref().unwrap_or(""));
    let session = opened.engine(args.model.threads)?.session()?;
    let sampler = Sampler::new(args.sampling.sampling(opened.is_demo))?;
    let (opened, tokenizer) = (&opened, &tokenizer);
    let mut chat = Chat { opened, tokenizer, conversation, session, held: Vec::new(), sampler };
    interrupt::flag();
    let mut editor = DefaultEditor::new().context("terminal")?;
    if stdin().is_terminal() {
        eprintln!("{}: /help lists the commands", opened.artifact.meta.model);
    }
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("terminal"),
        };
        // A line that cannot be remembered is a line all the same.
        let _ = editor.add_history_entry(line.trim());
        match chat.command(line.trim()) {
            Ok(Line::Quit) => return Ok(()),
            Ok(Line::Nothing) => {}
            Ok(Line::Say(text)) => {
                if let Err(error) = chat.answer(&text) {
                    eprintln!("error: {error:#}");
                }
            }
            Err(error) => eprintln!("error: {error:#}"),
        }
    }
}

impl Chat<'_> {
    fn command(&mut self, line: &str) -> Result<Line> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "" => {}
            "/help" => eprintln!("{HELP}"),
            "/quit" | "/exit" => return Ok(Line::Quit),
            "/new" => self.conversation.clear(),
            "/system" => self.conversation.set_system(rest.trim()),
            "/think" => self.conversation.options.mode = Mode::Think(Effort::Low),
            "/nothink" => self.conversation.options.mode = Mode::Chat,
            "/read" => return Ok(Line::Say(read(rest.trim())?)),
            _ if command.starts_with('/') => anyhow::bail!("{command}: no such command; /help lists them"),
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
        let prompt = self.tokenizer.encode_prompt(&self.conversation.prompt()?)?;
        let fresh = self.reuse(&prompt)?;
        interrupt::take();
        let cancel = interrupt::flag();
        let what = Generation {
            prompt: &prompt[fresh..],
            n: usize::MAX,
            eos: &self.opened.artifact.meta.eos,
            cancel,
        };
        let mut reader = self.conversation.reader(self.tokenizer);
        let mut printer = Printer::new(self.tokenizer, Some(self.conversation.reader(self.tokenizer)));
        let (mut answer, mut tokens) = (Answer::default(), Vec::new());
        let result = generate(&mut self.session, &what, &mut self.sampler, &mut |id| {
            tokens.push(id);
            answer.extend(reader.push(id));
            printer.token(id, &what)
        });
        printer.finish()?;
        let (stop, speed) = result.inspect_err(|_| self.held.clear())?;
        answer.extend(reader.finish().0);
        self.conversation.answer(answer);
        self.held = [&prompt[..], &tokens].concat();
        // The last token was shown, and perhaps not given to the session.
        self.held.truncate(self.session.position() as usize);
        match stop {
            Stop::Context => eprintln!("stopped: the context is full; /new begins a new conversation"),
            Stop::Cancelled => eprintln!("stopped"),
            Stop::Eos | Stop::Length => {}
        }
        eprintln!("{speed}");
        interrupt::take();
        Ok(())
    }

    /// Brings the session to the longest prefix of `prompt` that it can keep; answers its length,
    /// which is less than the prompt's.
    fn reuse(&mut self, prompt: &[u32]) -> Result<usize> {
        self.held.truncate(self.session.position() as usize);
        let same = self.held.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
        let back = self.session.position() - same as u64;
        if self.session.rewind(back).is_ok() {
            return Ok(same);
        }
        self.session.reset();
        self.held.clear();
        Ok(0)
    }
}

fn read(path: &str) -> Result<String> {
    let length = std::fs::metadata(path).with_context(|| path.to_string())?.len();
    anyhow::ensure!(length <= READ_MAX, "{path}: expected at most {READ_MAX} bytes, got {length}");
    std::fs::read_to_string(path).with_context(|| path.to_string())
}

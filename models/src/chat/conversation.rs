//! A conversation with one person, and the answer to it read from token ids.
use super::error::ChatError;
use super::events::{Answer, Ending, Event};
use super::message::{Message, Role};
use super::mode::Options;
use super::parse::OutputParser;
use super::prompt::Prompt;
use super::protocol::Control;
use super::render::render;
use super::units::{Piece, Source};
use crate::tokenizer::{Decoder, Tokenizer};

/// Messages so far and how to render them.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// Mode and revision of the prompt.
    pub options: Options,
}

impl Conversation {
    /// An empty conversation.
    pub fn new(options: Options) -> Conversation {
        Conversation { messages: Vec::new(), options }
    }

    /// Sets the instructions at the beginning; an empty text removes them.
    pub fn set_system(&mut self, text: &str) {
        if self.messages.first().is_some_and(|message| message.role == Role::System) {
            self.messages.remove(0);
        }
        if !text.is_empty() {
            self.messages.insert(0, Message::new(Role::System, text));
        }
    }

    /// Begins anew with the same instructions.
    pub fn clear(&mut self) {
        let mut is_first = true;
        self.messages.retain(|message| std::mem::take(&mut is_first) && message.role == Role::System);
    }

    /// Adds what the person says.
    pub fn ask(&mut self, text: impl Into<String>) {
        self.messages.push(Message::new(Role::User, text));
    }

    /// Adds what the model answered; its calls get ids by their number in the conversation.
    pub fn answer(&mut self, answer: Answer) {
        let n_calls: usize = self.messages.iter().map(|message| message.tool_calls.len()).sum();
        self.messages.push(answer.into_message(|i| format!("call_{}", n_calls + i)));
    }

    /// The prompt after which the model answers.
    pub fn prompt(&self) -> Result<Prompt, ChatError> {
        render(&self.messages, &self.options)
    }

    /// Reads a conversation back from the tokens of a session: `BOS system? (user assistant)*`, as
    /// [`Conversation::prompt`] and the answers wrote them, without tools.
    ///
    /// # Errors
    /// [`ChatError::Tokens`] where they are anything else.
    pub fn from_tokens(
        tokenizer: &Tokenizer,
        ids: &[u32],
        options: Options,
    ) -> Result<Conversation, ChatError> {
        let mut conversation = Conversation::new(options);
        let control = |id: u32| tokenizer.control_name(id).and_then(Control::from_name);
        let mut rest = ids;
        // Takes the text before the next control token, and that token.
        let mut next = || {
            let n = rest.iter().position(|id| control(*id).is_some()).unwrap_or(rest.len());
            let (text, tail) = rest.split_at(n);
            rest = tail.get(1..).unwrap_or_default();
            (tokenizer.decode(text), tail.first().and_then(|id| control(*id)))
        };
        let unexpected = |what: &'static str| Err(ChatError::Tokens { expected: what });
        let (_, Some(Control::Bos)) = next() else { return unexpected("BOS first") };
        let (system, mut mark) = next();
        conversation.set_system(&system);
        while mark.is_some() {
            let Some(Control::User) = mark else { return unexpected("a user's turn") };
            let (question, Some(Control::Assistant)) = next() else { return unexpected("an answer") };
            conversation.ask(question);
            let mut answer = Answer::default();
            match next().1 {
                Some(Control::ThinkStart) => {
                    let (reasoning, end) = next();
                    answer.reasoning = reasoning;
                    if end.is_none() {
                        conversation.answer(answer);
                        break;
                    }
                }
                Some(Control::ThinkEnd) => {}
                // The answer had not begun.
                None => break,
                Some(_) => return unexpected("an answer's opening"),
            }
            let (content, end) = next();
            answer.content = content;
            conversation.answer(answer);
            mark = match end {
                Some(Control::Eos) => next().1,
                other => other,
            };
        }
        Ok(conversation)
    }

    /// A reader for the answer to `prompt`.
    pub fn reader<'a>(&self, tokenizer: &'a Tokenizer) -> AnswerReader<'a> {
        AnswerReader {
            tokenizer,
            decoder: tokenizer.decoder(),
            parser: OutputParser::new(self.options.mode, Source::Tokens),
        }
    }
}

/// Reads an answer id by id. Control tokens are told from text that spells them.
#[derive(Clone, Debug)]
pub struct AnswerReader<'a> {
    tokenizer: &'a Tokenizer,
    decoder: Decoder<'a>,
    parser: OutputParser,
}

impl AnswerReader<'_> {
    /// Takes the next id and returns what is certain by now.
    pub fn push(&mut self, id: u32) -> Vec<Event> {
        let name = match self.tokenizer.control_name(id) {
            _ if self.tokenizer.eos() == Some(id) => Some(Control::Eos.name()),
            name => name,
        };
        let Some(name) = name else {
            let text = self.decoder.push(id);
            return self.parser.push(Piece::Text(&text));
        };
        let rest = self.decoder.finish();
        let mut events = self.parser.push(Piece::Text(&rest));
        events.extend(self.parser.push(Piece::Control(name)));
        events
    }

    /// Whether the end-of-sentence token has been read.
    pub fn is_done(&self) -> bool {
        self.parser.is_done()
    }

    /// Ends the answer where it is and tells how it ended.
    pub fn finish(mut self) -> (Vec<Event>, Ending) {
        let rest = self.decoder.finish();
        let mut events = self.parser.push(Piece::Text(&rest));
        let (last, ending) = self.parser.finish();
        events.extend(last);
        (events, ending)
    }
}

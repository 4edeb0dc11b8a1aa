//! The parser of answers: reasoning, text and tool calls out of what the model writes (spec 5.3).
//!
//! It takes the output in pieces and reports the same, whatever the pieces: a place in the stream is
//! decided only when no continuation could change the decision. Nothing is lost: every character is
//! in an event or is part of the format. A call is reported complete only if it is written
//! completely; nothing is guessed.
use std::collections::{HashSet, VecDeque};

use super::events::{Answer, Ending, Event};
use super::json::write_escaped;
use super::mode::Mode;
use super::protocol::Control;
use super::tags::{Form, Front, TAGS, Tag};
use super::units::{Piece, Source, Speller, Unit};

/// Where in an answer the stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Reasoning,
    Content,
    /// In the block, between calls.
    Calls,
    /// In the opening tag of a call or a parameter, after its name.
    Attributes {
        tag: Tag,
        text: String,
    },
    /// In a call, between parameters.
    Call,
    /// In the value of a parameter.
    Value {
        is_string: bool,
    },
    AfterCalls,
    Ended,
}

/// Longest text of an opening tag, in bytes; a longer one is no tag.
const ATTRIBUTES_BYTES_MAX: usize = 4096;

/// Reads one answer as it is written.
#[derive(Clone, Debug)]
pub struct OutputParser {
    source: Source,
    speller: Speller,
    stream: VecDeque<Unit>,
    state: State,
    form: Form,
    /// Names of the current call's parameters so far.
    parameters: HashSet<String>,
    events: Vec<Event>,
}

impl OutputParser {
    /// A parser for the answer to a prompt rendered in `mode`, so that thinking modes begin inside
    /// the reasoning.
    pub fn new(mode: Mode, source: Source) -> OutputParser {
        OutputParser {
            source,
            speller: Speller::default(),
            stream: VecDeque::new(),
            state: if mode.thinks() { State::Reasoning } else { State::Content },
            form: Form::Marked,
            parameters: HashSet::new(),
            events: Vec::new(),
        }
    }

    /// Takes the next piece and returns what is certain by now. After the end-of-sentence token
    /// everything is ignored.
    pub fn push(&mut self, piece: Piece<'_>) -> Vec<Event> {
        match (piece, self.source) {
            (Piece::Text(text), Source::Tokens) => self.stream.extend(text.chars().map(Unit::Char)),
            (Piece::Text(text), Source::Spelled) => self.speller.push(text, &mut self.stream),
            (Piece::Control(name), _) => {
                self.speller.finish(&mut self.stream);
                self.stream.push_back(Unit::of(name));
            }
        }
        while self.step(Held::Waits) {}
        std::mem::take(&mut self.events)
    }

    /// Ends the output where it is and tells how it ended.
    pub fn finish(mut self) -> (Vec<Event>, Ending) {
        self.speller.finish(&mut self.stream);
        while self.step(Held::Goes) {}
        let ending = match self.state {
            State::Ended => Ending::Complete,
            State::Reasoning => Ending::InReasoning,
            State::Content => Ending::InContent,
            State::Calls | State::Attributes { tag: Tag::InvokeOpen, .. } => Ending::InCalls,
            State::Attributes { .. } | State::Call | State::Value { .. } => Ending::InCall,
            State::AfterCalls => Ending::AfterCalls,
        };
        self.end();
        (self.events, ending)
    }

    /// Whether the end-of-sentence token has been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Ended
    }

    /// Decides the front of the stream; false if there is nothing left to decide.
    fn step(&mut self, held: Held) -> bool {
        let Some(unit) = self.stream.front() else { return false };
        if self.state == State::Ended {
            self.stream.clear();
            return false;
        }
        if *unit == Unit::Control(Control::Eos) {
            self.stream.clear();
            self.end();
            return false;
        }
        if matches!(self.state, State::Attributes { .. }) {
            self.attribute();
            return true;
        }
        match TAGS.front(&self.stream, self.wanted(), self.searched_form()) {
            Front::Tag(tag, form, len) => {
                self.stream.drain(..len);
                self.tag(tag, form);
            }
            Front::Undecided if held == Held::Waits => return false,
            Front::Undecided | Front::Nothing => self.unit(),
        }
        true
    }

    /// The tags that mean something here.
    fn wanted(&self) -> &'static [Tag] {
        match self.state {
            State::Content => &[Tag::CallsOpen],
            State::Calls => &[Tag::InvokeOpen, Tag::CallsClose],
            // A call that is left open is broken by the next one or by the end of the block.
            State::Call => &[Tag::ParameterOpen, Tag::InvokeClose, Tag::InvokeOpen, Tag::CallsClose],
            State::Value { .. } => &[Tag::ParameterClose],
            State::Reasoning | State::AfterCalls | State::Attributes { .. } | State::Ended => &[],
        }
    }

    fn searched_form(&self) -> Form {
        if self.state == State::Content { Form::Bare } else { self.form }
    }

    fn tag(&mut self, tag: Tag, form: Form) {
        match tag {
            Tag::CallsOpen => {
                self.form = form;
                self.state = State::Calls;
            }
            Tag::CallsClose => {
                self.break_call();
                self.state = State::AfterCalls;
            }
            Tag::InvokeOpen => {
                self.break_call();
                self.state = State::Attributes { tag, text: String::new() };
            }
            Tag::ParameterOpen => self.state = State::Attributes { tag, text: String::new() },
            Tag::InvokeClose => {
                self.arguments("}");
                self.events.push(Event::ToolCallEnd);
                self.state = State::Calls;
            }
            Tag::ParameterClose => {
                if self.state == (State::Value { is_string: true }) {
                    self.arguments("\"");
                }
                self.state = State::Call;
            }
        }
    }

    /// A unit that begins no tag.
    fn unit(&mut self) {
        let unit = self.stream.pop_front().expect("the caller saw it");
        match (&self.state, &unit) {
            (State::Reasoning, Unit::Control(Control::ThinkEnd)) => self.state = State::Content,
            (State::Reasoning, Unit::Char(_)) => self.spelled(&unit, Event::Reasoning),
            (State::Content, Unit::Char(_)) => self.spelled(&unit, Event::Content),
            (State::Value { is_string }, _) => {
                let is_string = *is_string;
                self.value(&unit, is_string);
            }
            (State::Calls | State::Call | State::AfterCalls, _) if unit.is_space() => {}
            _ => self.spelled(&unit, Event::Stray),
        }
    }

    fn value(&mut self, unit: &Unit, is_string: bool) {
        let mut text = String::new();
        unit.spell(&mut text);
        if is_string {
            let mut escaped = String::new();
            text.chars().try_for_each(|c| write_escaped(&mut escaped, c)).expect("strings take all");
            text = escaped;
        }
        self.arguments(&text);
    }

    /// Takes one unit of an opening tag and acts when the tag is complete or turns out to be none.
    fn attribute(&mut self) {
        let unit = self.stream.pop_front().expect("the caller saw it");
        let State::Attributes { tag, text } = &mut self.state else {
            unreachable!("called in opening tags only");
        };
        let tag = *tag;
        let is_char = matches!(unit, Unit::Char(_));
        if is_char {
            unit.spell(text);
        }
        let is_bad = !is_char || text.len() > ATTRIBUTES_BYTES_MAX;
        let mut text = if is_bad || text.ends_with('>') { text.clone() } else { return };
        let opened = match tag {
            _ if is_bad => false,
            Tag::InvokeOpen if text.ends_with("\">") => self.open_call(&text),
            Tag::ParameterOpen
                if text.ends_with("\" string=\"true\">") || text.ends_with("\" string=\"false\">") =>
            {
                self.open_parameter(&text)
            }
            _ => return,
        };
        if opened {
            return;
        }
        if !is_char {
            // The unit may belong to the next tag, which is not at fault.
            self.stream.push_front(unit);
            let begun = text.len() - text.trim_end_matches('/').trim_end_matches('<').len();
            self.put_back(&text.split_off(text.len() - begun));
        }
        self.spelled_text(&text, Event::Stray);
        self.break_call();
        self.state = State::Calls;
    }

    fn put_back(&mut self, text: &str) {
        text.chars().rev().for_each(|c| self.stream.push_front(Unit::Char(c)));
    }

    fn open_call(&mut self, attributes: &str) -> bool {
        let name = attributes.trim_start().strip_prefix("name=\"").and_then(|rest| rest.strip_suffix("\">"));
        let Some(name) = name.filter(|name| !name.contains(['"', '\n'])) else { return false };
        self.events.push(Event::ToolCallStart { name: name.to_owned() });
        self.arguments("{");
        self.parameters.clear();
        self.state = State::Call;
        true
    }

    fn open_parameter(&mut self, attributes: &str) -> bool {
        let named = attributes.trim_start().strip_prefix("name=\"");
        let Some((name, flag)) = named.and_then(|rest| rest.rsplit_once("\" string=\"")) else {
            return false;
        };
        let separator = if self.parameters.is_empty() { "" } else { ", " };
        if !self.parameters.insert(name.to_owned()) {
            return false;
        }
        let mut key = format!("{separator}\"");
        name.chars().try_for_each(|c| write_escaped(&mut key, c)).expect("strings take all");
        let is_string = flag == "true\">";
        key += if is_string { "\": \"" } else { "\": " };
        self.arguments(&key);
        self.state = State::Value { is_string };
        true
    }

    /// Ends the answer; an open call is broken.
    fn end(&mut self) {
        if let State::Attributes { text, .. } = &self.state {
            let text = text.clone();
            self.spelled_text(&text, Event::Stray);
        }
        self.break_call();
        self.state = State::Ended;
    }

    /// Reports the current call broken, if there is one.
    fn break_call(&mut self) {
        let in_call = match &self.state {
            State::Call | State::Value { .. } => true,
            State::Attributes { tag, .. } => *tag == Tag::ParameterOpen,
            _ => false,
        };
        if in_call {
            self.events.push(Event::ToolCallBroken);
        }
    }

    fn arguments(&mut self, text: &str) {
        self.spelled_text(text, Event::ToolCallArguments);
    }

    fn spelled(&mut self, unit: &Unit, kind: fn(String) -> Event) {
        let mut text = String::new();
        unit.spell(&mut text);
        self.spelled_text(&text, kind);
    }

    /// Adds text of a kind, to the last event if that is of the same kind.
    fn spelled_text(&mut self, text: &str, kind: fn(String) -> Event) {
        if text.is_empty() {
            return;
        }
        let added = kind(text.to_owned());
        match (self.events.last_mut(), added) {
            (Some(Event::Reasoning(last)), Event::Reasoning(text))
            | (Some(Event::Content(last)), Event::Content(text))
            | (Some(Event::Stray(last)), Event::Stray(text))
            | (Some(Event::ToolCallArguments(last)), Event::ToolCallArguments(text)) => last.push_str(&text),
            (_, added) => self.events.push(added),
        }
    }
}

/// What to do with the beginning of a tag at the end of what has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    /// More will come.
    Waits,
    /// Nothing will: it is text.
    Goes,
}

/// Reads a whole answer from one string in which control tokens are spelled.
pub fn parse_answer(text: &str, mode: Mode) -> (Answer, Ending) {
    let mut parser = OutputParser::new(mode, Source::Spelled);
    let mut answer = Answer::default();
    answer.extend(parser.push(Piece::Text(text)));
    let (events, ending) = parser.finish();
    answer.extend(events);
    (answer, ending)
}

/// Reads any bytes as an answer with reasoning; what is no UTF-8 becomes U+FFFD.
pub fn parse_bytes(bytes: &[u8]) -> (Answer, Ending) {
    parse_answer(&String::from_utf8_lossy(bytes), Mode::Think(super::Effort::Low))
}

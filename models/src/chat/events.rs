//! What a parser of answers reports, and the answer put together from it.
use super::message::{Call, Content, Message, Role, ToolCall};

/// A step in an answer. Texts come in pieces; neighbouring pieces of a kind belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Reasoning, before the answer.
    Reasoning(String),
    /// The answer's text.
    Content(String),
    /// A call begins; its name is complete.
    ToolCallStart {
        /// Name of the tool.
        name: String,
    },
    /// JSON text of the current call's arguments.
    ToolCallArguments(String),
    /// The current call is complete.
    ToolCallEnd,
    /// The current call cannot be completed and must not be made.
    ToolCallBroken,
    /// Text where the format allows none: inside or after the block of calls, or a control token
    /// that has no place in an answer.
    Stray(String),
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With the end-of-sentence token.
    Complete,
    /// In the middle of the reasoning.
    InReasoning,
    /// In the answer's text.
    InContent,
    /// In the block of calls, between two calls.
    InCalls,
    /// In the middle of a call, which was reported broken.
    InCall,
    /// After the block of calls.
    AfterCalls,
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The reasoning, without its marks.
    pub reasoning: String,
    /// The text.
    pub content: String,
    /// The complete calls; arguments are JSON text.
    pub calls: Vec<Call>,
    /// Number of calls that were begun and not completed.
    pub n_broken: usize,
    /// Text where the format allows none.
    pub stray: String,
    current: Option<Call>,
}

impl Answer {
    /// Adds the next event.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Reasoning(text) => self.reasoning += &text,
            Event::Content(text) => self.content += &text,
            Event::Stray(text) => self.stray += &text,
            Event::ToolCallStart { name } => self.current = Some(Call { name, arguments: String::new() }),
            Event::ToolCallArguments(text) => {
                self.current.as_mut().expect("arguments come inside a call").arguments += &text;
            }
            Event::ToolCallEnd => self.calls.push(self.current.take().expect("an end comes after a start")),
            Event::ToolCallBroken => {
                self.current = None;
                self.n_broken += 1;
            }
        }
    }

    /// The answer as a message of the conversation; call `i` gets the id `id(i)`.
    pub fn into_message(self, id: impl Fn(usize) -> String) -> Message {
        let calls = self.calls.into_iter().enumerate().map(|(i, function)| ToolCall {
            id: Some(id(i)),
            kind: "function".into(),
            function,
        });
        Message {
            content: Some(Content::Text(self.content)),
            reasoning_content: (!self.reasoning.is_empty()).then_some(self.reasoning),
            tool_calls: calls.collect(),
            ..Message::new(Role::Assistant, "")
        }
    }
}

impl Extend<Event> for Answer {
    fn extend<I: IntoIterator<Item = Event>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.add(event));
    }
}

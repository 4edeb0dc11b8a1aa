//! The strings of the prompt protocol, read from `prompt-data.json`, the one place that spells them.
use std::sync::LazyLock;

use serde::Deserialize;

use super::message::Task;

/// A control token of the prompt format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// Begins every prompt.
    Bos,
    /// Ends every assistant message.
    Eos,
    /// Begins a user message.
    User,
    /// Begins an assistant message.
    Assistant,
    /// Opens the reasoning of an assistant message.
    ThinkStart,
    /// Closes the reasoning, or says that there is none.
    ThinkEnd,
    /// Marks the tags of tool calls.
    Dsml,
    /// Begins a reminder.
    LatestReminder,
    /// Asks for an internal task instead of an answer.
    Task(Task),
}

impl Control {
    /// All control tokens of the format.
    pub const ALL: [Control; 14] = [
        Control::Bos,
        Control::Eos,
        Control::User,
        Control::Assistant,
        Control::ThinkStart,
        Control::ThinkEnd,
        Control::Dsml,
        Control::LatestReminder,
        Control::Task(Task::Action),
        Control::Task(Task::Query),
        Control::Task(Task::Authority),
        Control::Task(Task::Domain),
        Control::Task(Task::Title),
        Control::Task(Task::ReadUrl),
    ];

    /// The token's spelling in the vocabulary.
    pub fn name(self) -> &'static str {
        let tokens = &PROTOCOL.tokens;
        match self {
            Control::Bos => &tokens.bos,
            Control::Eos => &tokens.eos,
            Control::User => &tokens.user,
            Control::Assistant => &tokens.assistant,
            Control::ThinkStart => &tokens.think_start,
            Control::ThinkEnd => &tokens.think_end,
            Control::Dsml => &tokens.dsml,
            Control::LatestReminder => &tokens.latest_reminder,
            Control::Task(Task::Action) => &tokens.task_action,
            Control::Task(Task::Query) => &tokens.task_query,
            Control::Task(Task::Authority) => &tokens.task_authority,
            Control::Task(Task::Domain) => &tokens.task_domain,
            Control::Task(Task::Title) => &tokens.task_title,
            Control::Task(Task::ReadUrl) => &tokens.task_read_url,
        }
    }

    /// The control token spelled `name`.
    pub fn from_name(name: &str) -> Option<Control> {
        Control::ALL.into_iter().find(|control| control.name() == name)
    }
}

/// Contents of `prompt-data.json` that rendering needs.
#[derive(Debug, Deserialize)]
pub(super) struct Protocol {
    tokens: Tokens,
    pub(super) strings: Strings,
}

#[derive(Debug, Deserialize)]
struct Tokens {
    bos: String,
    eos: String,
    user: String,
    assistant: String,
    think_start: String,
    think_end: String,
    dsml: String,
    latest_reminder: String,
    task_action: String,
    task_query: String,
    task_authority: String,
    task_domain: String,
    task_title: String,
    task_read_url: String,
}

/// Long texts; names in braces stand for tokens or inserted JSON.
#[derive(Debug, Deserialize)]
pub(super) struct Strings {
    pub(super) tools_template: String,
    pub(super) response_format_template: String,
    pub(super) effort_absolute: String,
    pub(super) effort_beyond: String,
}

pub(super) static PROTOCOL: LazyLock<Protocol> = LazyLock::new(|| {
    serde_json::from_str(include_str!("prompt-data.json")).expect("prompt-data.json is part of the source")
});

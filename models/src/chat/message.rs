//! Messages as clients send them: the OpenAI form with the fields the official encoder adds.
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::error::ChatError;
use super::json::Json;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions before the conversation.
    System,
    /// Instructions in the place of a user message.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// A note that is shown once, such as today's date.
    LatestReminder,
}

/// An internal task a message may ask for instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Decide whether to search or to answer.
    Action,
    /// Write search queries.
    Query,
    /// Say how authoritative the sources must be.
    Authority,
    /// Name the domain of the question.
    Domain,
    /// Write a title for the conversation.
    Title,
    /// Decide whether a link is to be read.
    ReadUrl,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent where the message only calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The assistant's reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Tools the assistant may call from here on (system and developer).
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Schema the answer must follow (system and developer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Json>,
    /// Calls the assistant makes after its text.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result this is (tool).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Task asked for at the end of this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Leave the assistant's message open: no end-of-sentence token.
    #[serde(default, alias = "prefix", skip_serializing_if = "is_false")]
    pub wo_eos: bool,
}

/// Text of a message, whole or in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// One text.
    Text(String),
    /// Parts, of which those of type `text` are read.
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What the part is; `text` is the only kind a language model reads.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    #[serde(default)]
    pub text: String,
}

/// A tool the assistant may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Always `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// Name, description and parameters, shown to the model as they are.
    pub function: Json,
}

/// A call the assistant made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Name by which the result refers to the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// What is called.
    pub function: Call,
}

/// Name and arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Name of the tool.
    pub name: String,
    /// JSON text of the arguments; an object sent in its place is taken as its text.
    #[serde(default, deserialize_with = "text_or_json")]
    pub arguments: String,
}

impl Message {
    /// A message that says `text`.
    pub fn new(role: Role, text: impl Into<String>) -> Message {
        Message {
            role,
            content: Some(Content::Text(text.into())),
            reasoning_content: None,
            tools: Vec::new(),
            response_format: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            task: None,
            wo_eos: false,
        }
    }

    /// The text of the message, empty if there is none.
    pub fn text(&self) -> String {
        self.content.as_ref().map(Content::text).unwrap_or_default()
    }
}

impl Content {
    /// Parts joined by an empty line; a part that is no text leaves a note in its place, as in the
    /// official encoder.
    pub fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => {
                let texts: Vec<String> = parts.iter().map(Part::shown).collect();
                texts.join("\n\n")
            }
        }
    }
}

impl Part {
    fn shown(&self) -> String {
        if self.kind == "text" { self.text.clone() } else { format!("[Unsupported {}]", self.kind) }
    }
}

/// Reads a JSON array of messages.
pub fn parse_messages(json: &[u8]) -> Result<Vec<Message>, ChatError> {
    Ok(serde_json::from_slice(json)?)
}

fn function() -> String {
    "function".into()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn text_or_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => Ok(text),
        Err(_) => Ok(raw.get().to_owned()),
    }
}

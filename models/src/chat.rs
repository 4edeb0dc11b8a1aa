//! Conversations: messages to prompts, and what the model writes back to messages (spec 5).
//!
//! `render` makes a prompt of typed segments and is the only writer of control tokens.
mod conversation;
mod error;
mod events;
mod json;
mod message;
mod mode;
mod parse;
mod prepare;
mod prompt;
mod protocol;
mod render;
mod tags;
mod units;

pub use conversation::{AnswerReader, Conversation};
pub use error::ChatError;
pub use events::{Answer, Ending, Event};
pub use json::{Json, JsonError};
pub use message::{Call, Content, Message, Part, Role, Task, Tool, ToolCall, parse_messages};
pub use mode::{Effort, MAX_EFFORT_CTX, Mode, Options, Revision};
pub use parse::{OutputParser, parse_answer, parse_bytes};
pub use prompt::{Prompt, Segment, to_text};
pub use protocol::Control;
pub use render::render;
pub use units::{Piece, Source};

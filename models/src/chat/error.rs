//! What can be wrong with a conversation.
use super::json::JsonError;

/// A conversation that cannot be rendered or read back.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The bytes are not a JSON array of messages.
    #[error("messages: {0}")]
    Json(#[from] serde_json::Error),
    /// A message lacks what its role requires.
    #[error("message {index}: expected {expected}, got {got}")]
    Message {
        /// Place in the conversation, from 0.
        index: usize,
        /// What the role requires.
        expected: &'static str,
        /// What is there.
        got: &'static str,
    },
    /// Tokens that are no conversation.
    #[error("tokens of the session: expected {expected}, got something else")]
    Tokens {
        /// What a conversation would have there.
        expected: &'static str,
    },
    /// A piece of JSON inside a message is damaged.
    #[error("messages: {0}")]
    Value(#[from] JsonError),
}

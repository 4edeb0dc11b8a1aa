//! Prompts as lists of typed segments.
//!
//! What a person, a file or a tool said is `Text` and can never become a control token, however it
//! is spelled; only the template writes `Control`.
use super::protocol::Control;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// One control token.
    Control(Control),
    /// Ordinary text.
    Text(String),
}

/// A rendered conversation; neighbouring texts are one segment, so that the tokenizer sees them whole.
pub type Prompt = Vec<Segment>;

/// The prompt as one string, for people and for comparisons; it does not tell a control token from
/// a text that spells it.
pub fn to_text(prompt: &[Segment]) -> String {
    let texts = prompt.iter().map(|segment| match segment {
        Segment::Control(control) => control.name(),
        Segment::Text(text) => text,
    });
    texts.collect()
}

/// Appends ordinary text.
pub(super) fn push_text(prompt: &mut Prompt, text: &str) {
    match prompt.last_mut() {
        _ if text.is_empty() => {}
        Some(Segment::Text(last)) => last.push_str(text),
        _ => prompt.push(Segment::Text(text.to_owned())),
    }
}

/// Appends a control token.
pub(super) fn push_control(prompt: &mut Prompt, control: Control) {
    prompt.push(Segment::Control(control));
}

impl Tokenizer {
    /// Ids of a prompt, or an error naming a control token the vocabulary lacks.
    pub fn encode_prompt(&self, prompt: &[Segment]) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for segment in prompt {
            match segment {
                Segment::Control(control) => ids.push(self.encode_control(control.name())?),
                Segment::Text(text) => ids.extend(self.encode_text(text)),
            }
        }
        Ok(ids)
    }
}

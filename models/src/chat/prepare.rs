//! The conversation as the template wants it: tool results folded into user turns and put in the
//! order of the calls, old reasoning left out (spec 5.2, preparation).
use std::collections::HashMap;

use super::error::ChatError;
use super::message::{Message, Role, Task};
use super::mode::Options;

/// A piece of a user turn.
#[derive(Clone, Debug)]
pub(super) enum Block {
    /// What the user wrote.
    Text(String),
    /// What a tool returned.
    Result { call_id: String, text: String },
}

/// A turn of the prompt.
#[derive(Clone, Debug)]
pub(super) enum Turn<'a> {
    /// User messages and tool results between two other messages.
    User { blocks: Vec<Block>, task: Option<Task> },
    /// Any other message; `reasoning` is what is left of it.
    Other { message: &'a Message, reasoning: Option<&'a str> },
}

impl Turn<'_> {
    pub(super) fn task(&self) -> Option<Task> {
        match self {
            Turn::User { task, .. } => *task,
            Turn::Other { message, .. } => message.task,
        }
    }

    /// Whether the assistant answers after this turn.
    pub(super) fn is_question(&self) -> bool {
        match self {
            Turn::User { .. } => true,
            Turn::Other { message, .. } => message.role == Role::Developer,
        }
    }

    pub(super) fn is(&self, role: Role) -> bool {
        matches!(self, Turn::Other { message, .. } if message.role == role)
    }
}

/// Place of the last user or developer turn.
pub(super) fn last_question(turns: &[Turn<'_>]) -> Option<usize> {
    turns.iter().rposition(Turn::is_question)
}

/// Whether the reasoning of earlier turns stays in the prompt. Folding leaves the tools of a user
/// message behind, so they do not count.
pub(super) fn keeps_reasoning(messages: &[Message], options: &Options) -> bool {
    let defines =
        |message: &Message| !message.tools.is_empty() && !matches!(message.role, Role::User | Role::Tool);
    !options.drop_thinking || messages.iter().any(defines)
}

/// All preparation steps.
pub(super) fn prepare<'a>(messages: &'a [Message], options: &Options) -> Result<Vec<Turn<'a>>, ChatError> {
    for (index, message) in messages.iter().enumerate() {
        if message.role == Role::Developer && message.text().is_empty() {
            let (expected, got) = ("content in a developer message", "none");
            return Err(ChatError::Message { index, expected, got });
        }
    }
    let mut turns = fold(messages);
    order_results(&mut turns);
    if options.mode.thinks() && !keeps_reasoning(messages, options) {
        turns = drop_reasoning(turns);
    }
    Ok(turns)
}

/// Joins neighbouring user messages and tool results into one turn. After a turn with a task a new
/// user message begins a new turn; a tool result never does, and a user message that joins a turn
/// leaves its own task behind (both as in the official encoder).
fn fold(messages: &[Message]) -> Vec<Turn<'_>> {
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for message in messages {
        let text = message.text();
        match (message.role, turns.last_mut()) {
            (Role::Tool, Some(Turn::User { blocks, .. })) => blocks.push(result(message, text)),
            (Role::Tool, _) => turns.push(Turn::User { blocks: vec![result(message, text)], task: None }),
            (Role::User, Some(Turn::User { blocks, task: None })) => blocks.push(Block::Text(text)),
            (Role::User, _) => {
                turns.push(Turn::User { blocks: vec![Block::Text(text)], task: message.task });
            }
            _ => turns.push(Turn::Other { message, reasoning: message.reasoning_content.as_deref() }),
        }
    }
    turns
}

fn result(message: &Message, text: String) -> Block {
    Block::Result { call_id: message.tool_call_id.clone().unwrap_or_default(), text }
}

/// Puts the results of a turn in the order of the latest calls; unknown ids count as the first call.
fn order_results(turns: &mut [Turn<'_>]) {
    let mut order: HashMap<&str, usize> = HashMap::new();
    for turn in turns {
        match turn {
            Turn::Other { message, .. }
                if message.role == Role::Assistant && !message.tool_calls.is_empty() =>
            {
                let ids = message.tool_calls.iter().map(|call| call.id.as_deref().unwrap_or_default());
                order = ids.zip(0..).filter(|(id, _)| !id.is_empty()).collect();
            }
            Turn::User { blocks, .. } if !order.is_empty() => {
                let place = |block: &Block| match block {
                    Block::Result { call_id, .. } => order.get(call_id.as_str()).copied().unwrap_or(0),
                    Block::Text(_) => unreachable!("only results are sorted"),
                };
                let is_result = |block: &&mut Block| matches!(block, Block::Result { .. });
                let mut results: Vec<Block> =
                    blocks.iter_mut().filter(is_result).map(|b| b.clone()).collect();
                results.sort_by_key(place);
                for (slot, block) in blocks.iter_mut().filter(is_result).zip(results) {
                    *slot = block;
                }
            }
            _ => {}
        }
    }
}

/// Before the last question: assistants lose their reasoning, developer messages go.
fn drop_reasoning(turns: Vec<Turn<'_>>) -> Vec<Turn<'_>> {
    let last = last_question(&turns).unwrap_or(0);
    let mut kept = Vec::with_capacity(turns.len());
    for (index, mut turn) in turns.into_iter().enumerate() {
        if index < last {
            if turn.is(Role::Developer) {
                continue;
            }
            if let Turn::Other { reasoning, .. } = &mut turn {
                *reasoning = None;
            }
        }
        kept.push(turn);
    }
    kept
}

//! What a model writes, as a stream of characters and control tokens.
use super::protocol::Control;

/// A part of the model's output as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Decoded text of ordinary tokens.
    Text(&'a str),
    /// A control token, by its spelling.
    Control(&'a str),
}

/// What is known about the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Control tokens come as `Piece::Control`; text that spells one is text.
    Tokens,
    /// Everything is one string; what spells a control token is one.
    Spelled,
}

/// One element of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Char(char),
    Control(Control),
    /// A control token that has no place in an answer.
    Foreign(Box<str>),
}

impl Unit {
    pub(super) fn of(name: &str) -> Unit {
        Control::from_name(name).map_or_else(|| Unit::Foreign(name.into()), Unit::Control)
    }

    /// Appends the unit as it is spelled.
    pub(super) fn spell(&self, out: &mut String) {
        match self {
            Unit::Char(c) => out.push(*c),
            Unit::Control(control) => out.push_str(control.name()),
            Unit::Foreign(name) => out.push_str(name),
        }
    }

    pub(super) fn is_space(&self) -> bool {
        matches!(self, Unit::Char(c) if c.is_ascii_whitespace())
    }
}

/// Finds spelled control tokens in a text that comes in pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct Speller {
    held: String,
}

impl Speller {
    /// Units of `text`; what may still become a control token is held back.
    pub(super) fn push(&mut self, text: &str, out: &mut impl Extend<Unit>) {
        self.held.push_str(text);
        let mut at = 0;
        while let Some(c) = self.held[at..].chars().next() {
            let rest = &self.held[at..];
            // No spelling begins another one, so the first full match is the only one.
            if let Some(control) = Control::ALL.into_iter().find(|control| rest.starts_with(control.name())) {
                out.extend([Unit::Control(control)]);
                at += control.name().len();
            } else if Control::ALL.into_iter().any(|control| control.name().starts_with(rest)) {
                break;
            } else {
                out.extend([Unit::Char(c)]);
                at += c.len_utf8();
            }
        }
        self.held.drain(..at);
    }

    /// Ends the text: what was held back is ordinary text from its first character on.
    pub(super) fn finish(&mut self, out: &mut impl Extend<Unit>) {
        let held = std::mem::take(&mut self.held);
        let mut chars = held.chars();
        out.extend(chars.next().map(Unit::Char));
        if !chars.as_str().is_empty() {
            self.push(chars.as_str(), out);
            self.finish(out);
        }
    }
}

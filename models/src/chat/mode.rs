//! How the assistant is asked to answer: at once, or after thinking, and how hard.
use super::protocol::PROTOCOL;

/// Prompt revisions of the published checkpoints. The configuration does not tell them apart; the
/// encoder file shipped beside the weights does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revision {
    /// Flash, Pro and Flash-DSpark of the first release.
    #[default]
    Preview,
    /// Flash-0731.
    R0731,
}

/// How hard to think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Thinking without a prefix, the default of thinking mode in every revision.
    #[default]
    Low,
    /// As `Low` in the preview checkpoints; a prefix of its own in 0731.
    High,
    /// The strongest prefix of the revision.
    Max,
}

/// Whether the assistant thinks before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `--nothink`: the answer at once.
    #[default]
    Chat,
    /// `--think`, `--think-max`: reasoning first.
    Think(Effort),
}

/// Context that the model card asks for before effort `Max`, in tokens (spec 5.2).
pub const MAX_EFFORT_CTX: usize = 393_216;

impl Mode {
    /// What `--think-max` means at a context of `ctx` tokens: below `MAX_EFFORT_CTX` the reasoning
    /// might not fit, and it is plain thinking.
    pub fn think_max(ctx: usize) -> Mode {
        Mode::Think(if ctx < MAX_EFFORT_CTX { Effort::Low } else { Effort::Max })
    }

    /// Whether reasoning comes before the answer.
    pub fn thinks(self) -> bool {
        self != Mode::Chat
    }

    /// Text put before the first message (spec 5.2, table of efforts).
    pub(super) fn prefix(self, revision: Revision) -> Option<&'static str> {
        let strings = &PROTOCOL.strings;
        match (self, revision) {
            (Mode::Chat | Mode::Think(Effort::Low), _) => None,
            (Mode::Think(Effort::High), Revision::Preview) => None,
            (Mode::Think(Effort::Max), Revision::Preview) => Some(&strings.effort_absolute),
            (Mode::Think(Effort::High), Revision::R0731) => Some(&strings.effort_absolute),
            (Mode::Think(Effort::Max), Revision::R0731) => Some(&strings.effort_beyond),
        }
    }
}

/// Everything beside the messages that a prompt depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to think.
    pub mode: Mode,
    /// Which checkpoint's prompt.
    pub revision: Revision,
    /// Leave out the reasoning of earlier turns; without effect once tools are defined.
    pub drop_thinking: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { mode: Mode::Chat, revision: Revision::Preview, drop_thinking: true }
    }
}

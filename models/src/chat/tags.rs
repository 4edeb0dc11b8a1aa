//! The tags of tool calls, and finding them in a stream that has not ended.
use std::collections::VecDeque;
use std::sync::LazyLock;

use super::protocol::Control;
use super::units::Unit;

/// A tag or, for those that carry a name, its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    CallsOpen,
    CallsClose,
    InvokeOpen,
    InvokeClose,
    ParameterOpen,
    ParameterClose,
}

/// How the tags of a block are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `<｜DSML｜…` with the control token.
    Marked,
    /// `<DSML｜…`: the marker without its first bar, as ordinary text.
    Bare,
}

/// The spelling of a tag in one form.
#[derive(Clone, Debug)]
struct Pattern {
    tag: Tag,
    form: Form,
    units: Vec<Unit>,
}

/// All spellings.
#[derive(Clone, Debug)]
pub(super) struct Tags {
    patterns: Vec<Pattern>,
}

/// The tags of the format.
pub(super) static TAGS: LazyLock<Tags> = LazyLock::new(Tags::new);

/// What stands at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// A tag of so many units, separating line ends included.
    Tag(Tag, Form, usize),
    /// Perhaps a tag; more of the stream decides.
    Undecided,
    /// No tag begins here.
    Nothing,
}

const SPELLINGS: [(Tag, &str, &str); 6] = [
    (Tag::CallsOpen, "<", "tool_calls>"),
    (Tag::CallsClose, "</", "tool_calls>"),
    (Tag::InvokeOpen, "<", "invoke"),
    (Tag::InvokeClose, "</", "invoke>"),
    (Tag::ParameterOpen, "<", "parameter"),
    (Tag::ParameterClose, "</", "parameter>"),
];

impl Tags {
    fn new() -> Tags {
        let chars = |text: &str| text.chars().map(Unit::Char).collect::<Vec<_>>();
        let bare = Control::Dsml.name().trim_start_matches('｜');
        let mut patterns = Vec::new();
        for (tag, open, name) in SPELLINGS {
            let marked = [chars(open), vec![Unit::Control(Control::Dsml)], chars(name)].concat();
            let spelled = chars(&format!("{open}{bare}{name}"));
            for (form, units) in [(Form::Marked, marked), (Form::Bare, spelled)] {
                patterns.push(Pattern { tag, form, units });
            }
        }
        // A block is set off by two line ends; with fewer it is still a block.
        for lines in 1..=2 {
            let opens = patterns
                .iter()
                .filter(|pattern| pattern.tag == Tag::CallsOpen && pattern.units[0] == Unit::Char('<'));
            let apart = opens.map(|pattern| Pattern {
                units: [vec![Unit::Char('\n'); lines], pattern.units.clone()].concat(),
                ..*pattern
            });
            let apart: Vec<Pattern> = apart.collect();
            patterns.extend(apart);
        }
        Tags { patterns }
    }

    /// Looks for one of `wanted` at the front of `stream`. In a bare block marked tags count too; in
    /// a marked one only they do, so that a value may hold bare ones.
    pub(super) fn front(&self, stream: &VecDeque<Unit>, wanted: &[Tag], block: Form) -> Front {
        let mut front = Front::Nothing;
        for pattern in &self.patterns {
            let counts = block == Form::Bare || pattern.form == Form::Marked;
            if !counts || !wanted.contains(&pattern.tag) {
                continue;
            }
            if !stream.iter().zip(&pattern.units).all(|(unit, expected)| unit == expected) {
                continue;
            }
            if pattern.units.len() <= stream.len() {
                return Front::Tag(pattern.tag, pattern.form, pattern.units.len());
            }
            front = Front::Undecided;
        }
        front
    }
}

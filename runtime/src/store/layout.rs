//! Which rows of which state make a snapshot, in which order: the same for writing and reading.
//!
//! Only what is needed to go on is stored. A boundary at position p that extends one at p0 adds the
//! entries closed in between, which never change again, and the edge at p: rings and tails as far
//! as they are valid there. Edges are what boundaries do not share.
use super::Key;
use ds4_ir::{Scalar, StateKind, StateType};
use std::ops::Range;

/// A session's states, by their index in the state schema, in packed exact row form.
///
/// Row numbers are absolute: the token's position for rings and tails, the entry's for entries.
pub trait StateRows {
    /// Appends the bytes of `rows` to `out`: `rows.len()` times the row bytes of the state.
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>);
    /// Replaces `rows` by `bytes`, as long as [`StateRows::read`] would give.
    fn write(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]);
}

/// What a session's snapshots are made of, and the key that separates them from all others.
#[derive(Clone, Debug)]
pub struct Layout {
    root: Key,
    states: Vec<StateType>,
    logits: u32,
}

/// Consecutive rows of one state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Section {
    pub(crate) state: usize,
    pub(crate) rows: Range<u64>,
    /// Bytes of a row in the session.
    row_bytes: usize,
    /// Only lane A is stored.
    lane_a: bool,
}

impl Layout {
    /// The layout of a state schema.
    ///
    /// `identity` hashes the model identity, the numeric class and formats, and the params;
    /// `logits` is the number of next-token logits. The schema itself enters the key here.
    pub fn new(identity: [u8; 32], schema: &[(String, StateType)], logits: usize) -> Layout {
        let mut text = format!("ds4 state 1\nlogits {logits}\n");
        for (name, state) in schema {
            text.push_str(&format!("{name} {state}\n"));
        }
        let mut hasher = blake3::Hasher::new();
        let root = Key(*hasher.update(&identity).update(text.as_bytes()).finalize().as_bytes());
        let states = schema.iter().map(|(_, state)| *state).collect();
        Layout { root, states, logits: logits.try_into().expect("logits fit 32 bits") }
    }

    /// The key of the empty prefix: one per identity and schema.
    pub fn root(&self) -> Key {
        self.root
    }

    /// Number of next-token logits.
    pub fn logits(&self) -> u32 {
        self.logits
    }

    /// The entries that tokens `span` close.
    pub(crate) fn entries(&self, span: &Range<u64>) -> Vec<Section> {
        let kept = self.states.iter().enumerate();
        kept.filter(|(_, s)| matches!(s.kind, StateKind::Entries(_)))
            .map(|(i, s)| self.section(i, s.kind.valid(span.start).end..s.kind.valid(span.end).end, false))
            .collect()
    }

    /// The valid rows of rings and tails at `position`.
    ///
    /// Of the block before the open one, an overlapping compressor reads only lane A, the first half
    /// of the k and of the g channels (spec 2.5), so only that is stored.
    pub(crate) fn edge(&self, position: u64) -> Vec<Section> {
        let mut sections = Vec::new();
        for (i, state) in self.states.iter().enumerate() {
            let valid = state.kind.valid(position);
            match state.kind {
                StateKind::Entries(_) => {}
                StateKind::Ring(_) => sections.push(self.section(i, valid, false)),
                StateKind::Tail(ratio) => {
                    let open = valid.start.max(position - position % u64::from(ratio));
                    let quarters = state.scalar == Scalar::F32 && state.width.is_multiple_of(4);
                    sections.push(self.section(i, valid.start..open, quarters));
                    sections.push(self.section(i, open..position, false));
                }
            }
        }
        sections
    }

    /// Bytes of a file of kind rows: the tokens `span` and the entries they close.
    pub(crate) fn rows_bytes(&self, span: &Range<u64>) -> u64 {
        4 * (span.end - span.start) + self.entries(span).iter().map(Section::bytes).sum::<u64>()
    }

    /// Bytes of a file of kind edge.
    pub(crate) fn edge_bytes(&self, position: u64) -> u64 {
        4 * u64::from(self.logits) + self.edge(position).iter().map(Section::bytes).sum::<u64>()
    }

    fn section(&self, state: usize, rows: Range<u64>, lane_a: bool) -> Section {
        let kind = self.states[state];
        Section { state, rows, row_bytes: kind.scalar.row_bytes(kind.width as usize), lane_a }
    }
}

impl Section {
    /// Bytes of a row in the file.
    pub(crate) fn stored_row(&self) -> usize {
        if self.lane_a { self.row_bytes / 2 } else { self.row_bytes }
    }

    /// Bytes of the section in the file.
    pub(crate) fn bytes(&self) -> u64 {
        (self.rows.end - self.rows.start) * self.stored_row() as u64
    }

    /// Appends the stored form of the section.
    pub(crate) fn read(&self, from: &dyn StateRows, out: &mut Vec<u8>) {
        let start = out.len();
        from.read(self.state, self.rows.clone(), out);
        let rows = (self.rows.end - self.rows.start) as usize;
        assert_eq!(out.len() - start, rows * self.row_bytes, "state {} rows {:?}", self.state, self.rows);
        if self.lane_a {
            let quarter = self.row_bytes / 4;
            for i in 0..2 * rows {
                // Quarters 0 and 2 of each row move to the front, in order.
                let from = start + 2 * i * quarter;
                out.copy_within(from..from + quarter, start + i * quarter);
            }
            out.truncate(start + 2 * rows * quarter);
        }
    }

    /// Gives `rows`, part of the section, to the session; lane B of a lane A row becomes zero.
    pub(crate) fn write(&self, rows: Range<u64>, stored: &[u8], to: &mut dyn StateRows) {
        if !self.lane_a {
            return to.write(self.state, rows, stored);
        }
        let quarter = self.row_bytes / 4;
        let mut whole = vec![0; 2 * stored.len()];
        for (pair, lane) in whole.chunks_exact_mut(2 * quarter).zip(stored.chunks_exact(quarter)) {
            pair[..quarter].copy_from_slice(lane);
        }
        to.write(self.state, rows, &whole);
    }
}

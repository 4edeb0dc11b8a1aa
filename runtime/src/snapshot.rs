//! Sessions and the store: what identifies a session's states, and how their rows go in and out.
use crate::store::{Boundary, Capture, Layout, Restored, StateRows, Store, StoreError};
use crate::{Session, step::Held};
use ds4_ir::view::state_slot;
use std::ops::Range;

/// Version of the layout of states: another one cannot read the rows of this one.
const SCHEMA_VERSION: u32 = 1;

impl Session {
    /// What the snapshots of this session are made of. Another model, numeric class, row format,
    /// schema version or parameter makes another layout, which finds nothing of this one.
    pub fn layout(&self) -> Layout {
        let module = self.engine().module();
        let mut identity = blake3::Hasher::new();
        identity
            .update(format!("{} {} {SCHEMA_VERSION}\n", self.engine().identity(), module.class).as_bytes());
        for (param, bytes) in module.params.iter().zip(self.param_bytes()) {
            identity.update(format!("{}: {}\n", param.name, param.ty).as_bytes());
            identity.update(bytes);
        }
        let schema: Vec<_> = module.states.iter().map(|s| (s.name.clone(), s.ty)).collect();
        Layout::new(*identity.finalize().as_bytes(), &schema, module.vocab as usize)
    }

    /// Brings the session to the longest prefix of `tokens` that the store keeps; to position 0 if it
    /// keeps none. A rewind below that position is not possible.
    pub fn restore(&mut self, store: &Store, tokens: &[u32]) -> Restored {
        let ctx = self.engine().module().ctx as usize;
        let layout = self.layout();
        self.reset();
        let restored = store.restore(&layout, &tokens[..tokens.len().min(ctx)], self);
        self.set_restored(restored.tokens);
        restored
    }

    /// Copies out what the store lacks of this session's states; `None` if it lacks nothing.
    /// `tokens` are those the session holds, `logits` those of the next token, `seconds` what
    /// computing one token took.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn capture(
        &self,
        store: &Store,
        tokens: &[u32],
        logits: &[f32],
        seconds: f32,
    ) -> Result<Option<Capture>, StoreError> {
        assert!(tokens.len() as u64 == self.position(), "{} tokens at {}", tokens.len(), self.position());
        store.capture(&self.layout(), Boundary { tokens, logits, seconds_per_token: seconds }, self)
    }
}

/// Bytes of a row, and the byte ranges of `rows` one by one.
fn ranges(held: &Held, rows: Range<u64>) -> impl Iterator<Item = Range<usize>> + '_ {
    let size = held.ty.scalar.row_bytes(held.ty.width as usize);
    rows.map(move |row| {
        let slot = state_slot(held.ty.kind, held.capacity, usize::try_from(row).expect("rows fit memory"));
        slot * size..(slot + 1) * size
    })
}

impl StateRows for Session {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        let held = &self.states[state];
        let bytes = held.memory.bytes();
        ranges(held, rows).for_each(|range| out.extend_from_slice(&bytes[range]));
    }

    fn write(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) {
        let held = &self.states[state];
        let places: Vec<Range<usize>> = ranges(held, rows).collect();
        let size = places.first().map_or(1, Range::len);
        let memory = self.states[state].memory.bytes_mut();
        for (place, row) in places.into_iter().zip(bytes.chunks_exact(size)) {
            memory[place].copy_from_slice(row);
        }
    }
}

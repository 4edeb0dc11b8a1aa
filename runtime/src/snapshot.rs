//! Sessions and the store: what identifies a session's states, and how their rows go in and out.
use crate::Session;
use crate::store::{Boundary, Capture, Layout, Reason, Restored, StateRows, Store, StoreError};
use std::ops::Range;

/// Version of the layout of states: another one cannot read the rows of this one.
const SCHEMA_VERSION: u32 = 1;

impl Session {
    /// What the snapshots of this session are made of. Another model, numeric class, row format,
    /// schema version or parameter makes another layout, which finds nothing of this one.
    pub fn layout(&self) -> Layout {
        self.layout_of(SCHEMA_VERSION)
    }

    /// As [`Session::layout`], for a ds4 of another schema version.
    pub fn layout_of(&self, version: u32) -> Layout {
        let module = self.engine().module();
        let mut identity = blake3::Hasher::new();
        identity.update(format!("{} {} {version}\n", self.engine().identity(), module.class).as_bytes());
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
        let mut restored = store.restore(&layout, &tokens[..tokens.len().min(ctx)], self);
        if let Some(why) = self.fault.take() {
            let of = restored.of;
            restored =
                Restored { tokens: 0, of, reason: Reason::Device(why.to_string()), logits: Vec::new() };
        }
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
        let boundary = Boundary { tokens, logits, seconds_per_token: seconds };
        let captured = store.capture(&self.layout(), boundary, self);
        match self.fault.take() {
            Some(why) => Err(StoreError::Device(why.to_string())),
            None => captured,
        }
    }
}

impl StateRows for Session {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        let before = out.len();
        if let Err(why) = self.body.read_rows(state, rows.clone(), out) {
            // What is missing is never stored: `capture` looks at the fault.
            let ty = self.engine().module().states[state].ty;
            let count = usize::try_from(rows.end - rows.start).expect("rows fit memory");
            out.resize(before + count * ty.scalar.row_bytes(ty.width as usize), 0);
            self.fault.replace(Some(why));
        }
    }

    fn write(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) {
        if let Err(why) = self.body.write_rows(state, rows, bytes) {
            self.fault.replace(Some(why));
        }
    }
}

//! What the tests of the store share: a session whose every bit depends on its whole state, a
//! random generator, and a simulated disk.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
pub mod sim;

use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{
    Boundary, Capture, Disk, Layout, Options, Restored, Saved, StateRows, Store, StoreError,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const LOGITS: usize = 5;

/// xorshift64*: the same run for the same seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n.max(1)
    }
}

/// All kinds, both compressor ratios' ways, packed and plain rows.
pub fn schema() -> Vec<(String, StateType)> {
    let state = |kind, scalar, width| StateType { kind, scalar, width };
    [
        ("raw", state(StateKind::Ring(16), Scalar::Kv8 { rope: 8 }, 16)),
        ("rows4", state(StateKind::Entries(4), Scalar::Kv8 { rope: 8 }, 72)),
        ("index4", state(StateKind::Entries(4), Scalar::Idx4, 32)),
        ("tail4", state(StateKind::Tail(4), Scalar::F32, 8)),
        ("rows128", state(StateKind::Entries(128), Scalar::Kv8 { rope: 8 }, 16)),
        ("tail128", state(StateKind::Tail(128), Scalar::F32, 4)),
        ("ring", state(StateKind::Ring(3), Scalar::F32, 2)),
    ]
    .map(|(name, state)| (name.to_string(), state))
    .to_vec()
}

pub fn layout() -> Layout {
    Layout::new([42; 32], &schema(), LOGITS)
}

pub fn options(budget: u64) -> Options {
    Options { budget, patience: Duration::from_millis(1) }
}

pub fn open(disk: impl Disk + 'static, budget: u64) -> Result<Store, StoreError> {
    Store::open(Arc::new(disk), Path::new("/store"), options(budget))
}

/// A session as the store sees one. A new row is a hash of the token and of every row needed to go
/// on, lane B of a closed overlapping block excepted; so one wrong bit changes all that follows.
#[derive(Clone)]
pub struct Session {
    schema: Vec<StateType>,
    rows: Vec<BTreeMap<u64, Vec<u8>>>,
    pub tokens: Vec<u32>,
}

impl Session {
    pub fn new() -> Session {
        let schema: Vec<StateType> = schema().into_iter().map(|(_, s)| s).collect();
        Session { rows: vec![BTreeMap::new(); schema.len()], schema, tokens: Vec::new() }
    }

    /// A session that computed `tokens` from nothing; the same one is computed only once.
    pub fn of(tokens: &[u32]) -> Session {
        static DONE: Mutex<BTreeMap<Vec<u32>, Session>> = Mutex::new(BTreeMap::new());
        if let Some(session) = DONE.lock().unwrap().get(tokens) {
            return session.clone();
        }
        let mut session = Session::new();
        tokens.iter().for_each(|t| session.advance(*t));
        DONE.lock().unwrap().insert(tokens.to_vec(), session.clone());
        session
    }

    /// All rows needed to go on, as the next step reads them.
    fn needed(&self) -> Vec<Vec<u8>> {
        let position = self.tokens.len() as u64;
        let mut needed = Vec::new();
        for (state, rows) in self.schema.iter().zip(&self.rows) {
            for i in state.kind.valid(position) {
                let closed = state.kind == StateKind::Tail(4) && i < position - position % 4;
                let lane = rows[&i].len() / 4;
                let row = rows[&i].chunks(lane).enumerate().filter(|(j, _)| !closed || j % 2 == 0);
                needed.push(row.flat_map(|(_, part)| part).copied().collect());
            }
        }
        needed
    }

    fn digest(&self) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        let position = self.tokens.len() as u64;
        for (state, rows) in self.schema.iter().zip(&self.rows) {
            let mut valid = state.kind.valid(position);
            if let StateKind::Entries(_) = state.kind {
                // The newest stand for all, each being a hash of the ones before it.
                valid.start = valid.end.saturating_sub(2);
            }
            for i in valid {
                let row = &rows[&i];
                let closed = state.kind == StateKind::Tail(4) && i < position - position % 4;
                let quarter = row.len() / 4;
                match closed {
                    true => hasher.update(&row[..quarter]).update(&row[2 * quarter..3 * quarter]),
                    false => hasher.update(row),
                };
            }
        }
        hasher
    }

    pub fn advance(&mut self, token: u32) {
        let position = self.tokens.len() as u64;
        let hash =
            *self.digest().update(&token.to_le_bytes()).update(&position.to_le_bytes()).finalize().as_bytes();
        self.tokens.push(token);
        for (i, state) in self.schema.iter().enumerate() {
            let before = state.kind.valid(position);
            let after = state.kind.valid(position + 1);
            for row in before.end..after.end {
                let mut bytes = vec![0; state.scalar.row_bytes(state.width as usize)];
                let mut own = blake3::Hasher::new_keyed(&hash);
                own.update(&[i as u8]).finalize_xof().fill(&mut bytes);
                self.rows[i].insert(row, bytes);
            }
            // What is no longer needed is not there to be read.
            self.rows[i].retain(|row, _| *row >= after.start);
        }
    }

    pub fn logits(&self) -> Vec<f32> {
        let hash = self.digest().finalize();
        hash.as_bytes().iter().take(LOGITS).map(|b| f32::from(*b) / 3.0).collect()
    }

    /// Its end copied out, where each token took `seconds_per_token`.
    pub fn capture(&self, store: &Store, seconds_per_token: f32) -> Result<Option<Capture>, StoreError> {
        let (tokens, logits) = (&self.tokens[..], &self.logits()[..]);
        store.capture(&layout(), Boundary { tokens, logits, seconds_per_token }, self)
    }

    pub fn save(&self, store: &Store) -> Result<Option<Saved>, StoreError> {
        self.capture(store, 0.01)?.map(|c| store.commit(&c)).transpose()
    }

    /// Restores what is stored and compares it, bit for bit, with what computing gives.
    pub fn restore(store: &Store, tokens: &[u32]) -> (Session, Restored) {
        let mut session = Session::new();
        let restored = store.restore(&layout(), tokens, &mut session);
        session.tokens = tokens[..restored.tokens as usize].to_vec();
        let whole = Session::of(&session.tokens);
        assert!(session.needed() == whole.needed(), "{restored}");
        assert_eq!(session.logits(), whole.logits(), "{restored}");
        if restored.tokens > 0 {
            assert_eq!(restored.logits, whole.logits(), "{restored}");
        }
        (session, restored)
    }

    /// As [`Session::restore`], then computes the rest and 32 tokens more beside a session that was
    /// never interrupted.
    pub fn resume(store: &Store, tokens: &[u32]) -> (Session, Restored) {
        let (mut session, restored) = Session::restore(store, tokens);
        let mut whole = Session::of(&session.tokens);
        let mut resumed = None;
        for token in tokens[restored.tokens as usize..].iter().copied().chain(0..32) {
            if session.tokens.len() == tokens.len() {
                resumed = Some(session.clone());
            }
            session.advance(token);
            whole.advance(token);
            assert_eq!(session.logits(), whole.logits(), "{restored}");
        }
        (resumed.expect("it passed the end of its tokens"), restored)
    }
}

impl StateRows for Session {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        rows.for_each(|i| out.extend(&self.rows[state][&i]));
    }

    fn write(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) {
        let size = self.schema[state].scalar.row_bytes(self.schema[state].width as usize);
        assert_eq!(bytes.len(), rows.clone().count() * size);
        for (i, row) in rows.zip(bytes.chunks_exact(size)) {
            self.rows[state].insert(i, row.to_vec());
        }
    }
}

/// `n` tokens that follow from a seed.
pub fn text(seed: u64, n: usize) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.below(1000) as u32).collect()
}

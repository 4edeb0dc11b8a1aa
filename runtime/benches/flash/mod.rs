//! What the benches of the store share: the states of Flash as flat memory, and clocks.
#![allow(dead_code, unreachable_pub, reason = "each bench uses its part")]
use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::StateRows;
use std::ops::Range;
use std::time::Instant;

/// Next-token logits.
pub const LOGITS: usize = 129_280;

/// States as flat memory, one buffer per state, as a session on the CPU holds them.
pub struct Rows(Vec<(usize, Vec<u8>)>);

impl Rows {
    pub fn new(schema: &[(String, StateType)], tokens: u64) -> Rows {
        let buffer = |s: &StateType| {
            let row = s.scalar.row_bytes(s.width as usize);
            let rows = s.kind.rows(tokens) as usize;
            // No two pages alike, and each is there before anything is measured.
            (row, noise(rows * row))
        };
        Rows(schema.iter().map(|(_, s)| buffer(s)).collect())
    }

    /// The rows as pieces of the buffer: rings and tails wrap around.
    fn pieces(&self, state: usize, rows: Range<u64>) -> impl Iterator<Item = Range<usize>> {
        let (row, slots) = (self.0[state].0, (self.0[state].1.len() / self.0[state].0) as u64);
        let mut next = rows.start;
        std::iter::from_fn(move || {
            let slot = next % slots;
            let n = (rows.end - next).min(slots - slot);
            next += n;
            (n > 0).then(|| slot as usize * row..(slot + n) as usize * row)
        })
    }
}

impl StateRows for Rows {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        self.pieces(state, rows).for_each(|piece| out.extend_from_slice(&self.0[state].1[piece]));
    }

    fn write(&mut self, state: usize, rows: Range<u64>, mut bytes: &[u8]) {
        for piece in self.pieces(state, rows).collect::<Vec<_>>() {
            let (own, rest) = bytes.split_at(piece.len());
            self.0[state].1[piece].copy_from_slice(own);
            bytes = rest;
        }
    }
}

/// The states of Flash in `official` or `fast` (spec 1.2).
pub fn schema() -> Vec<(String, StateType)> {
    let kv8 = Scalar::Kv8 { rope: 64 };
    let mut schema = Vec::new();
    for layer in 0..43 {
        let mut add = |kind, scalar, width| {
            schema.push((format!("blk.{layer}.{}", schema.len()), StateType { kind, scalar, width }));
        };
        add(StateKind::Ring(128), kv8, 512);
        if layer >= 2 && layer % 2 == 0 {
            add(StateKind::Entries(4), kv8, 512);
            add(StateKind::Entries(4), Scalar::Idx4, 128);
            add(StateKind::Tail(4), Scalar::F32, 2048);
            add(StateKind::Tail(4), Scalar::F32, 512);
        } else if layer >= 2 {
            add(StateKind::Entries(128), kv8, 512);
            add(StateKind::Tail(128), Scalar::F32, 1024);
        }
    }
    schema
}

/// Bytes that nothing on the way to the disk can make fewer.
pub fn noise(n: usize) -> Vec<u8> {
    let mut x = n as u64 | 1;
    let mut word = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..n.div_ceil(8)).flat_map(|_| word()).collect();
    bytes.truncate(n);
    bytes
}

pub fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let value = work();
    (start.elapsed().as_secs_f64(), value)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

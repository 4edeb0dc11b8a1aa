//! The bytes that the states of the real model take, against their bounds.
mod store_support;

use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{Boundary, CHUNK, HEADER, Layout, Reason, StateRows};
use std::ops::Range;
use store_support::open;
use store_support::sim::Sim;

const VOCABULARY: usize = 129_280;

/// Flash in `official` or `fast` (spec 1.2): 43 layers of window, 21 of CSA and 20 of HCA.
fn flash() -> Vec<(String, StateType)> {
    let kv8 = Scalar::Kv8 { rope: 64 };
    let mut schema = Vec::new();
    for layer in 0..43 {
        let mut add = |name: &str, kind, scalar, width| {
            schema.push((format!("blk.{layer}.{name}"), StateType { kind, scalar, width }));
        };
        add("raw", StateKind::Ring(128), kv8, 512);
        match layer {
            0 | 1 => {}
            _ if layer % 2 == 0 => {
                add("rows", StateKind::Entries(4), kv8, 512);
                add("index", StateKind::Entries(4), Scalar::Idx4, 128);
                add("tail", StateKind::Tail(4), Scalar::F32, 2048);
                add("index_tail", StateKind::Tail(4), Scalar::F32, 512);
            }
            _ => {
                add("rows", StateKind::Entries(128), kv8, 512);
                add("tail", StateKind::Tail(128), Scalar::F32, 1024);
            }
        }
    }
    schema
}

/// Rows that follow from state and row number; what is written has to agree, except for lane B.
struct Pattern {
    states: Vec<StateType>,
    written: u64,
}

impl Pattern {
    fn new(schema: &[(String, StateType)]) -> Pattern {
        Pattern { states: schema.iter().map(|(_, s)| *s).collect(), written: 0 }
    }

    fn row(&self, state: usize, row: u64) -> impl Iterator<Item = u8> {
        let kind = self.states[state];
        let seed = (state as u64 * 31 + row * 7 + 1) as u32;
        (0..kind.scalar.row_bytes(kind.width as usize) as u32)
            .map(move |i| (seed.wrapping_mul(i | 1) >> 5) as u8)
    }
}

impl StateRows for Pattern {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        rows.for_each(|row| out.extend(self.row(state, row)));
    }

    fn write(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) {
        let size = bytes.len() / (rows.end - rows.start) as usize;
        for (row, got) in rows.zip(bytes.chunks_exact(size)) {
            let own: Vec<u8> = self.row(state, row).collect();
            let lane = size / 4;
            let lane_a = |b: &[u8]| [&b[..lane], &b[2 * lane..3 * lane]].concat();
            let closed = self.states[state].kind == StateKind::Tail(4) && lane_a(got) == lane_a(&own);
            assert!(got == own || closed && got[lane..2 * lane].iter().all(|b| *b == 0), "{state} {row}");
            self.written += size as u64;
        }
    }
}

#[test]
fn the_real_states_restore_over_many_chunks() {
    let schema = flash();
    let layout = Layout::new([0; 32], &schema, VOCABULARY);
    let sim = Sim::default();
    let store = open(sim.clone(), u64::MAX / 2).unwrap();
    let tokens: Vec<u32> = (0..1030).collect();
    let logits: Vec<f32> = (0..VOCABULARY).map(|i| i as f32).collect();
    for n in [515, 1030] {
        let boundary = Boundary { tokens: &tokens[..n], logits: &logits, seconds_per_token: 0.1 };
        store.commit(&store.capture(&layout, boundary, &Pattern::new(&schema)).unwrap().unwrap()).unwrap();
    }
    let mut rows = Pattern::new(&schema);
    let restored = store.restore(&layout, &tokens, &mut rows);
    assert_eq!((restored.tokens, restored.logits), (1030, logits));
    let valid = |s: &StateType| {
        let valid = s.kind.valid(1030);
        (valid.end - valid.start) * s.scalar.row_bytes(s.width as usize) as u64
    };
    assert_eq!(rows.written, schema.iter().map(|(_, s)| valid(s)).sum::<u64>());

    // Two chunks that change places are noticed.
    let node = store.list().unwrap().into_iter().find(|n| n.end == 1030).unwrap();
    let path = store.folder().join("nodes").join(format!("{}.edge", node.key));
    let mut bytes = sim.bytes(&path);
    let (first, chunk) = (HEADER as usize, CHUNK as usize + 8);
    let (a, b) = bytes[first..first + 2 * chunk].split_at_mut(chunk);
    a.swap_with_slice(b);
    sim.replace(&path, bytes);
    let restored = store.restore(&layout, &tokens, &mut Pattern::new(&schema));
    assert_eq!((restored.tokens, restored.reason), (515, Reason::Damaged));
}

#[test]
fn flash_takes_3530_bytes_a_token_and_its_edge() {
    let schema = flash();
    let count = |kind| schema.iter().filter(|(_, s)| s.kind == kind).count();
    assert_eq!((count(StateKind::Entries(4)), count(StateKind::Entries(128))), (42, 20));
    let layout = Layout::new([0; 32], &schema, VOCABULARY);
    let rows = Pattern::new(&schema);
    let logits = vec![0.0; VOCABULARY];
    let bytes = |tokens: &[u32]| {
        let store = open(Sim::default(), u64::MAX / 2).unwrap();
        let boundary = Boundary { tokens, logits: &logits, seconds_per_token: 0.1 };
        store.commit(&store.capture(&layout, boundary, &rows).unwrap().unwrap()).unwrap().bytes
    };
    let tokens: Vec<u32> = (0..8192).collect();
    for n in [128, 1024, 8192] {
        let (bytes, bound) = (bytes(&tokens[..n]), 3530 * n as u64 + 4_500_000);
        println!("{n} tokens: {bytes} bytes, at most {bound}");
        assert!(bytes <= bound, "{n}: {bytes} > {bound}");
    }
    for n in [1, 3, 127, 129, 1023, 1025, 4095] {
        let (bytes, bound) = (bytes(&tokens[..n]), 3530 * n as u64 + 16_000_000);
        println!("{n} tokens: {bytes} bytes, at most {bound}");
        assert!(bytes <= bound, "{n}: {bytes} > {bound}");
    }
}

#[test]
fn a_turn_of_flash_appends_its_own_tokens() {
    let schema = flash();
    let layout = Layout::new([0; 32], &schema, VOCABULARY);
    let rows = Pattern::new(&schema);
    let logits = vec![0.0; VOCABULARY];
    let store = open(Sim::default(), u64::MAX / 2).unwrap();
    let tokens: Vec<u32> = (0..4096).collect();
    let save = |n: usize| {
        let boundary = Boundary { tokens: &tokens[..n], logits: &logits, seconds_per_token: 0.1 };
        store.commit(&store.capture(&layout, boundary, &rows).unwrap().unwrap()).unwrap().bytes
    };
    save(3840);
    assert!(save(4096) <= 3530 * 256 + 4_500_000);
}

//! The bytes that the states of the real model take, against their bounds.
mod store_support;

use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{Boundary, Layout, StateRows};
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

/// Rows of zeros: sizes do not depend on values.
struct Zeros(Vec<StateType>);

impl StateRows for Zeros {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        let kind = self.0[state];
        let row = kind.scalar.row_bytes(kind.width as usize);
        out.resize(out.len() + (rows.end - rows.start) as usize * row, 0);
    }

    fn write(&mut self, _: usize, _: Range<u64>, _: &[u8]) {
        unreachable!("nothing is restored here");
    }
}

#[test]
fn flash_takes_3530_bytes_a_token_and_its_edge() {
    let schema = flash();
    let count = |kind| schema.iter().filter(|(_, s)| s.kind == kind).count();
    assert_eq!((count(StateKind::Entries(4)), count(StateKind::Entries(128))), (42, 20));
    let layout = Layout::new([0; 32], &schema, VOCABULARY);
    let rows = Zeros(schema.iter().map(|(_, s)| *s).collect());
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
    let rows = Zeros(schema.iter().map(|(_, s)| *s).collect());
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

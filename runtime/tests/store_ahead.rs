//! Sessions of many bytes, which several threads read: the same answers as for short ones, whatever is
//! wrong with one of the files.
mod store_support;

use ds4_ir::{Scalar, StateKind, StateType};
use ds4_runtime::store::{Boundary, Disk, Layout, Reason, StateRows, Store};
use std::ops::Range;
use std::path::PathBuf;
use store_support::sim::Sim;
use store_support::{LOGITS, open, text};

const NO_LIMIT: u64 = u64::MAX / 2;
const TOKENS: usize = 2_000;
/// Boundaries, a long one first: with rows of 12 KiB, files of 0.3 to 3 MB.
const PIECES: [usize; 12] =
    [1_000, 1_100, 1_200, 1_300, 1_400, 1_500, 1_600, 1_700, 1_712, 1_800, 1_900, TOKENS];

fn schema() -> Vec<(String, StateType)> {
    let state = |name: &str, kind, width| (name.to_string(), StateType { kind, scalar: Scalar::F32, width });
    vec![state("rows", StateKind::Entries(4), 3_072), state("ring", StateKind::Ring(16), 64)]
}

fn layout() -> Layout {
    Layout::new([7; 32], &schema(), LOGITS)
}

/// What every session holds; counts the rows that are given back to it.
#[derive(Default)]
struct Rows {
    entries: u64,
}

fn row(state: usize, row: u64) -> Vec<u8> {
    let width = u64::from(schema()[state].1.width);
    (0..width).flat_map(|i| ((state as u64 + 1) * 1_000_003 * row + i).to_le_bytes()[..4].to_vec()).collect()
}

impl StateRows for Rows {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        rows.for_each(|i| out.extend(row(state, i)));
    }

    fn write(&mut self, state: usize, rows: Range<u64>, bytes: &[u8]) {
        let size = 4 * schema()[state].1.width as usize;
        assert_eq!(bytes.len() as u64, (rows.end - rows.start) * size as u64);
        for (i, bytes) in rows.zip(bytes.chunks_exact(size)) {
            assert!(bytes == row(state, i), "state {state} row {i}");
            self.entries += u64::from(state == 0);
        }
    }
}

fn made() -> (Sim, Vec<u32>, Vec<PathBuf>) {
    let sim = Sim::default();
    let store = open(sim.clone(), NO_LIMIT).unwrap();
    let tokens = text(1, TOKENS);
    for n in PIECES {
        let logits = [n as f32; LOGITS];
        let boundary = Boundary { tokens: &tokens[..n], logits: &logits, seconds_per_token: 1.0 };
        store.commit(&store.capture(&layout(), boundary, &Rows::default()).unwrap().unwrap()).unwrap();
    }
    let mut nodes = store.list().unwrap();
    nodes.sort_by_key(|n| n.end);
    assert!(nodes.iter().map(|n| n.rows).sum::<u64>() > 6_000_000);
    let path = |n: &ds4_runtime::store::Node| PathBuf::from(format!("/store/nodes/{}.rows", n.key));
    (sim, tokens, nodes.iter().map(path).collect())
}

fn restore(store: &Store, tokens: &[u32]) -> (u64, Reason) {
    let mut rows = Rows::default();
    let restored = store.restore(&layout(), tokens, &mut rows);
    if restored.reason == Reason::Whole {
        assert_eq!(rows.entries, restored.tokens / 4);
    }
    if restored.tokens > 0 {
        assert_eq!(restored.logits, [restored.tokens as f32; LOGITS]);
    }
    (restored.tokens, restored.reason)
}

#[test]
fn a_session_in_many_files_is_restored_whole() {
    let (sim, tokens, _) = made();
    let store = open(sim, NO_LIMIT).unwrap();
    for n in PIECES {
        assert_eq!(restore(&store, &tokens[..n]), (n as u64, Reason::Whole));
    }
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}

#[test]
fn a_file_that_cannot_be_used_costs_what_stands_on_it() {
    let (original, tokens, files) = made();
    for (i, path) in files.iter().enumerate() {
        let below = if i == 0 { 0 } else { PIECES[i - 1] as u64 };
        let whole = original.bytes(path);
        let last = whole.len() - 1;
        let damages: [&dyn Fn(&Sim); 5] = [
            &|sim| drop(sim.remove(path)),
            &|sim| sim.replace(path, whole[..last].to_vec()),
            &|sim| sim.replace(path, whole[..100].to_vec()),
            &|sim| sim.replace(path, Vec::new()),
            &|sim| {
                let mut bytes = whole.clone();
                bytes[last / 2] ^= 1;
                sim.replace(path, bytes);
            },
        ];
        for (kind, damage) in damages.iter().enumerate() {
            let sim = original.reboot(None);
            let store = open(sim.clone(), NO_LIMIT).unwrap();
            damage(&sim);
            assert_eq!(restore(&store, &tokens), (below, Reason::Damaged), "file {i}, damage {kind}");
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(store.take_warnings()[0].contains(name), "file {i}, damage {kind}");
        }
    }
}

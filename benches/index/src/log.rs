//! The store's own index. Files behind it are written, not synced: only the index waits for the disk.
use crate::altered::Altered;
use crate::{Index, LONG, SHARED, STEP, layout, text};
use ds4_runtime::store::{Boundary, Node, Options, StateRows, Store};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub struct Log(pub Store);

struct Nothing;

impl StateRows for Nothing {
    fn read(&self, _: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        out.resize(out.len() + 4 * (rows.end - rows.start) as usize, 0);
    }
    fn write(&mut self, _: usize, _: Range<u64>, _: &[u8]) {}
}

fn open(folder: &Path, syncs: fn(&Path) -> bool) -> Log {
    let options = Options { budget: u64::MAX / 2, ..Options::default() };
    Log(Store::open(Arc::new(Altered::unsynced(syncs)), &folder.join("kv"), options)
        .expect("a folder of ours"))
}

impl Index for Log {
    fn open(folder: &Path) -> Log {
        open(folder, |path| path.ends_with("index"))
    }

    fn find(&self, tokens: &[u32]) -> u64 {
        self.0.find(&layout(), tokens)
    }

    fn put(&self, tokens: &[u32]) {
        let boundary = Boundary { tokens, logits: &[0.0], seconds_per_token: 1.0 };
        let capture = self.0.capture(&layout(), boundary, &Nothing).expect("a disk that works");
        self.0.commit(&capture.expect("a new boundary")).expect("a disk that works");
    }
}

/// An index of so many sessions, and the boundaries in it.
pub fn lay_down(folder: &Path, sessions: u32) -> Vec<Node> {
    let log = open(folder, |_| false);
    log.put(&text(0)[..SHARED]);
    for session in 0..sessions {
        let tokens = text(session);
        log.put(&tokens[..SHARED + STEP]);
        log.put(&tokens[..LONG]);
    }
    // As `gc` leaves it: without the history of its growth.
    log.0.gc(u64::MAX).expect("a disk that works");
    log.0.list().expect("a disk that works")
}

//! Logs: files that only grow, frame by frame. The index and the journals are logs.
//!
//! A frame is whole or it is not there. Each says how far the log was on the disk when it was
//! written, so a reader can tell damage from the unfinished tail that a crash leaves.
use super::bytes::{Put, Take, other_version};
use super::error::StoreError;
use super::key::Key;
use std::ops::Range;
use std::path::Path;
use twox_hash::XxHash3_64;

/// Bytes of a log's header.
pub const LOG_HEADER: usize = 64;
/// Longest payload of a frame.
pub const FRAME_MAX: usize = 1 << 20;
/// Longest log that is read.
pub const LOG_MAX: u64 = 1 << 30;
const FRAME_HEAD: usize = 24;
const MAGIC: [u8; 8] = *b"\x89ds4log\n";
const VERSION: u32 = 1;

/// What a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogKind {
    /// Which boundaries are stored.
    Index,
    /// The tokens of one session.
    Journal,
}

/// The header of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogHeader {
    /// What it is.
    pub kind: LogKind,
    /// Of an index, a number of its own; of a journal, the key of the session's identity and schema.
    pub id: Key,
    /// Milliseconds since 1970.
    pub created: u64,
}

impl LogHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.u32(VERSION);
        out.u32(if self.kind == LogKind::Index { 1 } else { 2 });
        out.extend(self.id.0);
        out.u64(self.created);
        out.u64(XxHash3_64::oneshot(&out));
        out
    }

    /// Reads the header at the front of a log; the error says what was expected.
    pub fn parse(bytes: &[u8], kind: LogKind) -> Result<LogHeader, String> {
        let head = bytes.get(..LOG_HEADER).ok_or("expected the 64 byte header of a log")?;
        let found = || {
            let mut take = Take(head);
            let (magic, version, code) = (take.array()?, take.u32()?, take.u32()?);
            let (id, created, sum) = (Key(take.array()?), take.u64()?, take.u64()?);
            let whole = magic == MAGIC
                && version == VERSION
                && code == if kind == LogKind::Index { 1 } else { 2 }
                && sum == XxHash3_64::oneshot(&head[..LOG_HEADER - 8]);
            whole.then_some(LogHeader { kind, id, created })
        };
        found().ok_or_else(|| format!("expected the header of a version {VERSION} {kind:?} log"))
    }

    /// The error of the file that begins with `bytes` if its header is whole and of another version.
    pub(crate) fn other_version(file: &Path, bytes: &[u8]) -> Option<StoreError> {
        other_version(file, bytes.get(..LOG_HEADER)?, MAGIC, VERSION)
    }

    fn seed(&self) -> u64 {
        u64::from_le_bytes(self.id.0[..8].try_into().expect("8 bytes")) ^ self.created
    }

    /// One frame to be written at `at`, when the first `durable` bytes of the log are on the disk.
    pub(crate) fn frame(&self, at: u64, durable: u64, tag: u32, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() <= FRAME_MAX, "{}", payload.len());
        let mut out = Vec::with_capacity(FRAME_HEAD + payload.len() + 7);
        out.u32(payload.len() as u32);
        out.u32(tag);
        out.u64(durable);
        out.u64(0);
        out.extend_from_slice(payload);
        out.resize(out.len().next_multiple_of(8), 0);
        let sum = XxHash3_64::oneshot_with_seed(self.seed() ^ at, &out);
        out[16..24].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The frame at the front of `bytes`, which lie at `at` in the log: tag, durable, payload.
    fn read<'a>(&self, bytes: &'a [u8], at: u64) -> Option<(u32, u64, &'a [u8], usize)> {
        let mut take = Take(bytes);
        let (len, tag, durable, sum) = (take.u32()? as usize, take.u32()?, take.u64()?, take.u64()?);
        let total = FRAME_HEAD + len.next_multiple_of(8);
        if len > FRAME_MAX || total > bytes.len() {
            return None;
        }
        let mut hash = XxHash3_64::with_seed(self.seed() ^ at);
        std::hash::Hasher::write(&mut hash, &bytes[..16]);
        std::hash::Hasher::write(&mut hash, &[0; 8]);
        std::hash::Hasher::write(&mut hash, &bytes[FRAME_HEAD..total]);
        (std::hash::Hasher::finish(&hash) == sum).then(|| (tag, durable, &bytes[FRAME_HEAD..][..len], total))
    }

    /// Reads the frames in `bytes`, which lie at `base` in the log.
    pub fn scan(&self, bytes: &[u8], base: u64) -> Scan {
        let mut scan = Scan { frames: Vec::new(), end: base, torn: false, damaged: false };
        let mut at = 0;
        while let Some((tag, _, payload, total)) = self.read(&bytes[at..], base + at as u64) {
            let start = at + FRAME_HEAD;
            scan.frames.push((tag, start..start + payload.len()));
            at += total;
        }
        scan.end = base + at as u64;
        scan.torn = at < bytes.len();
        scan.damaged = scan.torn && self.later_durable(&bytes[at..], scan.end) > scan.end;
        scan
    }

    /// How far the log was on the disk, by the frames behind a break.
    ///
    /// A hostile file could make every offset look like a long frame, so the work is bounded: a
    /// break too laborious to look behind counts as damage.
    fn later_durable(&self, bytes: &[u8], base: u64) -> u64 {
        let mut work = 4 * bytes.len() + FRAME_MAX;
        let mut durable = 0;
        let mut at = 0;
        while at + FRAME_HEAD <= bytes.len() {
            let claimed = Take(&bytes[at..]).u32().map_or(0, |len| len as usize);
            if claimed <= bytes.len() - at {
                match work.checked_sub(claimed) {
                    Some(left) => work = left,
                    None => return u64::MAX,
                }
            }
            match self.read(&bytes[at..], base + at as u64) {
                Some((_, d, _, total)) => (durable, at) = (durable.max(d), at + total),
                None => at += 8,
            }
        }
        durable
    }
}

/// The frames of a log or of its end.
#[derive(Debug)]
pub struct Scan {
    /// Tag and payload of each frame, as a range of the scanned bytes.
    pub frames: Vec<(u32, Range<usize>)>,
    /// Where in the log the last whole frame ends.
    pub end: u64,
    /// Something that is no frame follows.
    pub torn: bool,
    /// It was on the disk once, so it is no unfinished tail.
    pub damaged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_tail_is_not_damage_but_a_changed_byte_is() {
        let head = LogHeader { kind: LogKind::Journal, id: Key([3; 32]), created: 9 };
        let mut log = Vec::new();
        let mut starts = Vec::new();
        for i in 0..5u64 {
            let at = LOG_HEADER as u64 + log.len() as u64;
            starts.push(log.len());
            log.extend(head.frame(at, at, i as u32, &vec![i as u8; 5 * i as usize]));
        }
        let base = LOG_HEADER as u64;
        let whole = head.scan(&log, base);
        assert_eq!((whole.frames.len(), whole.torn, whole.damaged), (5, false, false));
        for cut in 0..log.len() {
            let scan = head.scan(&log[..cut], base);
            assert_eq!(scan.torn, !starts.contains(&cut), "{cut}");
            assert!(!scan.damaged, "{cut}");
        }
        for at in 0..log.len() {
            let mut bad = log.clone();
            bad[at] ^= 0x10;
            let scan = head.scan(&bad, base);
            let frame = starts.iter().rposition(|s| *s <= at).unwrap();
            assert_eq!(scan.frames.len(), frame, "{at}");
            assert_eq!(scan.damaged, frame < 4, "{at}");
        }
    }
}

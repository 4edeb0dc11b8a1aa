//! Little-endian fields in and out of byte buffers; reading past the end is `None`, never a panic.
use super::error::StoreError;
use std::path::Path;
use twox_hash::XxHash3_64;

/// Reads fields from the front of a buffer.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N).map(|b| b.try_into().expect("N bytes"))
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Option<f32> {
        self.array().map(f32::from_le_bytes)
    }
}

/// Says so if the header of a file is whole and of another version than `ours`. In every version a header
/// of these files begins with its magic and version and ends with its checksum, at the same place.
pub(crate) fn other_version(file: &Path, head: &[u8], magic: [u8; 8], ours: u32) -> Option<StoreError> {
    let (fields, sum) = head.split_at_checked(head.len().checked_sub(8)?)?;
    let mut take = Take(fields);
    let (found, version) = (take.array()?, take.u32()?);
    let whole = found == magic && Take(sum).u64()? == XxHash3_64::oneshot(fields);
    (whole && version != ours).then(|| StoreError::Version {
        file: file.to_path_buf(),
        expected: ours,
        got: version,
    })
}

/// Appends fields to a buffer.
pub(crate) trait Put {
    fn u32(&mut self, v: u32);
    fn u64(&mut self, v: u64);
}

impl Put for Vec<u8> {
    fn u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }

    fn u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
}

/// Token ids as stored: u32 little-endian.
pub(crate) fn put_tokens(out: &mut Vec<u8>, tokens: &[u32]) {
    out.extend(tokens.iter().flat_map(|t| t.to_le_bytes()));
}

/// Reads what [`put_tokens`] wrote.
pub(crate) fn tokens(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b))
}

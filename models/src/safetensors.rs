//! Headers of safetensors files.
//!
//! A file is eight bytes of header length, a JSON object, then data. [`read_header`] gives the
//! tensors with offsets from the start of the file. It reads the header only, and nothing of a
//! header is believed before it is checked: each range lies inside the file, ranges do not
//! overlap, and a range is as long as shape and type demand.
use crate::error::open_file;
use crate::{Error, Result, StoredTensor, StoredType};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::Read;
use std::path::Path;

/// Longest header taken for one, in bytes. A single file with all 145,116 tensors of Pro needs 22 MB.
pub const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Most tensors of one file.
pub const TENSORS_MAX: usize = 3 << 16;
/// Most extents of a tensor.
pub const RANK_MAX: usize = 8;

/// Reads the header of a safetensors file: tensors by name.
///
/// # Errors
/// [`Error::Io`], or [`Error::Damaged`] naming the header or the tensor.
pub fn read_header(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let (mut file, file_bytes) = open_file(path)?;
    let mut length = [0; 8];
    if file_bytes < 8 {
        return Err(Error::damaged(path, "file", "at least 8 bytes", format!("{file_bytes} bytes")));
    }
    file.read_exact(&mut length).map_err(Error::io(path))?;
    let header_bytes = u64::from_le_bytes(length);
    let limit = (file_bytes - 8).min(HEADER_BYTES_MAX);
    if limit < header_bytes {
        return Err(Error::damaged(path, "header length", format!("at most {limit}"), header_bytes));
    }
    let mut text = vec![0; header_bytes as usize];
    file.read_exact(&mut text).map_err(Error::io(path))?;
    let Header(tensors) =
        serde_json::from_slice(&text).map_err(|e| Error::damaged(path, "header", "a table of tensors", e))?;
    let data = 8 + header_bytes;
    let mut placed = BTreeMap::new();
    for (name, declared) in tensors {
        let tensor = declared
            .place(data, file_bytes)
            .map_err(|(expected, got)| Error::damaged(path, name.0.as_ref(), expected, got))?;
        placed.insert(name.0.into_owned(), tensor);
    }
    refuse_overlaps(path, &placed)?;
    Ok(placed)
}

/// Type and element size of a dtype's name.
fn dtype(name: &str) -> Option<(StoredType, u64)> {
    Some(match name {
        "F32" => (StoredType::F32, 4),
        "F16" => (StoredType::F16, 2),
        "BF16" => (StoredType::Bf16, 2),
        "I32" => (StoredType::I32, 4),
        "I64" => (StoredType::I64, 8),
        "F8_E4M3" => (StoredType::F8E4m3, 1),
        "F8_E8M0" => (StoredType::F8E8m0, 1),
        "I8" => (StoredType::I8, 1),
        "U8" => (StoredType::U8, 1),
        "BOOL" => (StoredType::Other("bool"), 1),
        "F8_E5M2" => (StoredType::Other("f8_e5m2"), 1),
        "I16" => (StoredType::Other("i16"), 2),
        "U16" => (StoredType::Other("u16"), 2),
        "U32" => (StoredType::Other("u32"), 4),
        "U64" => (StoredType::Other("u64"), 8),
        "F64" => (StoredType::Other("f64"), 8),
        "C64" => (StoredType::Other("c64"), 8),
        _ => return None,
    })
}

/// A string of the header, which it borrows: a hostile header shall cost little more than its length.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An entry of the header, unchecked.
#[derive(Deserialize)]
struct Declared<'a> {
    #[serde(borrow)]
    dtype: Text<'a>,
    shape: Shape,
    data_offsets: [u64; 2],
}

impl Declared<'_> {
    /// The tensor at its place in the file, or what was expected and found instead.
    fn place(self, data: u64, file_bytes: u64) -> std::result::Result<StoredTensor, (String, String)> {
        let name = self.dtype.0;
        let Some((ty, size)) = dtype(&name) else {
            return Err(("a known dtype".into(), name.into_owned()));
        };
        let [begin, end] = self.data_offsets;
        let available = file_bytes - data;
        if end < begin || available < end {
            let got = format!("data_offsets {begin} to {end}");
            return Err((format!("a range within the {available} bytes of data"), got));
        }
        let shape = self.shape.0;
        let needed = shape.iter().try_fold(size, |n, extent| n.checked_mul(*extent));
        if needed != Some(end - begin) {
            let needed = needed.map_or("more than 2^64".into(), |n| n.to_string());
            let expected = format!("{needed} bytes for {name}{}", crate::error::shape_text(&shape));
            return Err((expected, format!("{} bytes", end - begin)));
        }
        Ok(StoredTensor { ty, shape, offset: data + begin, bytes: end - begin })
    }
}

fn refuse_overlaps(path: &Path, tensors: &BTreeMap<String, StoredTensor>) -> Result<()> {
    let mut ranges: Vec<_> = tensors.iter().filter(|(_, t)| 0 < t.bytes).collect();
    ranges.sort_by_key(|(_, t)| t.offset);
    for pair in ranges.windows(2) {
        let [(before, a), (name, b)] = pair else { unreachable!("windows of two") };
        if b.offset < a.offset + a.bytes {
            let expected = format!("data after the end of {}", crate::error::clip(before));
            return Err(Error::damaged(path, name.as_str(), expected, "overlapping ranges"));
        }
    }
    Ok(())
}

/// The header's tensors; metadata is skipped, repeated names are refused.
struct Header<'a>(BTreeMap<Text<'a>, Declared<'a>>);

impl<'de> Deserialize<'de> for Header<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header<'de>, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    if name.0 == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if TENSORS_MAX <= tensors.len() {
                        return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors")));
                    }
                    let declared = map.next_value()?;
                    match tensors.entry(name) {
                        Entry::Vacant(place) => place.insert(declared),
                        Entry::Occupied(old) => {
                            return Err(A::Error::custom(format!("{} twice", old.key().0)));
                        }
                    };
                }
                Ok(Header(tensors))
            }
        }
        d.deserialize_map(Tensors)
    }
}

/// A shape of at most [`RANK_MAX`] extents.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Extents;
        impl<'de> Visitor<'de> for Extents {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of extents")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Shape, A::Error> {
                let mut extents = Vec::new();
                while let Some(extent) = seq.next_element()? {
                    if RANK_MAX <= extents.len() {
                        return Err(A::Error::custom(format!("more than {RANK_MAX} extents")));
                    }
                    extents.push(extent);
                }
                Ok(Shape(extents))
            }
        }
        d.deserialize_seq(Extents)
    }
}

//! The part of a GGUF before its data.
use super::source::Source;
use super::value::{ARRAY, Metadata, STRING, Value};
use super::{ALIGNMENT, MAGIC, VERSION, limits::*, types};
use crate::error::clip;
use crate::{Result, StoredTensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Metadata and tensors of one file.
#[derive(Clone, PartialEq, Debug)]
pub struct Header {
    /// Metadata by key.
    pub metadata: Metadata,
    /// Tensors by name, with offsets from the start of the file.
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// Reads the header of one file.
///
/// # Errors
/// [`crate::Error::Io`], or [`crate::Error::Damaged`] naming the key, the tensor or the count.
pub fn read_header(path: &Path) -> Result<Header> {
    let mut source = Source::open(path)?;
    let magic: [u8; 4] = source.array("magic")?;
    if magic != MAGIC {
        return Err(source.damaged("magic", "GGUF", format!("{magic:02x?}")));
    }
    let version = source.u32("version")?;
    if version != VERSION {
        let swapped = if version.swap_bytes() == VERSION { " in big-endian order" } else { "" };
        return Err(source.damaged("version", VERSION.to_string(), format!("{version}{swapped}")));
    }
    let n_tensors = source.u64("tensor count")?;
    let n_keys = source.u64("key count")?;
    for (thing, count, limit) in [("tensor count", n_tensors, TENSORS_MAX), ("key count", n_keys, KEYS_MAX)] {
        if limit < count {
            return Err(source.damaged(thing, format!("at most {limit}"), count));
        }
    }
    let metadata = read_metadata(&mut source, n_keys)?;
    let alignment = alignment(&source, &metadata)?;
    let tensors = read_tensors(&mut source, n_tensors, alignment)?;
    Ok(Header { metadata, tensors })
}

fn alignment(source: &Source, metadata: &Metadata) -> Result<u64> {
    let key = "general.alignment";
    let Some(value) = metadata.get(key) else { return Ok(ALIGNMENT) };
    match value.as_u64() {
        Some(n) if n.is_power_of_two() && (8..=ALIGNMENT_MAX).contains(&n) => Ok(n),
        _ => {
            let expected = format!("a power of two from 8 to {ALIGNMENT_MAX}");
            Err(source.damaged(
                key,
                expected,
                value.as_u64().map_or("another value".into(), |n| n.to_string()),
            ))
        }
    }
}

/// Counts the memory that values take against [`METADATA_BYTES_MAX`].
struct Budget {
    left: u64,
}

impl Budget {
    fn take(&mut self, source: &Source, thing: &str, bytes: u64) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => {
                let expected = format!("at most {METADATA_BYTES_MAX} bytes of metadata in all");
                return Err(source.damaged(thing, expected, "more"));
            }
        }
        Ok(())
    }
}

fn read_metadata(source: &mut Source, n_keys: u64) -> Result<Metadata> {
    let mut budget = Budget { left: METADATA_BYTES_MAX };
    let mut metadata = BTreeMap::new();
    for i in 0..n_keys {
        let key = source.string(&format!("key {i}"), KEY_BYTES_MAX)?;
        let number = source.u32(&key)?;
        let value = if number == ARRAY {
            read_array(source, &key, &mut budget)?
        } else {
            read_value(source, &key, number, &mut budget)?
        };
        budget.take(source, &key, 2 * key.len() as u64 + 64)?;
        if metadata.contains_key(&key) {
            return Err(source.damaged(&key, "each key once", "a second one"));
        }
        metadata.insert(key, value);
    }
    Ok(Metadata(metadata))
}

fn read_array(source: &mut Source, key: &str, budget: &mut Budget) -> Result<Value> {
    let number = source.u32(key)?;
    let size = match number {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        STRING | 10..=12 => 8,
        ARRAY => return Err(source.damaged(key, "an array of plain values", "an array of arrays")),
        _ => return Err(source.damaged(key, "a value type from 0 to 12", number)),
    };
    let count = source.u64(key)?;
    source.need(key, count, size)?;
    budget.take(source, key, count.saturating_mul(size_of::<Value>() as u64))?;
    let mut values = Vec::with_capacity(count as usize);
    for _ in 0..count {
        values.push(read_value(source, key, number, budget)?);
    }
    Ok(Value::Array(number, values))
}

fn read_value(source: &mut Source, key: &str, number: u32, budget: &mut Budget) -> Result<Value> {
    Ok(match number {
        0 => Value::U8(u8::from_le_bytes(source.array(key)?)),
        1 => Value::I8(i8::from_le_bytes(source.array(key)?)),
        2 => Value::U16(u16::from_le_bytes(source.array(key)?)),
        3 => Value::I16(i16::from_le_bytes(source.array(key)?)),
        4 => Value::U32(u32::from_le_bytes(source.array(key)?)),
        5 => Value::I32(i32::from_le_bytes(source.array(key)?)),
        6 => Value::F32(f32::from_le_bytes(source.array(key)?)),
        7 => match source.array(key)? {
            [0u8] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => return Err(source.damaged(key, "a boolean 0 or 1", other)),
        },
        STRING => {
            let text = source.string(key, budget.left)?;
            // The allocator's share of a short string is counted too.
            budget.take(source, key, text.len() as u64 + 16)?;
            Value::Str(text)
        }
        10 => Value::U64(u64::from_le_bytes(source.array(key)?)),
        11 => Value::I64(i64::from_le_bytes(source.array(key)?)),
        12 => Value::F64(f64::from_le_bytes(source.array(key)?)),
        _ => return Err(source.damaged(key, "a value type from 0 to 12", number)),
    })
}

/// A tensor description before the place of the data is known.
struct Declared {
    name: String,
    tensor: StoredTensor,
}

fn read_tensors(source: &mut Source, count: u64, alignment: u64) -> Result<BTreeMap<String, StoredTensor>> {
    let (mut declared, mut tensors) = (Vec::new(), BTreeMap::new());
    if count == 0 {
        // The file of a vocabulary alone need not be padded to where data would start.
        return Ok(tensors);
    }
    for i in 0..count {
        declared.push(read_tensor(source, i)?);
    }
    let data = source.position().next_multiple_of(alignment);
    let Some(available) = source.bytes().checked_sub(data) else {
        return Err(source.damaged("tensors", format!("data from byte {data} on"), source.bytes()));
    };
    for Declared { name, mut tensor } in declared {
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(source.damaged(&name, format!("an offset aligned to {alignment}"), tensor.offset));
        }
        if available < tensor.bytes || available - tensor.bytes < tensor.offset {
            let expected = format!("{} bytes within the {available} bytes of data", tensor.bytes);
            return Err(source.damaged(&name, expected, format!("offset {}", tensor.offset)));
        }
        tensor.offset += data;
        if tensors.contains_key(&name) {
            return Err(source.damaged(&name, "each tensor once", "a second one"));
        }
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn read_tensor(source: &mut Source, index: u64) -> Result<Declared> {
    let name = source.string(&format!("name of tensor {index}"), NAME_BYTES_MAX)?;
    let rank = source.u32(&name)?;
    if !(1..=RANK_MAX).contains(&rank) {
        return Err(source.damaged(&name, format!("1 to {RANK_MAX} dimensions"), rank));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        shape.push(source.u64(&name)?);
    }
    let number = source.u32(&name)?;
    let offset = source.u64(&name)?;
    let Some((ty, elements, block_bytes)) = types::by_number(number) else {
        return Err(source.damaged(&name, "a known tensor type", number));
    };
    // The file has the innermost extent first; its rows are whole blocks.
    if !shape[0].is_multiple_of(elements) {
        let expected = format!("rows of whole {ty} blocks of {elements}");
        return Err(source.damaged(&name, expected, format!("rows of {}", shape[0])));
    }
    let blocks = shape.iter().skip(1).try_fold(shape[0] / elements, |n, extent| n.checked_mul(*extent));
    let Some(bytes) = blocks.and_then(|n| n.checked_mul(block_bytes)) else {
        let got = clip(crate::error::shape_text(&shape));
        return Err(source.damaged(&name, "fewer than 2^64 bytes", got));
    };
    shape.reverse();
    Ok(Declared { name, tensor: StoredTensor { ty, shape, offset, bytes } })
}

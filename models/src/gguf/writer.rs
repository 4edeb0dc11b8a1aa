//! Writes the part of a GGUF before its data.
use super::{ALIGNMENT, MAGIC, VERSION, Value, types};
use crate::StoredType;

/// A tensor to be described in a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Name with its ending.
    pub name: String,
    /// Element type, one that GGUF has.
    pub ty: StoredType,
    /// Extents, outermost first; rows are whole blocks.
    pub shape: Vec<u64>,
    /// First byte, from the start of the data section; aligned. Tensors may share bytes.
    pub offset: u64,
}

/// Bytes of a tensor's data.
///
/// # Panics
/// If GGUF has no such type or rows are not whole blocks.
pub fn tensor_bytes(ty: StoredType, shape: &[u64]) -> u64 {
    let (_, elements, bytes) = types::number_of(ty).unwrap_or_else(|| panic!("{ty} in a GGUF"));
    let (width, outer) = shape.split_last().expect("a tensor has extents");
    assert!(width.is_multiple_of(elements), "rows of {width} as {ty}");
    width / elements * bytes * outer.iter().product::<u64>()
}

/// `position` or the next aligned one, under the alignment of the metadata.
pub fn aligned(metadata: &[(String, Value)], position: u64) -> u64 {
    let value = metadata.iter().find(|(key, _)| key == "general.alignment");
    let alignment = value.and_then(|(_, v)| v.as_u64()).unwrap_or(ALIGNMENT);
    position.next_multiple_of(alignment)
}

/// A whole header, padded to where the data starts.
///
/// # Panics
/// If an offset is not aligned, or as [`tensor_bytes`].
pub fn header_bytes(metadata: &[(String, Value)], tensors: &[TensorInfo]) -> Vec<u8> {
    let mut out = Vec::from(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        push_string(&mut out, key);
        out.extend(value.number().to_le_bytes());
        push_value(&mut out, value);
    }
    for tensor in tensors {
        assert_eq!(aligned(metadata, tensor.offset), tensor.offset, "{}", tensor.name);
        let (number, _, _) = types::number_of(tensor.ty).unwrap_or_else(|| panic!("{}", tensor.ty));
        push_string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for extent in tensor.shape.iter().rev() {
            out.extend(extent.to_le_bytes());
        }
        out.extend(number.to_le_bytes());
        out.extend(tensor.offset.to_le_bytes());
    }
    out.resize(aligned(metadata, out.len() as u64) as usize, 0);
    out
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn push_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.extend(n.to_le_bytes()),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::Str(text) => push_string(out, text),
        Value::Array(number, values) => {
            out.extend(number.to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            for value in values {
                assert_eq!(value.number(), *number, "arrays have one type");
                push_value(out, value);
            }
        }
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
    }
}

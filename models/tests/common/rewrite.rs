//! Rewrites a model as GGUF, as DwarfStar's and llama.cpp's tools would name it.
use crate::common::entry_bytes;
use ds4_models::gguf::{self, TensorInfo, Value, aligned, tensor_bytes};
use ds4_models::{Checkpoint, Content, Place, StoredType, Tensor, mtp_tensors, tensors};
use std::path::{Path, PathBuf};

/// Whose names a file has.
#[allow(dead_code, reason = "not every test writes both")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Names {
    DwarfStar,
    LlamaCpp,
}

/// A tensor to be written.
#[derive(Clone)]
pub(crate) struct Written {
    /// The project's name.
    pub(crate) of: String,
    pub(crate) name: String,
    pub(crate) ty: StoredType,
    pub(crate) shape: Vec<u64>,
    pub(crate) data: Vec<u8>,
}

/// All tensors of a model as F32, or as Q8_0 where `q8` is set and the rows are multiples of 32.
pub(crate) fn convert(checkpoint: &Checkpoint, names: Names, q8: bool) -> Vec<Written> {
    let config = checkpoint.config();
    let mut all = tensors(config);
    (0..checkpoint.mtp_blocks()).for_each(|j| all.extend(mtp_tensors(config, j)));
    let convert = |tensor: &Tensor| {
        let name = gguf_name(tensor, config.num_hidden_layers, names)?;
        let shape: Vec<u64> = tensor.shape.iter().map(|n| u64::from(*n)).collect();
        let (ty, data) = if tensor.content() == Content::Ids {
            (StoredType::I32, ids(checkpoint, &tensor.name))
        } else {
            let values = values(checkpoint, &tensor.name);
            let blocks = q8 && 1 < shape.len() && shape[shape.len() - 1].is_multiple_of(32);
            match blocks {
                true => (StoredType::Q8_0, values.chunks(32).flat_map(q8_0).collect()),
                false => (StoredType::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            }
        };
        Some(Written { of: tensor.name.clone(), name, ty, shape, data })
    };
    let mut written: Vec<Written> = all.iter().filter_map(convert).collect();
    if names == Names::LlamaCpp {
        join_projections(&mut written);
    }
    written
}

fn gguf_name(tensor: &Tensor, layers: u32, names: Names) -> Option<String> {
    let end = if tensor.name.ends_with("exp_probs_b") { "bias" } else { "weight" };
    let Place::Mtp(j) = tensor.place else { return Some(format!("{}.{end}", tensor.name)) };
    let leaf = tensor.name.strip_prefix(&format!("mtp.{j}.")).unwrap();
    let leaf = match (names, leaf) {
        (Names::DwarfStar, _) => return Some(format!("{}.{end}", tensor.name)),
        (_, leaf) if leaf.starts_with("hc_head") => return None,
        (_, "enorm") => "nextn.enorm",
        (_, "hnorm") => "nextn.hnorm",
        (_, "norm") => "nextn.shared_head_norm",
        (_, leaf) => leaf,
    };
    Some(format!("blk.{}.{leaf}.{end}", layers + j))
}

/// Puts the rows of `e_proj` and `h_proj` side by side.
fn join_projections(written: &mut Vec<Written>) {
    let mut take = |leaf: &str| {
        let at = written.iter().position(|w| w.of == format!("mtp.0.{leaf}"))?;
        Some(written.remove(at))
    };
    let (Some(e), Some(h)) = (take("e_proj"), take("h_proj")) else { return };
    let row = e.data.len() / e.shape[0] as usize;
    let rows = e.data.chunks(row).zip(h.data.chunks(row));
    let data = rows.flat_map(|(a, b)| [a, b].concat()).collect();
    let name = e.name.replace("e_proj", "nextn.eh_proj");
    written.push(Written { name, shape: vec![e.shape[0], 2 * e.shape[1]], data, ..e });
}

/// Writes tensors into one file per slice of `parts`; several name one another.
pub(crate) fn write(
    folder: &Path,
    stem: &str,
    metadata: &[(String, Value)],
    parts: &[&[Written]],
) -> PathBuf {
    let mut first = None;
    for (i, tensors) in parts.iter().enumerate() {
        let mut keys = if i == 0 { metadata.to_vec() } else { Vec::new() };
        let mut name = format!("{stem}.gguf");
        if 1 < parts.len() {
            name = format!("{stem}-{:05}-of-{:05}.gguf", i + 1, parts.len());
            keys.push(("split.no".into(), Value::U16(i as u16)));
            keys.push(("split.count".into(), Value::U16(parts.len() as u16)));
        }
        let path = folder.join(name);
        std::fs::write(&path, file_bytes(&keys, tensors)).unwrap();
        first.get_or_insert(path);
    }
    first.unwrap()
}

pub(crate) fn file_bytes(metadata: &[(String, Value)], tensors: &[Written]) -> Vec<u8> {
    let (mut infos, mut end) = (Vec::new(), 0);
    for t in tensors {
        assert_eq!(tensor_bytes(t.ty, &t.shape), t.data.len() as u64, "{}", t.name);
        let offset = aligned(metadata, end);
        infos.push(TensorInfo { name: t.name.clone(), ty: t.ty, shape: t.shape.clone(), offset });
        end = offset + t.data.len() as u64;
    }
    let mut bytes = gguf::header_bytes(metadata, &infos);
    let data = bytes.len();
    for (t, info) in tensors.iter().zip(&infos) {
        bytes.resize(data + info.offset as usize, 0);
        bytes.extend(&t.data);
    }
    bytes
}

fn ids(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let entry = checkpoint.weight(name).unwrap();
    let [codes, _] = entry_bytes(checkpoint, &entry);
    let size = entry.ty.scalar.row_bytes(1);
    codes.chunks_exact(size).flat_map(|b| b[..4].to_vec()).collect()
}

/// A weight's numbers, decoded by the rules of spec 4.4.
fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let entry = checkpoint.weight(name).unwrap();
    let [codes, scales] = entry_bytes(checkpoint, &entry);
    let dims = entry.ty.constants().unwrap();
    let width = *dims.last().unwrap() as usize;
    let rows = dims[..dims.len() - 1].last().map_or(1, |n| *n as usize);
    let power = |b: u8| 2f32.powi(i32::from(b) - 127);
    match entry.ty.scalar.to_string().as_str() {
        "f32" => codes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        "bf16" => codes.chunks_exact(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect(),
        "fp8" => {
            let (across, down) = (width.div_ceil(128), rows.div_ceil(128));
            let at = |i: usize| {
                let (matrix, row, column) = (i / width / rows, i / width % rows, i % width);
                power(scales[(matrix * down + row / 128) * across + column / 128])
            };
            codes.iter().enumerate().map(|(i, c)| e4m3(*c) * at(i)).collect()
        }
        "fp4" => {
            let nibbles = codes.iter().flat_map(|b| [b & 15, b >> 4]);
            nibbles.enumerate().map(|(i, c)| e2m1(c) * power(scales[i / 32])).collect()
        }
        _ => {
            let mut all = vec![0f32; codes.len() / entry.ty.scalar.row_bytes(width) * width];
            let encoded = codes.chunks_exact(entry.ty.scalar.row_bytes(width));
            all.chunks_exact_mut(width).zip(encoded).for_each(|(row, bytes)| {
                ds4_ir::formats::decode_row(entry.ty.scalar, bytes, row);
            });
            all
        }
    }
}

fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match exponent {
        0 => mantissa * 2f32.powi(-9),
        e => (1.0 + mantissa / 8.0) * 2f32.powi(e - 7),
    };
    if code < 128 { magnitude } else { -magnitude }
}

fn e2m1(code: u8) -> f32 {
    let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(code & 7)];
    if code < 8 { magnitude } else { -magnitude }
}

/// One Q8_0 block whose scale is a power of two, so that f16 holds it exactly.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let largest = values.iter().fold(0f32, |a, x| a.max(x.abs()));
    let exponent = if largest == 0.0 { -14 } else { ((largest / 127.0).log2().ceil() as i32).clamp(-14, 15) };
    let mut block = (((exponent + 15) as u16) << 10).to_le_bytes().to_vec();
    block.extend(values.iter().map(|x| (x / 2f32.powi(exponent)).round().clamp(-127.0, 127.0) as i8 as u8));
    block
}

//! From the project's name of a weight to the bytes of a file.
use super::Checkpoint;
use crate::error::{clip, shape_text};
use crate::{Container, Content, Error, Result, StoredTensor, StoredType, Tensor};
use ds4_ir::{Layout, Part, Role, Scalar, TensorType, WeightEntry};

/// A stored tensor and what the file calls it.
pub(super) struct Found<'a> {
    name: String,
    file: u32,
    tensor: &'a StoredTensor,
}

/// One matrix or vector: its type, its codes, and the scales that lie apart.
struct Piece {
    scalar: Scalar,
    codes: Part,
    scales: Option<Part>,
}

impl Checkpoint {
    /// The first of several spellings that a file has.
    pub(super) fn find(&self, spellings: &[String]) -> Option<Found<'_>> {
        let held = |name: &String| {
            let (file, tensor) = self.stored.get(name)?;
            Some(Found { name: name.clone(), file: *file, tensor })
        };
        spellings.iter().find_map(held)
    }

    pub(super) fn resolve(&self, tensor: &Tensor) -> Result<WeightEntry> {
        let found = self.find(&tensor.spellings(self.container));
        let (scalar, parts) = match (found, tensor.content()) {
            (Some(found), Content::Experts) => self.stacked(tensor, &found, 0, 1)?,
            (Some(found), content) => {
                let piece = self.piece(&found, content, &tensor.shape)?;
                (piece.scalar, [Some(piece.codes), piece.scales].into_iter().flatten().collect())
            }
            (None, Content::Experts) if self.container == Container::Safetensors => self.experts(tensor)?,
            (None, _) => return Err(self.missing(tensor)),
        };
        let ty = TensorType::fixed(scalar, &tensor.shape);
        Ok(WeightEntry { name: tensor.name.clone(), ty, layout: Layout::AsStored, parts })
    }

    /// Experts in one tensor per layer, or one by one.
    fn experts(&self, tensor: &Tensor) -> Result<(Scalar, Vec<Part>)> {
        if let Some((names, index, count)) = tensor.fused_spellings()
            && let Some(found) = self.find(&names)
        {
            return self.stacked(tensor, &found, index, count);
        }
        let (experts, shape) = (tensor.shape[0], &tensor.shape[1..]);
        let mut scalar = None;
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for e in 0..experts {
            let names = tensor.expert_spellings(e);
            let found = self.find(&names).ok_or_else(|| missing(&tensor.name, &names, shape))?;
            let piece = self.piece(&found, Content::Matrix, shape)?;
            if *scalar.get_or_insert(piece.scalar) != piece.scalar {
                let expected = format!("{} as expert 0", scalar.expect("set above"));
                return Err(Error::WrongType { tensor: found.name, expected, got: piece.scalar.to_string() });
            }
            codes.push(piece.codes);
            scales.extend(piece.scales);
        }
        let scalar = scalar.expect("a configuration has at least one expert");
        let mut parts = merge(codes);
        parts.extend(merge(scales));
        Ok((scalar, parts))
    }

    /// All experts in one tensor `[E, count·out, in]`, ours at row `index·out` of each.
    fn stacked(
        &self,
        tensor: &Tensor,
        found: &Found<'_>,
        index: u32,
        count: u32,
    ) -> Result<(Scalar, Vec<Part>)> {
        let [experts, rows, width] = tensor.shape[..] else { unreachable!("experts have rank 3") };
        let scalar = match plain_scalar(found.tensor.ty) {
            Some(scalar) if scalar.is_real() => scalar,
            _ => return Err(wrong_type(found, Content::Experts)),
        };
        check_shape(found, &[experts, count * rows, width])?;
        let bytes = u64::from(rows) * scalar.row_bytes(width as usize) as u64;
        let stride = u64::from(count) * bytes;
        assert_eq!(stride * u64::from(experts), found.tensor.bytes, "{}", found.name);
        let offset = found.tensor.offset + u64::from(index) * bytes;
        let part = Part { role: Role::Codes, file: found.file, offset, bytes, stride, count: experts };
        Ok((scalar, vec![part]))
    }

    /// A stored tensor as a matrix, vector or id table of the given shape.
    fn piece(&self, found: &Found<'_>, content: Content, shape: &[u32]) -> Result<Piece> {
        let packed = match found.tensor.ty {
            StoredType::F8E4m3 => Some(Scalar::Fp8),
            StoredType::I8 | StoredType::U8 => Some(Scalar::Fp4),
            _ => None,
        };
        if let (Some(scalar), Content::Matrix, [rows, width]) = (packed, content, shape) {
            return self.scaled(found, scalar, *rows, *width);
        }
        let scalar = match (plain_scalar(found.tensor.ty), content) {
            (Some(scalar), Content::Ids) if !scalar.is_real() => scalar,
            (Some(scalar), Content::Vector) if scalar.is_real() && scalar.block() == 1 => scalar,
            (Some(scalar), Content::Matrix) if scalar.is_real() => scalar,
            _ => return Err(wrong_type(found, content)),
        };
        check_shape(found, shape)?;
        let (width, outer) = shape.split_last().expect("no tensor has rank 0");
        let rows: u64 = outer.iter().map(|n| u64::from(*n)).product();
        assert_eq!(rows * scalar.row_bytes(*width as usize) as u64, found.tensor.bytes, "{}", found.name);
        Ok(Piece { scalar, codes: range(found, Role::Codes), scales: None })
    }

    /// An FP8 or FP4 matrix and its scales (spec 4.1).
    fn scaled(&self, found: &Found<'_>, scalar: Scalar, rows: u32, width: u32) -> Result<Piece> {
        check_shape(found, &[rows, scalar.row_bytes(width as usize) as u32])?;
        let scale_shape =
            scalar.scale_shape(rows as usize, width as usize).expect("packed formats have scales");
        let scale_shape = scale_shape.map(|n| n as u32);
        let stem = found.name.strip_suffix(".weight").unwrap_or(&found.name);
        let names = ["scale", "weight_scale_inv", "weight_scale"].map(|end| format!("{stem}.{end}"));
        let Some(scale) = self.find(&names) else {
            return Err(missing(&found.name, &names, &scale_shape));
        };
        if !matches!(scale.tensor.ty, StoredType::F8E8m0 | StoredType::U8) {
            let (expected, got) = ("f8_e8m0".to_owned(), scale.tensor.ty.to_string());
            return Err(Error::WrongType { tensor: scale.name, expected, got });
        }
        check_shape(&scale, &scale_shape)?;
        let (codes, scales) = (range(found, Role::Codes), Some(range(&scale, Role::Scales)));
        Ok(Piece { scalar, codes, scales })
    }

    fn missing(&self, tensor: &Tensor) -> Error {
        if let Some(both) = tensor.side_by_side()
            && self.stored.contains_key(&both)
        {
            let why = format!("expected a tensor of its own, got columns of {both}");
            return Error::Unsupported { thing: tensor.name.clone(), why };
        }
        let error = missing(&tensor.name, &tensor.spellings(self.container), &tensor.shape);
        match error {
            Error::Missing { tensor, expected } => {
                let expected = format!("{expected} in {}", self.path.display());
                Error::Missing { tensor, expected }
            }
            other => other,
        }
    }
}

/// The element type of tensors whose bytes are complete in themselves.
fn plain_scalar(ty: StoredType) -> Option<Scalar> {
    Some(match ty {
        StoredType::F32 => Scalar::F32,
        StoredType::F16 => Scalar::F16,
        StoredType::Bf16 => Scalar::Bf16,
        StoredType::I32 => Scalar::I32,
        StoredType::I64 => Scalar::I64,
        StoredType::Q8_0 => Scalar::Q8_0,
        StoredType::Q4K => Scalar::Q4K,
        StoredType::Q2K => Scalar::Q2K,
        StoredType::Iq2Xxs => Scalar::Iq2Xxs,
        StoredType::Mxfp4 => Scalar::Mxfp4,
        _ => return None,
    })
}

fn range(found: &Found<'_>, role: Role) -> Part {
    let StoredTensor { offset, bytes, .. } = *found.tensor;
    Part { role, file: found.file, offset, bytes, stride: bytes, count: 1 }
}

fn check_shape(found: &Found<'_>, expected: &[u32]) -> Result<()> {
    let same = expected.iter().map(|n| u64::from(*n)).eq(found.tensor.shape.iter().copied());
    if same {
        return Ok(());
    }
    let (expected, got) = (shape_text(expected), shape_text(&found.tensor.shape));
    Err(Error::Misshapen { tensor: clip(&found.name), expected, got })
}

fn wrong_type(found: &Found<'_>, content: Content) -> Error {
    let expected = match content {
        Content::Vector => "f32, f16 or bf16",
        Content::Ids => "i32 or i64",
        Content::Experts => "f32, f16, bf16, q8_0, q4_k, q2_k, iq2_xxs or mxfp4",
        Content::Matrix => "f32, f16, bf16, q8_0, q4_k, q2_k, iq2_xxs, mxfp4, or f8_e4m3 or i8 with scales",
    };
    Error::WrongType {
        tensor: clip(&found.name),
        expected: expected.into(),
        got: found.tensor.ty.to_string(),
    }
}

fn missing(tensor: &str, spellings: &[String], shape: &[u32]) -> Error {
    let expected = format!("{} {}", spellings[0], shape_text(shape));
    Error::Missing { tensor: tensor.to_owned(), expected }
}

/// Joins single ranges that lie in one file at equal distances into strided parts. The order of
/// ranges is kept.
fn merge(ranges: Vec<Part>) -> Vec<Part> {
    let mut merged: Vec<Part> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if extends(last, &range) => {
                if last.count == 1 {
                    last.stride = range.offset - last.offset;
                }
                last.count += 1;
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether `next` lies where the range after the last one of `part` would.
fn extends(part: &Part, next: &Part) -> bool {
    let gap = next.offset.checked_sub(part.offset);
    let regular = match part.count {
        1 => gap.is_some_and(|gap| part.bytes <= gap),
        n => gap == Some(part.stride * u64::from(n)),
    };
    regular && part.file == next.file && part.bytes == next.bytes && part.role == next.role
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(offsets: &[u64]) -> Vec<Part> {
        let part = |offset: &u64| Part {
            role: Role::Codes,
            file: 0,
            offset: *offset,
            bytes: 10,
            stride: 10,
            count: 1,
        };
        offsets.iter().map(part).collect()
    }

    #[test]
    fn regular_experts_become_one_part() {
        let merged = merge(ranges(&[100, 130, 160, 190]));
        assert_eq!(merged.len(), 1);
        assert_eq!((merged[0].offset, merged[0].stride, merged[0].count), (100, 30, 4));
    }

    #[test]
    fn irregular_experts_keep_their_order() {
        let merged = merge(ranges(&[100, 50, 60, 75, 90, 105]));
        let spans: Vec<_> = merged.iter().map(|p| (p.offset, p.stride, p.count)).collect();
        assert_eq!(spans, [(100, 10, 1), (50, 10, 2), (75, 15, 3)]);
    }

    #[test]
    fn shared_experts_stay_apart() {
        let merged = merge(ranges(&[100, 100, 100]));
        assert_eq!(merged.len(), 3);
        assert!(merged.iter().all(|p| p.offset == 100 && p.count == 1));
    }
}

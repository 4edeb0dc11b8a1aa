//! The element types of GGUF and the sizes of their blocks.
use crate::StoredType;

/// A type's number, what it is, elements per block, bytes per block (spec 4.4 for those that ds4
/// computes with).
type Row = (u32, StoredType, u64, u64);

#[rustfmt::skip]
const TYPES: &[Row] = &[
    (0, StoredType::F32, 1, 4),
    (1, StoredType::F16, 1, 2),
    (2, StoredType::Other("q4_0"), 32, 18),
    (3, StoredType::Other("q4_1"), 32, 20),
    (6, StoredType::Other("q5_0"), 32, 22),
    (7, StoredType::Other("q5_1"), 32, 24),
    (8, StoredType::Q8_0, 32, 34),
    (10, StoredType::Q2K, 256, 84),
    (11, StoredType::Other("q3_k"), 256, 110),
    (12, StoredType::Q4K, 256, 144),
    (13, StoredType::Other("q5_k"), 256, 176),
    (14, StoredType::Other("q6_k"), 256, 210),
    (15, StoredType::Other("q8_k"), 256, 292),
    (16, StoredType::Iq2Xxs, 256, 66),
    (17, StoredType::Other("iq2_xs"), 256, 74),
    (18, StoredType::Other("iq3_xxs"), 256, 98),
    (19, StoredType::Other("iq1_s"), 256, 50),
    (20, StoredType::Other("iq4_nl"), 32, 18),
    (21, StoredType::Other("iq3_s"), 256, 110),
    (22, StoredType::Other("iq2_s"), 256, 82),
    (23, StoredType::Other("iq4_xs"), 256, 136),
    (24, StoredType::Other("i8"), 1, 1),
    (25, StoredType::Other("i16"), 1, 2),
    (26, StoredType::I32, 1, 4),
    (27, StoredType::I64, 1, 8),
    (28, StoredType::Other("f64"), 1, 8),
    (29, StoredType::Other("iq1_m"), 256, 56),
    (30, StoredType::Bf16, 1, 2),
    (34, StoredType::Other("tq1_0"), 256, 54),
    (35, StoredType::Other("tq2_0"), 256, 66),
    (39, StoredType::Mxfp4, 32, 17),
];

/// A type, its block's elements and its block's bytes, by number.
pub(super) fn by_number(number: u32) -> Option<(StoredType, u64, u64)> {
    TYPES.iter().find(|row| row.0 == number).map(|(_, ty, elements, bytes)| (*ty, *elements, *bytes))
}

/// A type's number, its block's elements and its block's bytes; `None` if GGUF has no such type.
pub(super) fn number_of(ty: StoredType) -> Option<(u32, u64, u64)> {
    TYPES.iter().find(|row| row.1 == ty).map(|(number, _, elements, bytes)| (*number, *elements, *bytes))
}

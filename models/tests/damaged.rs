//! Damaged weight files: a clear error each, quickly and without much memory.
//!
//! One test, so that what is allocated while a reader runs is the reader's.
mod common;

use ds4_models::{Checkpoint, gguf, safetensors};
use peak_alloc::PeakAlloc;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Counts what is allocated, now and at most.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Most memory that a reader may take for a damaged file, in bytes.
const HEAP_MAX: usize = 64 << 20;

/// The error of opening a file, which comes within a second and within [`HEAP_MAX`].
fn refused(path: &Path, open: fn(&Path) -> String) -> String {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let start = Instant::now();
    let error = open(path);
    let (taken, time) = (HEAP.peak_usage() - before, start.elapsed());
    assert!(taken < HEAP_MAX, "{taken} bytes for: {error}");
    assert!(time < Duration::from_secs(1), "{time:?} for: {error}");
    error
}

/// Writes the bytes, opens them, and compares the error's text after the path.
fn check(folder: &Path, file: &str, bytes: &[u8], expected: &str, open: fn(&Path) -> String) {
    let path = folder.join(file);
    fs::write(&path, bytes).unwrap();
    let error = refused(&path, open).replace(&format!("{}: ", path.display()), "");
    assert!(error.contains(expected), "got      {error}\nexpected {expected}");
    assert!(error.len() < 500, "{error}");
}

/// A safetensors file with this header and so many bytes of data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
}

fn safetensors_cases() -> Vec<(Vec<u8>, &'static str)> {
    let good = r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}"#;
    let many = |n: usize| {
        let entry = |i| format!(r#""{i}": {{"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}"#);
        format!("{{{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","))
    };
    let mut last_is_bad = many((3 << 16) - 1);
    last_is_bad.pop();
    last_is_bad += r#", "z": {"dtype": "F4", "shape": [0], "data_offsets": [0, 0]}}"#;
    vec![
        (vec![], "file: expected at least 8 bytes, got 0 bytes"),
        (vec![1, 2, 3], "file: expected at least 8 bytes, got 3 bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "header length: expected at most 0, got 18446744073709551615"),
        ((1u64 << 63).to_le_bytes().repeat(4), "header length: expected at most 24, got 9223372036854775808"),
        (100u64.to_le_bytes().repeat(3), "header length: expected at most 16, got 100"),
        (with_header("", 0), "header: expected a table of tensors, got EOF"),
        (with_header("garbage", 0), "header: expected a table of tensors"),
        (with_header("\u{0}\u{0}\u{0}", 0), "header: expected a table of tensors"),
        (with_header("[]", 0), "header: expected a table of tensors, got invalid type"),
        (with_header("{\"a\": 3}", 8), "header: expected a table of tensors, got invalid type"),
        (with_header(&"[".repeat(1 << 20), 8), "header: expected a table of tensors"),
        (with_header(&one("F32", "[2]", "[0, 8]")[..40], 8), "header: expected a table of tensors, got EOF"),
        (with_header(r#"{"a": {"dtype": "F32", "shape": [2]}}"#, 8), "missing field `data_offsets`"),
        (with_header(&format!(r#"{{"a": {good}, "a": {good}}}"#), 8), "a twice"),
        (with_header(&one("F4", "[2]", "[0, 8]"), 8), "a: expected a known dtype, got F4"),
        (with_header(&one("F32", "[3]", "[0, 8]"), 8), "a: expected 12 bytes for F32[3], got 8 bytes"),
        (with_header(&one("F32", "[2]", "[8, 0]"), 8), "within the 8 bytes of data, got data_offsets 8 to 0"),
        (
            with_header(&one("F32", "[2]", "[4, 12]"), 8),
            "within the 8 bytes of data, got data_offsets 4 to 12",
        ),
        (with_header(&one("F32", "[-2]", "[0, 8]"), 8), "invalid value: integer `-2`"),
        (with_header(&one("F32", "[2.0]", "[0, 8]"), 8), "invalid type: floating point"),
        (
            with_header(&one("F32", "[2]", "[0, 8, 9]"), 8),
            "header: expected a table of tensors, got trailing characters",
        ),
        (
            with_header(&one("F32", "[4294967296, 4294967296, 2]", "[0, 8]"), 8),
            "a: expected more than 2^64 bytes for F32[4294967296, 4294967296, 2], got 8 bytes",
        ),
        (with_header(&one("F32", "[1,1,1,1,1,1,1,1,2]", "[0, 8]"), 8), "more than 8 extents"),
        (
            with_header(&one("F32", &format!("[{}]", "1,".repeat(1 << 20)), "[0, 8]"), 8),
            "more than 8 extents",
        ),
        (
            with_header(&format!(r#"{{"b": {good}, "c": {good}}}"#), 8),
            "c: expected data after the end of b, got overlapping ranges",
        ),
        (with_header(&many((3 << 16) + 1), 0), "more than 196608 tensors"),
        (with_header(&last_is_bad, 0), "z: expected a known dtype, got F4"),
    ]
}

fn text(t: &str) -> Vec<u8> {
    [&(t.len() as u64).to_le_bytes(), t.as_bytes()].concat()
}

/// A metadata entry.
fn key(name: &str, ty: u32, value: &[u8]) -> Vec<u8> {
    [&text(name), &ty.to_le_bytes()[..], value].concat()
}

/// An array value: type, count, the rest.
fn array(ty: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&ty.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

/// A tensor description.
fn tensor(name: &str, dims: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|n| n.to_le_bytes()).collect();
    let rank = (dims.len() as u32).to_le_bytes();
    [&text(name), &rank[..], &dims_bytes, &ty.to_le_bytes(), &offset.to_le_bytes()].concat()
}

/// A file with these entries, padded to 32, and 64 bytes of data.
fn gguf_file(keys: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut out = start(3, tensors.len() as u64, keys.len() as u64);
    keys.iter().chain(tensors).for_each(|part| out.extend(part));
    out.resize(out.len().next_multiple_of(32) + 64, 0);
    out
}

fn start(version: u32, tensors: u64, keys: u64) -> Vec<u8> {
    [b"GGUF", &version.to_le_bytes()[..], &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
}

fn metadata_cases() -> Vec<(Vec<u8>, &'static str)> {
    let with = |value: Vec<u8>| gguf_file(&[value], &[]);
    let long = |length: u64| [start(3, 0, 1), length.to_le_bytes().to_vec(), vec![b'k'; 100]].concat();
    let strings = text("").repeat(1 << 21);
    vec![
        (vec![], "magic: expected 1 times 4 bytes, got 0 before the end of the file"),
        (b"GGU".to_vec(), "magic: expected 1 times 4 bytes, got 3"),
        (b"GGML0000000000000000000000".to_vec(), "magic: expected GGUF, got [47, 47, 4d, 4c]"),
        (start(2, 0, 0), "version: expected 3, got 2"),
        (start(3 << 24, 0, 0), "version: expected 3, got 50331648 in big-endian order"),
        (start(3, u64::MAX, 0), "tensor count: expected at most 65536, got 18446744073709551615"),
        (start(3, 0, 1 << 40), "key count: expected at most 16384, got 1099511627776"),
        (start(3, 0, 1), "key 0: expected 1 times 8 bytes, got 0"),
        (start(3, 1, 0), "name of tensor 0: expected 1 times 8 bytes, got 0"),
        (long(1 << 63), "key 0: expected a string of at most 1024 bytes, got 9223372036854775808"),
        (long(1000), "key 0: expected 1000 times 1 bytes, got 100 before the end"),
        (with(key("k", 13, &[0; 8])), "k: expected a value type from 0 to 12, got 13"),
        (with(key("k", 7, &[2])), "k: expected a boolean 0 or 1, got 2"),
        (
            with(key("k", 8, &(1u64 << 63).to_le_bytes())),
            "k: expected a string of at most 41943040 bytes, got 9223372036854775808",
        ),
        (with(key("k", 8, &40_000_000u64.to_le_bytes())), "k: expected 40000000 times 1 bytes, got"),
        (with(key("k", 8, &[&3u64.to_le_bytes()[..], &[0xff; 3]].concat())), "k: expected UTF-8"),
        (
            with(key("k", 9, &array(9, 1, &array(4, 0, &[])))),
            "k: expected an array of plain values, got an array of arrays",
        ),
        (with(key("k", 9, &array(77, 1, &[]))), "k: expected a value type from 0 to 12, got 77"),
        (with(key("k", 9, &array(0, u64::MAX, &[]))), "k: expected 18446744073709551615 times 1 bytes"),
        (with(key("k", 9, &array(8, 1 << 61, &[]))), "k: expected 2305843009213693952 times 8 bytes"),
        (
            with(key("k", 9, &array(0, 1 << 22, &vec![0; 1 << 22]))),
            "k: expected at most 41943040 bytes of metadata in all",
        ),
        (
            with(key("k", 9, &array(8, 1 << 21, &strings))),
            "k: expected at most 41943040 bytes of metadata in all",
        ),
        (
            gguf_file(&[key("k", 0, &[1]), key("k", 0, &[1])], &[]),
            "k: expected each key once, got a second one",
        ),
    ]
}

fn tensor_cases() -> Vec<(Vec<u8>, &'static str)> {
    let aligned =
        |ty: u32, value: &[u8]| gguf_file(&[key("general.alignment", ty, value)], &[tensor("a", &[4], 0, 0)]);
    let with = |tensors: &[Vec<u8>]| gguf_file(&[], tensors);
    let a = tensor("a", &[16], 0, 0);
    let mut truncated = with(std::slice::from_ref(&a));
    truncated.truncate(truncated.len() - 1);
    let without_data = with(&[tensor("a", &[32, 0], 0, 0)])[..95].to_vec();
    vec![
        (aligned(4, &[0; 4]), "general.alignment: expected a power of two from 8 to 65536, got 0"),
        (aligned(4, &[24, 0, 0, 0]), "general.alignment: expected a power of two from 8 to 65536, got 24"),
        (
            aligned(4, &[0, 0, 0, 128]),
            "general.alignment: expected a power of two from 8 to 65536, got 2147483648",
        ),
        (
            aligned(8, &text("32")),
            "general.alignment: expected a power of two from 8 to 65536, got another value",
        ),
        (with(&[tensor("a", &[], 0, 0)]), "a: expected 1 to 4 dimensions, got 0"),
        (with(&[tensor("a", &[1; 9], 0, 0)]), "a: expected 1 to 4 dimensions, got 9"),
        (
            with(&[[text("a"), u32::MAX.to_le_bytes().to_vec()].concat()]),
            "a: expected 1 to 4 dimensions, got 4294967295",
        ),
        (with(&[tensor("a", &[16], 255, 0)]), "a: expected a known tensor type, got 255"),
        (with(&[tensor("a", &[16], 4, 0)]), "a: expected a known tensor type, got 4"),
        (with(&[tensor("a", &[40], 8, 0)]), "a: expected rows of whole q8_0 blocks of 32, got rows of 40"),
        (
            with(&[tensor("a", &[128, 2], 12, 0)]),
            "a: expected rows of whole q4_k blocks of 256, got rows of 128",
        ),
        (
            with(&[tensor("a", &[1 << 32, 1 << 32], 0, 0)]),
            "a: expected fewer than 2^64 bytes, got [4294967296, 4294967296]",
        ),
        (
            with(&[tensor("a", &[1 << 62], 0, 0)]),
            "a: expected fewer than 2^64 bytes, got [4611686018427387904]",
        ),
        (with(&[tensor("a", &[17], 0, 0)]), "a: expected 68 bytes within the 64 bytes of data, got offset 0"),
        (
            with(&[tensor("a", &[16], 0, 32)]),
            "a: expected 64 bytes within the 64 bytes of data, got offset 32",
        ),
        (
            with(&[tensor("a", &[16], 0, u64::MAX - 31)]),
            "a: expected 64 bytes within the 64 bytes of data, got offset",
        ),
        (with(&[tensor("a", &[1], 0, 8)]), "a: expected an offset aligned to 32, got 8"),
        (with(&[a.clone(), a.clone()]), "a: expected each tensor once, got a second one"),
        (
            with(&[tensor(&"n".repeat(300), &[1], 0, 0)]),
            "name of tensor 0: expected a string of at most 256 bytes, got 300",
        ),
        // An empty tensor takes no bytes, yet the data section must be there.
        (without_data, "tensors: expected data from byte 96 on, got 95"),
        (truncated, "a: expected 64 bytes within the 63 bytes of data, got offset 0"),
    ]
}

#[test]
fn damaged_files_give_clear_errors() {
    let folder = common::scratch("damaged");
    let cases = safetensors_cases();
    let gguf_cases = [metadata_cases(), tensor_cases()].concat();
    assert!(40 <= cases.len() + gguf_cases.len());
    for (bytes, expected) in &gguf_cases {
        check(&folder, "x.gguf", bytes, expected, |path| {
            gguf::read_header(path).expect_err("damaged").to_string()
        });
    }
    for (bytes, expected) in &cases {
        check(&folder, "x.safetensors", bytes, expected, |path| {
            safetensors::read_header(path).expect_err("damaged").to_string()
        });
    }
    every_prefix_is_refused(&folder);
    // The count counts: a file that is read takes at least what it is read into.
    let path = folder.join("x.gguf");
    fs::write(&path, gguf_file(&[key("k", 8, &text(&"v".repeat(1 << 20)))], &[])).unwrap();
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    gguf::read_header(&path).unwrap();
    assert!(before + (1 << 20) <= HEAP.peak_usage());
}

/// Cuts a good file at every byte, so at every section.
fn every_prefix_is_refused(folder: &Path) {
    let vocabulary = key("words", 9, &array(8, 2, &[text("to"), text("ken")].concat()));
    let whole = gguf_file(
        &[key("general.alignment", 4, &[32, 0, 0, 0]), key("x", 6, &[0; 4]), vocabulary],
        &[tensor("a", &[4, 2], 0, 0), tensor("b", &[8], 0, 32)],
    );
    let path = folder.join("prefix.gguf");
    fs::write(&path, &whole).unwrap();
    assert_eq!(gguf::read_header(&path).unwrap().tensors.len(), 2);
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&path, |path| gguf::read_header(path).expect_err("cut").to_string());
    }
    fs::write(&path, &whole[..whole.len() - 64]).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("bytes within the 0 bytes of data"), "{error}");
}

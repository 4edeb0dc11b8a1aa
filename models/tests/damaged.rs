//! Damaged weight files: a clear error each, quickly and without much memory.
//!
//! One test, so that the peak memory of the process is that of the readers.
mod common;

use ds4_models::safetensors;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Peak resident memory of this process in KB, where the system tells.
fn peak_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// Writes the bytes, opens them, and compares the error's text after the path.
fn check(folder: &Path, file: &str, bytes: &[u8], expected: &str, open: fn(&Path) -> String) {
    let path = folder.join(file);
    fs::write(&path, bytes).unwrap();
    let start = Instant::now();
    let error = open(&path);
    assert!(start.elapsed() < Duration::from_secs(1), "{expected}: {:?}", start.elapsed());
    let error = error.replace(&format!("{}: ", path.display()), "");
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
        (with_header(&many((1 << 18) + 1), 0), "more than 262144 tensors"),
    ]
}

#[test]
fn damaged_files_give_clear_errors() {
    let folder = common::scratch("damaged");
    let before = peak_kb();
    let cases = safetensors_cases();
    let building = peak_kb();
    for (bytes, expected) in &cases {
        check(&folder, "x.safetensors", bytes, expected, |path| {
            safetensors::read_header(path).expect_err("damaged").to_string()
        });
    }
    if let (Some(before), Some(building), Some(after)) = (before, building, peak_kb()) {
        let readers = after - building;
        assert!(readers < 64 << 10, "{before} KB, {building} KB with the cases, {after} KB at the end");
    }
}

//! Artifacts that were cut or changed on their way.
use crate::sealed::{ENTRY, START, Sealed, bytes, count, file, reseal_header};
use ds4_runtime::Artifact;

fn refused(bytes: &[u8]) -> String {
    Artifact::from_bytes(bytes).map(|_| ()).expect_err("a damaged artifact was read")
}

#[test]
fn every_prefix_is_refused() {
    let whole = file();
    let header = START + count(&whole) * ENTRY + 32;
    let last = Sealed::of(&whole).0.last().unwrap().1.len();
    let used = whole.len() - (whole.len() - last).min(64);
    let sampled = (header..used).step_by(1 + whole.len() / 200);
    for n in (0..header).chain(sampled) {
        let why = refused(&whole[..n]);
        assert!(why.contains("expected") || why.contains("outside the file"), "{n}: {why}");
    }
}

#[test]
fn no_changed_byte_changes_what_is_read() {
    let whole = file();
    let header = START + count(&whole) * ENTRY + 32;
    let sampled = (header..whole.len()).step_by(1 + whole.len() / 400);
    let mut padding = 0;
    for at in (0..header).chain(sampled) {
        for change in [1, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            match Artifact::from_bytes(&damaged) {
                // Only bytes between the sections mean nothing.
                Ok(artifact) => {
                    padding += 1;
                    assert!(bytes(&artifact) == whole, "byte {at}");
                }
                Err(why) => assert!(!why.is_empty(), "byte {at}"),
            }
        }
    }
    assert!(padding < 20, "{padding} changes went unnoticed");
}

#[test]
fn other_files_are_no_artifacts() {
    for other in [&b""[..], b"DS4ART", b"DS4ART\n\n", b"GGUF\x03\0\0\0", &[0; 4096]] {
        let why = refused(other);
        assert!(why.contains("expected an artifact of ds4c, got"), "{why}");
    }
    let why = refused(b"DS4ART\r\n");
    assert!(why.contains("expected at least 12 bytes, got 8"), "{why}");
}

#[test]
fn another_version_is_named() {
    let mut other = file();
    other[8] = 3;
    assert_eq!(refused(&other), "version: expected 2, got 3; compile the model again");
    // Whatever a later version changes behind it.
    other.truncate(12);
    assert_eq!(refused(&other), "version: expected 2, got 3; compile the model again");
}

#[test]
fn absurd_lengths_are_refused_before_anything_is_read() {
    let whole = file();
    for (field, value) in
        [(8, u64::MAX), (8, whole.len() as u64 + 1), (16, u64::MAX), (16, 1 << 62), (16, whole.len() as u64)]
    {
        let mut damaged = whole.clone();
        let at = START + ENTRY + field;
        damaged[at..at + 8].copy_from_slice(&value.to_le_bytes());
        reseal_header(&mut damaged);
        let why = refused(&damaged);
        assert_eq!(why, format!("section module: lies outside the file of {} bytes", whole.len()));
    }
    for n in [17u32, u32::MAX] {
        let mut damaged = whole.clone();
        damaged[12..16].copy_from_slice(&n.to_le_bytes());
        assert_eq!(refused(&damaged), format!("sections: expected at most 16, got {n}"));
    }
}

#[test]
fn a_changed_section_is_named() {
    let whole = file();
    for (name, _) in Sealed::of(&whole).0 {
        let mut damaged = whole.clone();
        let at = START + ENTRY * Sealed::of(&whole).0.iter().position(|(n, _)| *n == name).unwrap();
        let start = crate::sealed::long(&whole, at + 8);
        damaged[start] ^= 4;
        assert_eq!(refused(&damaged), format!("section {}: the checksum does not match", name.trim_end()));
    }
    let mut damaged = whole;
    damaged[START] ^= 1;
    assert_eq!(refused(&damaged), "header: the checksum does not match");
}

#[test]
fn a_missing_section_is_named() {
    let whole = Sealed::of(&file());
    for name in ["meta", "module", "plan", "weights"] {
        let mut other = whole.clone();
        other.0.retain(|(n, _)| n.trim_end() != name);
        assert_eq!(other.refused(), format!("section {name}: expected one, got none"));
    }
}

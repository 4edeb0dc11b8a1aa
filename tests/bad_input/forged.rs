//! Artifacts whose checksums hold and whose content does not fit together.
use crate::sealed::{Sealed, engine_refuses, file};
use serde_json::{Value, json};

fn edited(section: &str, change: impl FnOnce(&mut Value)) -> Sealed {
    let mut sealed = Sealed::of(&file());
    sealed.edit(section, change);
    sealed
}

#[test]
fn a_module_that_is_no_module_is_told_with_its_place() {
    let mut sealed = Sealed::of(&file());
    let text = String::from_utf8(sealed.section("module").clone()).unwrap();
    let mut with = |text: &[u8]| {
        *sealed.section("module") = text.to_vec();
        sealed.refused()
    };
    assert!(with(b"\xff\xfe").starts_with("module: invalid utf-8"));
    for bad in ["", "nonsense", &text[..text.len() / 2], &text.replacen("embed_rows", "no_such_op", 1)] {
        let why = with(bad.as_bytes());
        assert!(why.starts_with("module: ") && why.contains("line"), "{why}");
    }
    // Well spelled, not well formed.
    let why = with(text.replacen("f32[t, 96]", "f32[t, 97]", 1).as_bytes());
    assert!(why.starts_with("module: "), "{why}");
}

#[test]
fn a_plan_that_does_not_fit_its_module_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 13] = [
        ("no launch", |p| drop(p["launches"][0][1].as_array_mut().unwrap().pop()), "launches other nodes"),
        (
            "swapped launches",
            |p| p["launches"][0][1].as_array_mut().unwrap().swap(0, 1),
            "launches other nodes",
        ),
        ("other function", |p| p["launches"][0][0] = json!("x"), "launches other nodes"),
        ("no lists", |p| p["launches"] = json!([]), "launch lists, got 0"),
        ("unaligned", |p| bump(&mut p["buckets"][0]["graphs"][0][1][0], 1), "not aligned"),
        ("small arena", |p| p["buckets"][0]["arena_bytes"] = json!(64), "outside 64 bytes"),
        ("far address", |p| p["buckets"][0]["graphs"][0][1][0] = json!(u64::MAX - 63), "outside"),
        (
            "overlap",
            |p| p["buckets"][0]["graphs"][0][1][1] = p["buckets"][0]["graphs"][0][1][0].clone(),
            "lies",
        ),
        (
            "few addresses",
            |p| drop(p["buckets"][0]["graphs"][0][1].as_array_mut().unwrap().pop()),
            "addresses for",
        ),
        ("no graphs", |p| p["buckets"][0]["graphs"] = json!([]), "other graphs"),
        ("no functions", |p| p["buckets"][0]["funcs"] = json!([]), "other graphs or functions"),
        ("endless scratch", |p| p["buckets"][0]["graphs"][0][2][0] = json!(u64::MAX), "outside"),
        ("more tokens than planned for", |p| p["buckets"][0]["tokens"] = json!(4096), "lies"),
    ];
    for (name, change, part) in cases {
        let why = edited("plan", change).refused();
        assert!(why.starts_with("section plan: ") && why.contains(part), "{name}: {why}");
    }
    for bad in [json!({}), json!([]), json!(null), json!({"launches": 1, "buckets": []})] {
        let why = edited("plan", |p| *p = bad).refused();
        assert!(why.starts_with("section plan: "), "{why}");
    }
}

#[test]
fn scratch_that_is_too_small_is_refused() {
    let sealed = edited("plan", |p| {
        let funcs = p["buckets"][0]["funcs"].as_array_mut().unwrap();
        let mut places = funcs.iter_mut().flat_map(|f| f[2].as_array_mut().unwrap());
        let place = places.find(|s| s[1].as_u64().is_some_and(|n| n > 64)).expect("some kernel has scratch");
        place[1] = json!(64);
    });
    let why = engine_refuses(&sealed, &std::env::temp_dir());
    assert!(why.starts_with("plan: @") && why.ends_with("bytes of scratch, got 64"), "{why}");
}

fn bump(value: &mut Value, by: u64) {
    *value = json!(value.as_u64().unwrap() + by);
}

#[test]
fn buckets_that_no_step_could_use_are_refused() {
    let base = std::env::temp_dir();
    let why = engine_refuses(&edited("plan", |p| p["buckets"] = json!([])), &base);
    assert_eq!(why, "plan: expected at least one bucket, got none");
    let why = engine_refuses(&edited("plan", |p| p["buckets"].as_array_mut().unwrap().reverse()), &base);
    assert!(why.contains("plan: expected buckets that grow"), "{why}");
    let why = engine_refuses(&edited("plan", |p| p["buckets"][0]["arena_bytes"] = json!(u64::MAX)), &base);
    assert!(why.contains("plan: expected an arena of at most"), "{why}");
    for (field, value) in [("tokens", 0), ("wanted", 0)] {
        let why = engine_refuses(&edited("plan", |p| p["buckets"][0][field] = json!(value)), &base);
        assert!(why.contains("plan: expected buckets"), "{field}: {why}");
    }
}

/// The parts of the first entry whose name holds `name`.
fn parts<'a>(table: &'a mut Value, name: &str) -> &'a mut Value {
    let entries = table["weights"].as_array_mut().unwrap();
    let at = entries.iter().position(|e| e["name"].as_str().unwrap().contains(name)).unwrap();
    &mut entries[at]["parts"]
}

/// Position of a number in a part.
const FILE: usize = 1;
const OFFSET: usize = 2;
const BYTES: usize = 3;
const STRIDE: usize = 4;
const COUNT: usize = 5;

#[test]
fn weights_that_lie_elsewhere_are_refused() {
    let base = std::env::temp_dir();
    let cases = [
        ("token_embd", FILE, json!(1), "file 1: expected one of 1"),
        ("token_embd", OFFSET, json!(u64::MAX), "matrix 0 lies outside"),
        ("token_embd", OFFSET, json!(1_000_000_000), "matrix 0 lies outside"),
        ("token_embd", BYTES, json!(2), "bytes per matrix, got 2"),
        ("token_embd", BYTES, json!(u64::MAX), "bytes per matrix, got"),
        ("token_embd", COUNT, json!(0), "expected 1 matrices, got 0"),
        ("token_embd", COUNT, json!(u32::MAX), "matri"),
        ("ffn_gate_exps", COUNT, json!(2), "expected 10 matrices, got"),
        ("ffn_gate_exps", COUNT, json!(11), "expected 10 matrices, got"),
    ];
    for (name, field, value, part) in cases {
        let sealed = edited("weights", |t| parts(t, name)[0][field] = value.clone());
        let why = engine_refuses(&sealed, &base);
        assert!(why.contains(name) && why.contains(part), "{name} {field} {value}: {why}");
    }
    let sealed = edited("weights", |t| {
        let part = &mut parts(t, "token_embd")[0];
        (part[COUNT], part[STRIDE]) = (json!(2), json!(u64::MAX));
    });
    let why = engine_refuses(&sealed, &base);
    assert!(why.contains("token_embd") && why.contains("matri"), "{why}");
}

#[test]
fn a_table_that_does_not_fit_the_module_is_refused() {
    let base = std::env::temp_dir();
    let first = |t: &mut Value| t["weights"][0]["name"].as_str().unwrap().to_string();
    let mut name = String::new();
    let why = engine_refuses(
        &edited("weights", |t| (name = first(t), t["weights"].as_array_mut().unwrap().remove(0)).0),
        &base,
    );
    assert_eq!(why, format!("{name}: expected an entry in the weight table, got none"));
    let why = engine_refuses(&edited("weights", |t| t["weights"][0]["ty"] = json!("f32[1, 2]")), &base);
    assert!(why.starts_with(&name) && why.contains("expected ") && why.ends_with("got f32[1, 2]"), "{why}");
    let why = engine_refuses(&edited("weights", |t| t["weights"][0]["layout"] = json!("rows_by_8")), &base);
    assert!(why.starts_with(&name) && why.contains("layout") && why.contains("rows_by_8"), "{why}");
    let why = engine_refuses(&edited("weights", |t| t["files"] = json!([])), &base);
    assert!(why.contains("expected one of 0"), "{why}");
    let why = engine_refuses(&edited("weights", |t| t["files"] = json!(["no-such-file"])), &base);
    assert!(why.contains("no-such-file"), "{why}");
    let why = edited("weights", |t| t["weights"][0]["parts"][0][0] = json!("x")).refused();
    assert!(why.starts_with("section weights: ") && why.contains("expected role c or s, got x"), "{why}");
    let why = edited("weights", |t| t["weights"][0]["ty"] = json!("q9[1]")).refused();
    assert!(why.starts_with("section weights: ") && why.contains("q9"), "{why}");
}

#[test]
fn a_meta_section_that_does_not_fit_is_refused() {
    let base = std::env::temp_dir();
    for field in ["files", "samples"] {
        let why = engine_refuses(&edited("meta", |m| m[field] = json!([])), &base);
        assert!(why.starts_with("meta: expected ") && why.contains("got "), "{why}");
    }
    let why = edited("meta", |m| m["bos"] = json!("x")).refused();
    assert!(why.starts_with("section meta: "), "{why}");
    let why = edited("meta", |m| drop(m.as_object_mut().unwrap().remove("identity"))).refused();
    assert!(why.contains("identity"), "{why}");
}

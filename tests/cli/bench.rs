//! `ds4 bench`.
use crate::common::fixture;
use crate::lab::{Lab, text};
use serde_json::Value;

#[test]
fn a_bench_prints_one_object_and_draws_a_picture() {
    let lab = Lab::new();
    let model = fixture("flash-bf16");
    let flags = ["--prefill", "4,9", "--decode", "6", "--ctx", "0,40,7", "--threads", "2", "--json"];
    let picture = lab.path("speed.svg");
    let answer = lab.ds4(&[&["bench", text(&model), "--svg", text(&picture)], &flags[..]].concat());
    let found: Value = serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["threads", "read_gbs", "peak_bytes", "prefill", "decode"]);
    assert_eq!(found["threads"], 2);
    assert!(found["read_gbs"].as_f64().unwrap() > 0.0, "{found}");
    assert!(found["peak_bytes"].as_u64().unwrap() > 1 << 20, "{found}");
    let column = |list: &str, key: &str| -> Vec<Value> {
        found[list].as_array().unwrap().iter().map(|row| row[key].clone()).collect()
    };
    assert_eq!(column("prefill", "tokens"), [4, 9]);
    assert_eq!(column("decode", "ctx"), [0, 40, 7]);
    for rate in
        [column("prefill", "tok_s"), column("decode", "tok_s"), column("decode", "limit_share")].concat()
    {
        assert!(rate.as_f64().unwrap() > 0.0, "{found}");
    }
    // This machine was never probed, and that is said.
    assert_eq!(column("decode", "predicted_tok_s"), [Value::Null, Value::Null, Value::Null]);
    assert!(answer.err.contains("ds4c probe"), "{answer:?}");
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains(">measured<"), "{picture}");
}

#[test]
fn waves_tell_where_the_time_of_a_token_goes() {
    let lab = Lab::new();
    let model = fixture("flash-bf16");
    let flags = ["--prefill", "3", "--decode", "5", "--ctx", "9", "--waves"];
    let answer = lab.ds4(&[&["bench", text(&model), "--json"], &flags[..]].concat());
    let found: Value = serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    let parts = found["waves"].as_array().unwrap();
    assert!(parts[0]["prefill"] == 3 && parts[1]["ctx"] == 9, "{found}");
    let kinds = parts[1]["kinds"].as_array().unwrap();
    let has = |kind: &&Value| kind["ops"].as_str().unwrap().split(' ').any(|op| op == "moe_up");
    // Every layer chooses its experts once for each token.
    let waves: f64 = kinds.iter().filter(has).map(|k| k["waves"].as_f64().unwrap()).sum();
    let layers = waves.round();
    assert!(layers >= 1.0 && (waves - layers).abs() < 1e-9, "{found}");
    // A step of a prompt does so for all of its tokens.
    let prompt = parts[0]["kinds"].as_array().unwrap();
    let waves: f64 = prompt.iter().filter(has).map(|k| k["waves"].as_f64().unwrap()).sum();
    assert!((waves * 3.0 - layers).abs() < 0.01, "{found}");
    assert!(kinds.iter().chain(prompt).all(|k| k["ms"].as_f64().unwrap() > 0.0), "{found}");
    let answer = lab.ds4(&[&["bench", text(&model)], &flags[..]].concat());
    for part in ["\nprompt of 3: ms of a token", "\ncontext 9: ms of a token"] {
        assert!(answer.out.contains(part), "{answer:?}");
    }
}

#[test]
fn a_probe_that_was_kept_predicts() {
    let lab = Lab::new();
    let model = fixture("pro-mixed");
    let probe = ["probe", "--size", "64", "--threads", "1", "--save"];
    assert_eq!(lab.ds4c(&probe).good(), "");
    let bench =
        ["bench", text(&model), "--prefill", "4", "--decode", "1", "--ctx", "8", "--json", "--threads"];
    let predicted = |threads: &str| {
        let answer = lab.ds4(&[&bench[..], &[threads]].concat());
        let found: Value = serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
        let of = |part: &str, what: &str| found[part][0][what].as_f64();
        ([of("decode", "predicted_tok_s"), of("prefill", "int8_share")], answer.err)
    };
    assert!(predicted("1").0.iter().all(|x| x.unwrap() > 0.0));
    // A profile of one thread says nothing about two.
    let (none, why) = predicted("2");
    assert!(none == [None, None] && why.contains("1 threads"), "{why}");
}

#[test]
fn what_the_model_does_not_hold_is_refused_by_name() {
    let lab = Lab::new();
    let model = fixture("flash-bf16");
    let bench = |flags: [&str; 2]| lab.ds4(&["bench", text(&model), flags[0], flags[1]]);
    bench(["--ctx", "2000000"]).fails(&["--ctx 2000000: expected at most"]);
    bench(["--prefill", "2000000"]).fails(&["--prefill 2000000: expected at most"]);
}

//! `ds4 logits`.
use crate::common::{Expected, fixture, worst};
use crate::lab::{Lab, text};

/// The prompt of a fixture as a file of ids.
fn ids(lab: &Lab, expected: &Expected) -> String {
    let ids = expected.ids("input_ids");
    text(&lab.write("ids.json", serde_json::to_string(&ids).unwrap())).to_string()
}

#[test]
fn logits_equal_transformers_in_single_and_double_precision() {
    for name in ["flash-bf16", "pro-mixed"] {
        let lab = Lab::new();
        let expected = Expected::read(&fixture(name).join("expected.safetensors"));
        let (ids, model, out) = (ids(&lab, &expected), fixture(name), lab.path("out.safetensors"));
        for (flags, allowed) in [(&[][..], 5e-5), (&["--f64"][..], 2e-5)] {
            let fixed = ["logits", text(&model), "--tokens", &ids, "--numerics", "exact", "-o", text(&out)];
            assert_eq!(lab.ds4(&[&fixed[..], flags].concat()).good(), "");
            let got = Expected::read(&out);
            assert_eq!(got.shape("logits"), expected.shape("logits"));
            let worst = worst(got.values("logits").iter().copied(), expected.values("logits"));
            assert!(worst <= allowed, "{name} {flags:?}: {worst}");
        }
    }
}

#[test]
fn every_chunk_and_number_of_threads_writes_the_same_file() {
    let lab = Lab::new();
    let expected = Expected::read(&fixture("flash-bf16").join("expected.safetensors"));
    let (ids, model) = (ids(&lab, &expected), fixture("flash-bf16"));
    let file = |flags: &[&str]| {
        let out = lab.path("out.safetensors");
        let fixed = ["logits", text(&model), "--tokens", &ids, "-o", text(&out)];
        lab.ds4(&[&fixed[..], flags].concat()).good();
        std::fs::read(&out).unwrap()
    };
    let whole = file(&[]);
    for flags in
        [["--chunk", "1"], ["--chunk", "7"], ["--chunk", "100000"], ["--threads", "1"], ["--threads", "5"]]
    {
        assert!(file(&flags) == whole, "{flags:?}");
    }
    assert!(file(&["--numerics", "exact"]) != whole, "classes differ");
    assert!(file(&["--numerics", "fast"]) == whole, "fast is the default");
}

#[test]
fn ids_that_cannot_be_used_are_told() {
    let lab = Lab::new();
    let model = fixture("flash-bf16");
    let run = |ids: &str, flags: &[&str]| {
        lab.write("ids.json", ids);
        let fixed = ["logits", text(&model), "--tokens", "ids.json", "-o", "out.safetensors"];
        lab.ds4(&[&fixed[..], flags].concat())
    };
    for flags in [&[][..], &["--f64"]] {
        run("[1, 320]", flags).fails(&["token id 320", "less than 320"]);
        run("[1, 2, 3]", &[flags, &["--ctx", "2"]].concat()).fails(&[
            "context",
            "at most 2 tokens",
            "3 more",
        ]);
        run("[]", flags).fails(&["ids.json", "at least one"]);
    }
    for bad in ["", "[1, 2", "{}", "[1.5]", "[-1]", "[4294967296]", "[\"a\"]", "nonsense"] {
        run(bad, &[]).fails(&["ids.json", "expected a JSON array of token ids"]);
    }
    lab.ds4(&["logits", text(&model), "--tokens", "none.json", "-o", "o"]).fails(&["none.json"]);
    run("[1]", &["-o", "no/such/folder"]).is_usage("cannot be used multiple times");
    lab.write("ids.json", "[1]");
    let out = "no/such/folder/out";
    lab.ds4(&["logits", text(&model), "--tokens", "ids.json", "-o", out]).fails(&[out]);
}

//! `ds4c compile --tune` and what becomes of the record.
use crate::common::fixture;
use crate::lab::{Lab, text};
use ds4_runtime::Artifact;

/// The lines of `ds4c inspect` on tuning.
fn shown(lab: &Lab, artifact: &str) -> Vec<String> {
    let all = lab.ds4c(&["inspect", artifact]).good();
    let lines = all.lines().skip_while(|l| !l.starts_with("tuning"));
    lines.take_while(|l| !l.starts_with("states")).map(str::to_string).collect()
}

#[test]
fn what_was_measured_is_reused_here_and_ignored_elsewhere() {
    let lab = Lab::new();
    let model = fixture("flash-bf16");
    let compile = |out: &str, flags: &[&str]| {
        let fixed = ["compile", text(&model), "-o", out, "--ctx", "64"];
        lab.ds4c(&[&fixed[..], flags].concat()).good()
    };
    compile("plain.ds4", &[]);
    assert_eq!(shown(&lab, "plain.ds4")[0], "tuning    none: the static order of kernels");
    compile("tuned.ds4", &["--tune", "0.5s"]);
    let tuned = shown(&lab, "tuned.ds4");
    assert!(tuned[0].starts_with("tuning    on "), "{tuned:?}");
    // The next compile on this machine takes it over without measuring.
    compile("again.ds4", &[]);
    assert_eq!(shown(&lab, "again.ds4"), tuned);

    // Which kernel is used changes no bit.
    lab.write("ids.json", "[1, 2, 3, 4, 5, 6, 7]");
    let logits = |model: &str, out: &str| {
        let answer = lab.ds4(&["logits", model, "--tokens", "ids.json", "-o", out]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        (std::fs::read(lab.path(out)).unwrap(), answer.err)
    };
    let plain = logits("plain.ds4", "plain.out").0;
    let (here, said) = logits("tuned.ds4", "tuned.out");
    assert!(here == plain && !said.contains("another machine"), "{said}");

    // On another machine the static order decides, and that is said.
    let mut artifact = Artifact::read(&lab.path("tuned.ds4")).unwrap();
    artifact.tuning.as_mut().unwrap().machine.processor = "abacus".to_string();
    artifact.write(&lab.path("moved.ds4")).unwrap();
    assert!(shown(&lab, "moved.ds4")[0].ends_with("unused here"));
    let (moved, said) = logits("moved.ds4", "moved.out");
    assert!(moved == plain && said.contains("another machine (abacus)"), "{said}");
}

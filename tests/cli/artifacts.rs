//! `ds4c compile`, `inspect`, `verify`, `diff`, and artifacts as MODEL.
use crate::common::fixture;
use crate::lab::{Lab, text};
use std::process::Stdio;

#[test]
fn an_artifact_is_compiled_inspected_verified_and_run() {
    let lab = Lab::new();
    let model = lab.model("flash-bf16");
    lab.ds4c(&["compile", text(&model), "-o", "a.ds4", "--ctx", "512", "--numerics", "exact"]).good();
    let shown = lab.ds4c(&["inspect", "a.ds4"]).good();
    for part in [
        "model     flash-bf16",
        "class     exact",
        "context   512",
        "vocab     320",
        "tokenizer none",
        "interpreter f64",
        "flash-bf16/model.safetensors",
        "graph     @main",
    ] {
        assert!(shown.contains(part), "{part:?} is missing:\n{shown}");
    }
    let module = lab.ds4c(&["inspect", "--module", "a.ds4"]).good();
    assert_eq!(ds4_ir::parse_module(&module).unwrap().to_string(), module);

    let verified = lab.ds4c(&["verify", "a.ds4"]).good();
    assert!(verified.contains("worst difference") && verified.ends_with("passed\n"), "{verified}");
    assert!(lab.ds4c(&["verify", "--full", "a.ds4"]).good().contains("every byte as compiled"));

    lab.write("ids.json", "[1, 2, 3]");
    let logits = |model: &str, out: &str, flags: &[&str]| {
        lab.ds4(&[&["logits", model, "--tokens", "ids.json", "-o", out][..], flags].concat())
    };
    logits("a.ds4", "a.out", &[]).good();
    logits(text(&model), "b.out", &["--numerics", "exact"]).good();
    assert_eq!(std::fs::read(lab.path("a.out")).unwrap(), std::fs::read(lab.path("b.out")).unwrap());
    logits("a.ds4", "c.out", &["--numerics", "fast"]).fails(&["a.ds4", "expected class fast", "class exact"]);
    logits("a.ds4", "c.out", &["--ctx", "513"]).fails(&["a.ds4", "expected a context of 513", "for 512"]);
    assert!(!lab.path("c.out").exists());

    // Artifact and weights may move together.
    let moved = lab.path("moved");
    std::fs::create_dir(&moved).unwrap();
    std::fs::rename(lab.path("a.ds4"), moved.join("a.ds4")).unwrap();
    std::fs::rename(&model, moved.join("flash-bf16")).unwrap();
    lab.ds4c(&["verify", "moved/a.ds4"]).good();
}

#[test]
fn every_class_passes_its_own_test() {
    let lab = Lab::new();
    for class in ["exact", "official", "fast"] {
        let model = fixture("pro-mixed");
        lab.ds4c(&["compile", text(&model), "-o", "a.ds4", "--ctx", "64", "--numerics", class]).good();
        let shown = lab.ds4c(&["verify", "a.ds4"]).good();
        assert!(shown.ends_with("passed\n"), "{class}: {shown}");
    }
}

#[test]
fn verify_sees_changed_weights() {
    let lab = Lab::new();
    let model = lab.model("flash-bf16");
    lab.ds4c(&["compile", text(&model), "-o", "a.ds4", "--ctx", "64"]).good();
    // The same length and time of change: only --full looks at the bytes.
    let weights = model.join("model.safetensors");
    let modified = std::fs::metadata(&weights).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&weights).unwrap();
    // A BF16 of the largest finite value, in the middle of some tensor.
    let at = (bytes.len() / 2) & !1;
    bytes[at..at + 2].copy_from_slice(&[0x7f, 0x7f]);
    std::fs::write(&weights, &bytes).unwrap();
    std::fs::File::options().write(true).open(&weights).unwrap().set_modified(modified).unwrap();
    lab.ds4c(&["verify", "--full", "a.ds4"]).fails(&["model.safetensors", "expected the content", "got"]);
}

#[test]
fn diff_tells_what_differs_and_nothing_else() {
    let lab = Lab::new();
    let model = lab.model("flash-bf16");
    let compile = |out: &str, flags: &[&str]| {
        lab.ds4c(&[&["compile", text(&model), "-o", out, "--ctx", "64"][..], flags].concat()).good()
    };
    compile("a.ds4", &[]);
    compile("b.ds4", &[]);
    assert_eq!(lab.ds4c(&["diff", "a.ds4", "b.ds4"]).good(), "");
    compile("c.ds4", &["--numerics", "exact"]);
    let shown = lab.ds4c(&["diff", "a.ds4", "c.ds4"]).good();
    assert!(shown.contains("class: fast | exact\n"), "{shown}");
    assert!(shown.contains("state ") && shown.contains("kv8"), "{shown}");
    assert!(!shown.contains("identity") && !shown.contains("weight "), "{shown}");

    let mut bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(model.join("model.safetensors"), bytes).unwrap();
    compile("d.ds4", &[]);
    let shown = lab.ds4c(&["diff", "a.ds4", "d.ds4"]).good();
    assert_eq!(shown.lines().filter(|l| l.starts_with("weight ")).count(), 1, "{shown}");
    assert!(shown.contains("identity: "), "{shown}");
    lab.ds4c(&["diff", "a.ds4", text(&model.join("config.json"))])
        .fails(&["config.json", "expected an artifact"]);
}

#[test]
fn a_cached_artifact_follows_its_model() {
    let lab = Lab::new();
    let model = lab.model("flash-bf16");
    lab.write("ids.json", "[1, 2, 3]");
    let logits = || {
        lab.ds4(&["logits", text(&model), "--tokens", "ids.json", "-o", "out"]).good();
        std::fs::read(lab.path("out")).unwrap()
    };
    let before = logits();
    let cached = || -> Vec<_> {
        let entries = std::fs::read_dir(lab.path("cache/ds4/artifacts")).unwrap();
        entries.map(|e| e.unwrap().path()).collect()
    };
    let own = cached();
    assert_eq!(own.len(), 1);
    // What is damaged in the cache is made again.
    std::fs::write(&own[0], "garbage").unwrap();
    assert!(logits() == before);
    // What another build of the program made is neither used nor kept.
    let name = own[0].file_name().unwrap().to_str().unwrap();
    let (request, _) = name.split_once('-').unwrap();
    std::fs::rename(&own[0], own[0].with_file_name(format!("{request}-00000000.ds4"))).unwrap();
    assert!(logits() == before);
    assert_eq!(cached(), own);
    let path = model.join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let changed = config.replace("\"routed_scaling_factor\": 1.5", "\"routed_scaling_factor\": 2.5");
    assert_ne!(changed, config);
    std::fs::write(&path, changed).unwrap();
    assert!(logits() != before);
}

#[test]
fn many_may_open_a_model_at_once_for_the_first_time() {
    let lab = Lab::new();
    for _ in 0..20 {
        let cache = lab.path("fresh");
        std::thread::scope(|scope| {
            let open = || {
                let model = ds4::demo::unpack(&cache).unwrap();
                assert!(model.join("model.safetensors").metadata().unwrap().len() > 0);
                ds4_runtime::write_whole(&cache.join("a"), b"whole").unwrap();
            };
            let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            all.into_iter().for_each(|one| one.join().unwrap());
        });
        // Nothing is left beside what was written.
        let names = |folder: &std::path::Path| -> Vec<_> {
            let entries = std::fs::read_dir(folder).unwrap();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        };
        let top = names(&cache);
        assert_eq!(top.len(), 2, "{top:?}");
        let model = top.iter().find(|name| *name != "a").unwrap();
        assert_eq!(names(&cache.join(model)), ["demo"]);
        std::fs::remove_dir_all(&cache).unwrap();
    }
}

#[test]
fn built_in_models_are_printed_without_weights() {
    let lab = Lab::new();
    let shown = lab.ds4c(&["compile", "flash", "--emit", "model", "--ctx", "4096"]).good();
    assert_eq!(ds4_ir::parse_module(&shown).unwrap().to_string(), shown);
    lab.ds4c(&["compile", "pro"]).fails(&["pro", "no weights", "--emit"]);
    lab.ds4c(&["compile", "flash", "--weights", "ds4-q2"]).is_usage("--emit");
    lab.ds4c(&["compile", "flash", "--emit", "model", "--weights", "q9"]).is_usage("ds4-q2");
}

#[test]
fn a_reader_that_goes_away_is_no_error_for_any_command() {
    let lab = Lab::new();
    lab.ds4c(&["compile", text(&fixture("flash-bf16")), "-o", "a.ds4", "--ctx", "64"]).good();
    lab.ds4c(&["compile", text(&fixture("flash-bf16")), "-o", "b.ds4", "--ctx", "32"]).good();
    for args in [&["inspect", "--module", "a.ds4"][..], &["verify", "a.ds4"], &["diff", "a.ds4", "b.ds4"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = lab.command("ds4c", args).stdout(Stdio::from(writer)).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

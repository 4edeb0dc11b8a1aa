//! `ds4c compile --emit kernels`: the texts of a GPU as files.
use crate::common::fixture;
use crate::lab::{Lab, text};

#[test]
fn texts_have_a_place_to_go_and_a_gpu_to_run_on() {
    let lab = Lab::new();
    let emit = ["compile", "flash", "--emit", "kernels"];
    lab.ds4c(&emit).fails(&["--emit kernels", "expected --target cuda, hip or metal", "got cpu"]);
    lab.ds4c(&[&emit[..], &["--target", "cuda"]].concat()).fails(&["--emit kernels", "expected a folder"]);
}

#[cfg(not(feature = "gpu"))]
#[test]
fn a_build_without_gpus_says_so() {
    let lab = Lab::new();
    for model in ["flash", text(&fixture("flash-bf16"))] {
        let args = ["compile", model, "--emit", "kernels", "--target", "metal", "-o", "texts"];
        lab.ds4c(&args).fails(&["metal:apple7", "this build knows no GPUs", "--features gpu"]);
    }
    assert!(!lab.path("texts").exists());
}

#[cfg(feature = "gpu")]
#[test]
fn every_text_is_a_file_and_every_launch_is_listed() {
    let lab = Lab::new();
    let cases = [
        (text(&fixture("flash-bf16")).to_string(), "cuda:sm_80", "cu", "__global__"),
        ("flash".to_string(), "hip", "hip", "__global__"),
        ("pro".to_string(), "metal", "metal", "[[kernel]]"),
    ];
    for (model, target, extension, marker) in cases {
        let said = lab.ds4c(&["compile", &model, "--emit", "kernels", "--target", target, "-o", extension]);
        let folder = lab.path(extension);
        let list = std::fs::read_to_string(folder.join("launches.txt")).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "launches.txt")
            .collect();
        names.sort();
        assert!(said.err.contains(&format!("{} texts for {target}", names.len())), "{said:?}");
        assert!(names.len() > 20, "{model}: {names:?}");
        assert_eq!(names[0], format!("00_embed_rows.{extension}"), "what a step needs first");
        let mut first_uses = Vec::new();
        for line in list.lines().filter(|line| line.starts_with("      ") && line.contains(" x ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = format!("{:0>2}_{}.{extension}", words[0], words[1]);
            if !first_uses.contains(&name) {
                first_uses.push(name);
            }
        }
        assert_eq!(first_uses, names, "{model}: numbered in the order of first use");
        for name in names {
            let source = std::fs::read_to_string(folder.join(&name)).unwrap();
            let entry = name.split_once('_').unwrap().1.split_once('.').unwrap().0;
            assert!(source.contains(marker) && source.contains(&format!("{entry}(")), "{name}: {source}");
        }
    }
}

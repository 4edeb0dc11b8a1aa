//! Sessions on disk as a person meets them: kept by `run` and `chat`, looked after by `kv`.
use crate::lab::{Answer, Lab, text};
use std::path::PathBuf;

const ARK: &str = "Who built the ark?";
const ABEL: &str = "Who killed Abel?";

fn chat(lab: &Lab, lines: &[&str]) -> Answer {
    lab.ds4_with(&["chat", "--temp", "0", "--kv", "kept"], &(lines.join("\n") + "\n"))
}

/// The numbers N and M of each line `restored N of M tokens`, and what follows it.
fn restored(answer: &Answer) -> Vec<(usize, usize, String)> {
    let lines = answer.err.lines().filter_map(|l| l.strip_prefix("restored "));
    lines
        .map(|l| {
            let (n, rest) = l.split_once(" of ").unwrap();
            let (m, why) = rest.split_once(" tokens").unwrap();
            (n.parse().unwrap(), m.parse().unwrap(), why.trim_start_matches(": ").to_string())
        })
        .collect()
}

/// The names that `/list` told, the current one last where it is marked.
fn names(answer: &Answer) -> Vec<String> {
    let lines = answer.err.lines().filter(|l| l.contains(" tokens  Who"));
    lines.map(|l| l.trim_start_matches(['*', ' ']).split(' ').next().unwrap().to_string()).collect()
}

#[test]
fn run_finds_what_it_kept_and_says_why_not_all() {
    let lab = Lab::new();
    let run = |prompt: &str, more: &[&str]| lab.ds4(&[&["run", "--temp", "0", "-p", prompt], more].concat());
    let first = run(ARK, &[]);
    assert_eq!(restored(&first)[0].0, 0, "{first:?}");
    assert_eq!(restored(&first)[0].2, "nothing is stored");
    assert!(lab.path("cache/ds4/kv/index").is_file(), "the default folder lies in the cache");
    // The same prompt is there whole, and the answer is the same.
    let again = run(ARK, &[]);
    let (n, of, why) = restored(&again).remove(0);
    assert_eq!((n, why.as_str()), (of, ""), "{again:?}");
    assert!(again.err.contains("prefill: 0 tokens"), "{again:?}");
    assert_eq!(first.good(), again.good());
    let other = run(ABEL, &[]);
    assert!(restored(&other)[0].2.starts_with("the stored tokens differ from token "), "{other:?}");
    let class = run(ARK, &["--numerics", "exact"]);
    assert!(restored(&class)[0].2.contains("another model, numeric class"), "{class:?}");
    // Nothing is kept, nothing is looked for.
    let nothing = run(ARK, &["--no-kv"]);
    assert_eq!(restored(&nothing), []);
    // An answer that ended as it should leaves states and no journal.
    let ls = lab.ds4(&["kv", "ls"]).good();
    assert!(!ls.contains("session") && ls.lines().count() > 2, "{ls}");
}

#[test]
fn a_conversation_is_listed_switched_to_forked_and_taken_back() {
    let lab = Lab::new();
    let first = chat(&lab, &["/list", ARK, ABEL, "/save", "/list"]);
    let name = names(&first).pop().unwrap();
    assert!(first.err.contains(&format!("kept as {name}: ")), "{first:?}");
    let held = |answer: &Answer, what: &str| -> Vec<usize> {
        let number = |l: &str| l.split(what).nth(1)?.split([' ', ',']).find_map(|w| w.parse().ok());
        answer.err.lines().filter_map(number).collect()
    };
    let tokens = held(&first, &format!("kept as {name}:"))[0];
    assert_eq!(held(&first, "states of"), [tokens], "what is reported kept is on the disk: {first:?}");

    // Another process goes on where this one stopped, without computing it again.
    let second = chat(&lab, &[&format!("/switch {name}"), "/fork copy", ARK, "/list"]);
    assert!(second.err.contains(&format!("{name}: 2 questions, {tokens} tokens")), "{second:?}");
    assert_eq!(restored(&second)[0], (tokens, tokens, String::new()), "{second:?}");
    assert_eq!(second.out, "Noah built the ark.\n");
    assert_eq!(names(&second).len(), 2, "{second:?}");
    // The one it was copied from is as it was; one question can be taken back, for good.
    let third = chat(&lab, &[&format!("/switch {name}"), "/rewind", "/quit"]);
    assert!(third.err.contains(&format!("{name}: 2 questions, {tokens} tokens")), "{third:?}");
    assert!(third.err.contains("left: 1 question"), "{third:?}");
    let fourth = chat(&lab, &["/switch copy", "/switch no-such", &format!("/switch {name}"), ABEL]);
    assert!(fourth.err.contains("copy: 3 questions"), "{fourth:?}");
    assert!(fourth.err.contains("error: session no-such: not in the store"), "{fourth:?}");
    assert!(fourth.err.contains(&format!("{name}: 1 question, ")), "{fourth:?}");
    // The boundary behind the first answer was kept: nothing is computed from the beginning.
    let back = restored(&fourth).pop().unwrap();
    assert!(back.0 == back.1 && back.0 < tokens, "{fourth:?}");
    assert_eq!(fourth.good(), "Cain killed Abel.\n");
}

#[test]
fn a_conversation_taken_back_whole_can_be_gone_on_with() {
    let lab = Lab::new();
    let first = chat(&lab, &[ARK, "/fork all", "/rewind 1", "/rewind 1"]);
    assert!(first.err.contains("expected at most 0 questions, got 1"), "{first:?}");
    let second = chat(&lab, &["/switch all", ABEL]);
    assert!(second.err.contains("all: 0 questions, 0 tokens"), "{second:?}");
    assert_eq!(second.good(), "Cain killed Abel.\n");
}

fn files(lab: &Lab, folder: &str, extension: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(lab.path(folder)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn kv_looks_after_a_folder() {
    let lab = Lab::new();
    chat(&lab, &[ARK, ABEL]).good();
    let ls = lab.ds4(&["kv", "ls", "kept"]).good();
    let key = ls.lines().find(|l| l.contains(" tokens ")).unwrap().split(' ').next().unwrap().to_string();
    assert!(ls.contains("session s"), "{ls}");
    assert!(lab.ds4(&["kv", "show", &key, "kept"]).good().contains("tokens 0.."));
    assert!(lab.ds4(&["kv", "verify", "kept"]).good().contains("entries whole"));

    // A state goes elsewhere in one file and serves there.
    lab.ds4(&["kv", "export", &key, "-o", "bundle", "kept"]).good();
    lab.ds4(&["kv", "import", "bundle", "other"]).good();
    assert!(lab.ds4(&["kv", "verify", "other"]).good().contains("entries whole"));
    let there = lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "other"]);
    assert!(restored(&there)[0].0 > 0 || restored(&there)[0].2.contains("no boundary"), "{there:?}");
    assert_eq!(there.good(), "Noah built the ark.\n");

    // A damaged file is named, put aside at its first use, and the answer is right.
    let edges = files(&lab, "kept/nodes", "edge");
    edges.iter().for_each(flip);
    let verify = lab.ds4(&["kv", "verify", "kept"]);
    assert_eq!(verify.code, Some(1), "{verify:?}");
    for edge in &edges {
        assert!(verify.err.contains(edge.file_name().unwrap().to_str().unwrap()), "{verify:?}");
    }
    let run = lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "kept"]);
    assert!(run.err.contains("warning: ") && run.err.contains("put aside as"), "{run:?}");
    assert!(restored(&run)[0].2.contains("could not be used"), "{run:?}");
    assert_eq!(run.good(), "Noah built the ark.\n");
    assert!(!std::fs::read_dir(lab.path("kept/quarantine")).unwrap().collect::<Vec<_>>().is_empty());
    // A damaged index is rebuilt, and told once.
    flip(&lab.path("kept/index"));
    lab.ds4(&["kv", "verify", "kept"]).fails_saying("index");
    // So is a journal, which hides none of the others.
    flip(&files(&lab, "kept/sessions", "journal")[0]);
    assert!(lab.ds4(&["kv", "ls", "kept"]).good().contains("damaged"));

    let gc = lab.ds4(&["kv", "gc", "kept", "--budget", "0K"]).good();
    assert!(gc.contains("bytes freed, 0 in use"), "{gc}");
    lab.ds4(&["kv", "gc", "kept", "--budget", "many"]).is_usage("expected bytes as in 4096, 500M or 32G");
    lab.ds4(&["kv", "ls", "no-such"]).fails(&["no-such", "expected a folder of kept sessions"]);
    lab.ds4(&["kv", "show", "ffff", "kept"]).fails(&["ffff", "not in the store"]);
}

#[test]
fn a_folder_of_other_files_is_left_alone() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("work")).unwrap();
    lab.write("work/draft.tmp", "dear diary");
    private(&lab, "work", 0o700);
    for action in ["ls", "verify", "gc"] {
        lab.ds4(&["kv", action, "work"]).fails(&["work", "expected a folder of kept sessions, got none"]);
        // There may be no default folder yet.
        let none = lab.ds4(&["kv", action]).good();
        assert!(none.starts_with("nothing is kept in "), "{none}");
    }
    let run = lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "work"]);
    run.fails(&["work", "expected an empty folder or one of kept sessions, got one that holds draft.tmp"]);
    let run = lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "work/draft.tmp"]);
    run.fails(&["draft.tmp", "expected a folder that only its owner can write, got a file"]);
    let names: Vec<_> =
        std::fs::read_dir(lab.path("work")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["draft.tmp"]);
    // What others put beside the store's own files stays, too.
    lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "kept"]).good();
    lab.write("kept/draft.tmp", "dear diary");
    lab.ds4(&["kv", "gc", "kept"]).good();
    assert!(lab.path("kept/draft.tmp").is_file());
}

#[cfg(unix)]
fn private(lab: &Lab, folder: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(lab.path(folder), PermissionsExt::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn private(_: &Lab, _: &str, _: u32) {}

#[cfg(unix)]
#[test]
fn a_folder_that_others_can_write_is_refused() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("open")).unwrap();
    private(&lab, "open", 0o777);
    let run = lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "open"]);
    run.fails(&["open", "expected a folder that only its owner can write, got mode 777"]);
}

#[test]
fn a_budget_keeps_the_folder_small() {
    let lab = Lab::new();
    let args = ["chat", "--temp", "0", "--kv", "kept", "--kv-budget", "200K"];
    let answer = lab.ds4_with(&args, &format!("{ARK}\n{ABEL}\n{ARK}\n"));
    assert_eq!(answer.out, "Noah built the ark.\nCain killed Abel.\nNoah built the ark.\n");
    let bytes = |p: &PathBuf| std::fs::metadata(p).unwrap().len();
    let all: u64 =
        ["rows", "edge"].iter().flat_map(|e| files(&lab, "kept/nodes", e)).map(|p| bytes(&p)).sum();
    assert!(all <= 200 << 10, "{all}");
    assert!(lab.ds4(&["kv", "verify", text(&lab.path("kept"))]).good().contains("entries whole"));
}

#[test]
fn lack_of_room_is_told_once() {
    let lab = Lab::new();
    let run = lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "kept", "--kv-budget", "1K"]);
    assert_eq!(run.err.matches("warning: ").count(), 1, "{run:?}");
    assert!(run.err.contains("not saved: store budget: expected room for "), "{run:?}");
    assert_eq!(run.good(), "Noah built the ark.\n");
}

#[test]
fn a_kept_conversation_is_removed() {
    let lab = Lab::new();
    let made = names(&chat(&lab, &[ARK, ABEL, "/fork copy", "/list"]));
    let name = made.into_iter().find(|name| name != "copy").unwrap();
    let before = lab.ds4(&["kv", "ls", "kept"]).good();
    assert!(before.contains(&format!("session {name}  ")) && before.contains("session copy  "), "{before}");
    // The copy stands on the same states.
    assert!(lab.ds4(&["kv", "rm", &name, "kept"]).good().starts_with("0 bytes freed, "));
    assert!(!lab.ds4(&["kv", "ls", "kept"]).good().contains(&name));
    assert!(chat(&lab, &[&format!("/switch {name}")]).err.contains("not in the store"));
    let gone = lab.ds4(&["kv", "rm", "copy", "kept"]).good();
    assert!(gone.ends_with("bytes freed, 0 in use\n") && !gone.starts_with("0 "), "{gone}");
    let left = lab.ds4(&["kv", "ls", "kept"]).good();
    assert_eq!(left.lines().count(), 1, "{left}");
    for folder in ["nodes", "sessions"] {
        assert_eq!(std::fs::read_dir(lab.path("kept").join(folder)).unwrap().count(), 0, "{folder}");
    }
    lab.ds4(&["kv", "rm", "copy", "kept"]).fails(&["copy", "not in the store"]);

    // One state, by the beginning of its key.
    chat(&lab, &[ARK]).good();
    let ls = lab.ds4(&["kv", "ls", "kept"]).good();
    let key = ls.lines().find(|l| l.contains(" tokens ")).unwrap().split(' ').next().unwrap();
    assert!(lab.ds4(&["kv", "rm", key, "kept"]).good().contains(" bytes freed, "));
    assert!(!lab.ds4(&["kv", "ls", "kept"]).good().contains(key));
    assert!(lab.ds4(&["kv", "verify", "kept"]).good().contains("entries whole"));
}

#[test]
fn a_store_of_another_version_is_left_alone_and_the_answer_is_right() {
    let lab = Lab::new();
    let run = || lab.ds4(&["run", "--temp", "0", "-p", ARK, "--kv", "kept"]);
    run().good();
    let mut index = std::fs::read(lab.path("kept/index")).unwrap();
    index[8] = 2;
    let sum = twox_hash::XxHash3_64::oneshot(&index[..56]);
    index[56..64].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(lab.path("kept/index"), &index).unwrap();
    let other = run();
    let warning = "index: expected version 1, got version 2, of another ds4: nothing is restored or kept";
    assert!(other.err.lines().any(|l| l.starts_with("warning: ") && l.ends_with(warning)), "{other:?}");
    assert_eq!(restored(&other), []);
    assert_eq!(other.good(), "Noah built the ark.\n");
    lab.ds4(&["kv", "ls", "kept"]).fails(&["index", "expected version 1, got version 2"]);
    assert_eq!(std::fs::read(lab.path("kept/index")).unwrap(), index);
    assert_eq!(std::fs::read_dir(lab.path("kept/quarantine")).unwrap().count(), 0);
    // The one that wrote it finds all as it was.
    index[8] = 1;
    let sum = twox_hash::XxHash3_64::oneshot(&index[..56]);
    index[56..64].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(lab.path("kept/index"), &index).unwrap();
    let (n, of, _) = restored(&run()).remove(0);
    assert_eq!(n, of);
}

//! The real programs, killed by SIGKILL while they answer: no shown text is lost, what is kept is whole,
//! and the next run goes on. `DS4_KILLS` says how often, eight times if absent.
use crate::lab::Lab;
use ds4::open::{Wish, open};
use ds4_models::chat::{Content, Conversation, Options, Role};
use ds4_models::tokenizer::Tokenizer;
use ds4_runtime::store::{RealDisk, Store};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

const QUESTIONS: [&str; 2] = ["Who built the ark?", "Who killed Abel?"];

fn rounds() -> u64 {
    std::env::var("DS4_KILLS").map_or(8, |n| n.parse().expect("a number of rounds"))
}

/// Runs a command with `input` until it has shown `bytes` bytes, then kills it; what it has shown.
fn killed(lab: &Lab, args: &[&str], input: &str, bytes: usize) -> String {
    let mut command = lab.command("ds4", args);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = vec![0; bytes];
    stdout.read_exact(&mut shown).unwrap_or_else(|e| panic!("{args:?}: ended before it was killed: {e}"));
    assert!(child.try_wait().unwrap().is_none(), "it is still at work");
    child.kill().unwrap();
    child.wait().unwrap();
    stdout.read_to_end(&mut shown).unwrap();
    // The last character may have been cut.
    String::from_utf8_lossy(&shown).trim_end_matches(char::REPLACEMENT_CHARACTER).to_string()
}

fn store(folder: &Path) -> Store {
    Store::open(Arc::new(RealDisk), folder, Default::default()).unwrap()
}

/// The answers in a conversation's journal.
fn answers(lab: &Lab, tokenizer: &Tokenizer, name: &str) -> Vec<String> {
    let session = store(&lab.path("kept")).session(name).unwrap();
    assert_eq!(session.damaged, None);
    let read = Conversation::from_tokens(tokenizer, &session.tokens, Options::default()).unwrap();
    let answers = read.messages.into_iter().filter(|m| m.role == Role::Assistant);
    let text = |content: Option<Content>| match content {
        Some(Content::Text(text)) => text,
        _ => String::new(),
    };
    answers.map(|m| text(m.content)).collect()
}

/// How many tokens the last line `restored N of M tokens` tells, and of how many.
fn restored(err: &str) -> (usize, usize) {
    let line = err.lines().rev().find_map(|l| l.strip_prefix("restored ")).expect("a line that says so");
    let mut numbers = line.split(' ').filter_map(|word| word.trim_end_matches(':').parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A number below `n` that looks random and is the same in every run.
fn below(n: usize, round: u64) -> usize {
    ((round + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize % n
}

#[test]
fn killing_chat_loses_nothing_that_was_shown() {
    let (lab, tokenizer) = (Lab::new(), open(None, &Wish::default()).unwrap().tokenizer().unwrap());
    let args = ["chat", "--temp", "0", "--kv", "kept"];
    let (mut name, mut before) = (String::new(), Vec::new());
    let mut rounds_restored = 0;
    for round in 0..rounds() {
        // Every other conversation goes on where the last was killed.
        let goes_on = round % 2 == 1;
        let questions = QUESTIONS.repeat(30).join("\n") + "\n";
        let input = if goes_on { format!("/switch {name}\n{questions}") } else { questions };
        let known: BTreeSet<String> = names(&lab);
        if !goes_on {
            before.clear();
        }
        let shown = killed(&lab, &args, &input, 1 + below(400, round));
        if !goes_on {
            name = names(&lab).difference(&known).next().expect("its journal").clone();
        }
        let now = answers(&lab, &tokenizer, &name);
        assert_eq!(now[..before.len()], before, "round {round}: what was said before");
        let said = now[before.len()..].join("\n") + "\n";
        assert!(said.starts_with(&shown), "round {round}: shown {shown:?}, kept {said:?}");
        lab.ds4(&["kv", "verify", "kept"]).good();

        // Another process brings it back, and then there is nothing left to compute of it.
        let next = lab.ds4_with(&args, &format!("/switch {name}\n{}\n", QUESTIONS[0]));
        assert!(next.err.contains(&format!("{name}: ")) && !next.err.contains("error"), "{next:?}");
        assert!(!next.err.contains("warning"), "{next:?}");
        rounds_restored += u64::from(restored(&next.err).0 > 0);
        next.good();
        let again = lab.ds4_with(&args, &format!("/switch {name}\n"));
        let (n, of) = restored(&again.err);
        assert_eq!(n, of, "{again:?}");
        before = answers(&lab, &tokenizer, &name);
    }
    assert!(rounds_restored > 0, "some were killed after their first save");
}

fn names(lab: &Lab) -> BTreeSet<String> {
    if !lab.path("kept").exists() {
        return BTreeSet::new();
    }
    store(&lab.path("kept")).session_names().unwrap().into_iter().collect()
}

#[test]
fn killing_run_loses_nothing_that_was_shown() {
    let (lab, tokenizer) = (Lab::new(), open(None, &Wish::default()).unwrap().tokenizer().unwrap());
    for round in 0..rounds() {
        let prompt = format!("And in the year {round} it came to pass");
        let args = ["run", "--raw", "--temp", "0", "-p", &prompt, "--kv", "kept"];
        let shown =
            killed(&lab, &[&args[..], &["-n", "900"]].concat(), "", prompt.len() + 1 + below(1_500, round));
        let name = names(&lab).pop_first().expect("its journal");
        let session = store(&lab.path("kept")).session(&name).unwrap();
        assert_eq!(session.damaged, None);
        let said = tokenizer.decode(&session.tokens[1..]);
        assert!(said.starts_with(&shown), "round {round}: shown {shown:?}, kept {said:?}");
        lab.ds4(&["kv", "verify", "kept"]).good();
        // The next run finds what there was time to save, and leaves the rest.
        let next = lab.ds4(&[&args[..], &["-n", "1"]].concat());
        assert!(!next.err.contains("warning"), "{next:?}");
        next.good();
        let again = lab.ds4(&[&args[..], &["-n", "1"]].concat());
        let (n, of) = restored(&again.err);
        assert_eq!(n, of, "{again:?}");
        lab.ds4(&["kv", "rm", &name, "kept"]).good();
        assert_eq!(names(&lab).len(), 0);
    }
}

//! `ds4 chat` with lines that come from a pipe.
use crate::lab::{Answer, Lab};

#[test]
fn a_conversation_with_commands() {
    let lab = Lab::new();
    let system = "/system Answer with one sentence.";
    let lines = [
        "/help",
        "Who built the ark?",
        "/bogus",
        "",
        "/new",
        "Who killed Abel?",
        system,
        "/nothink",
        "/quit",
        "Who built the ark?",
    ];
    let answer = lab.ds4_with(&["chat", "--temp", "0"], &(lines.join("\n") + "\n"));
    assert!(answer.err.contains("/system TEXT") && answer.err.contains("/quit"), "{answer:?}");
    assert!(answer.err.contains("error: /bogus: no such command; /help lists them"), "{answer:?}");
    assert_eq!(answer.err.matches("prefill: ").count(), 2, "{answer:?}");
    // Nothing is asked after /quit.
    assert_eq!(answer.good(), "Noah built the ark.\nCain killed Abel.\n");
}

#[test]
fn the_conversation_goes_on_and_the_prefix_is_not_computed_again() {
    let lab = Lab::new();
    let ask = |text: &str| lab.ds4_with(&["chat", "--temp", "0"], text);
    let answer = ask("Who built the ark?\nWho killed Abel?\n");
    let prefills = |answer: &Answer| -> Vec<usize> {
        let tokens = |l: &str| l.strip_prefix("prefill: ")?.split(' ').next()?.parse().ok();
        answer.err.lines().filter_map(tokens).collect()
    };
    let both = prefills(&answer);
    assert_eq!(both.len(), 2, "{answer:?}");
    let alone = prefills(&ask("Who killed Abel?\n"));
    // The second question opens no new prompt, so it needs a token or two more than one alone, not
    // the whole first exchange.
    assert!(both[1] <= alone[0] + 4, "{both:?} {alone:?}");
    assert_eq!(answer.good().lines().next(), Some("Noah built the ark."));
}

#[test]
fn a_file_is_said_and_a_missing_one_is_told() {
    let lab = Lab::new();
    lab.write("question.txt", "Who built the ark?");
    let answer = lab.ds4_with(&["chat", "--temp", "0"], "/read no-such-file\n/read question.txt\n");
    assert!(answer.err.contains("error: no-such-file: "), "{answer:?}");
    assert_eq!(answer.good(), "Noah built the ark.\n");
}

#[test]
fn what_does_not_fit_the_context_leaves_the_conversation_as_it_was() {
    let lab = Lab::new();
    let long = "word ".repeat(80);
    let lines = format!("{long}\nWho built the ark?\n");
    let answer = lab.ds4_with(&["chat", "--temp", "0", "--ctx", "32"], &lines);
    assert!(answer.err.contains("error: context: expected at most 32 tokens"), "{answer:?}");
    assert_eq!(answer.good(), "Noah built the ark.\n");
}

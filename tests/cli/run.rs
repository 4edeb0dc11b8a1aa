//! `ds4 run` and `ds4 tokens`.
use crate::common::fixture;
use crate::lab::{Answer, Lab, interrupt, text};
use ds4::demo::PROMPT;
use std::io::{BufRead, BufReader, Read};

const QUESTION: &str = "Who built the ark?";
const ANSWER: &str = "Noah built the ark.\n";

#[test]
fn without_anything_the_demo_continues_its_own_prompt() {
    let lab = Lab::new();
    let answer = lab.ds4(&["run", "-n", "24", "--temp", "0"]);
    assert!(answer.out.starts_with(PROMPT) && answer.out.len() > PROMPT.len() + 20, "{answer:?}");
    let speeds = answer.err.lines().last().unwrap();
    assert!(speeds.starts_with("prefill: ") && speeds.contains("; decode: 24 tokens, "), "{answer:?}");
    assert_eq!(speeds.matches("tokens/s").count(), 2, "{answer:?}");
    // The same again from the cache, and under its name.
    let again = lab.ds4(&["run", "demo", "-n", "24", "--temp", "0"]);
    assert_eq!(again.good(), answer.good());
}

#[test]
fn a_prompt_may_come_from_flag_file_and_standard_input() {
    let lab = Lab::new();
    let greedy = ["run", "--temp", "0"];
    assert_eq!(lab.ds4(&[&greedy[..], &["-p", QUESTION]].concat()).good(), ANSWER);
    assert_eq!(lab.ds4(&[&greedy[..], &["demo", "--prompt", QUESTION]].concat()).good(), ANSWER);
    let file = lab.write("prompt.txt", QUESTION);
    assert_eq!(lab.ds4(&[&greedy[..], &["--prompt-file", text(&file)]].concat()).good(), ANSWER);
    assert_eq!(lab.ds4_with(&greedy, QUESTION).good(), ANSWER);
    // An explicit mode and one thread change nothing.
    let flags = ["-p", QUESTION, "--nothink", "--threads", "1"];
    assert_eq!(lab.ds4(&[&greedy[..], &flags].concat()).good(), ANSWER);
}

#[test]
fn what_is_thought_and_what_is_said_are_two_paragraphs() {
    let lab = Lab::new();
    let ask = |flags: &[&str]| {
        lab.ds4(&[&["run", "-p", "Who built the ark?", "--temp", "0"], flags].concat()).good()
    };
    for flag in ["--think", "--think-max"] {
        assert_eq!(ask(&[flag]), "I know this.\nNoah built the ark.\n", "{flag}");
    }
    assert_eq!(ask(&["--nothink"]), "Noah built the ark.\n");
    let prefilled = |flags: &[&str]| {
        let flags = [&["run", "-p", "Who built the ark?", "-n", "1", "--no-kv"], flags].concat();
        let told = lab.ds4(&flags).err;
        let (_, rest) = told.split_once("prefill: ").unwrap_or_else(|| panic!("{told}"));
        rest.split_once(' ').unwrap().0.parse::<u32>().unwrap()
    };
    let instructed =
        ["--system", "--sys", "-sys"].map(|flag| prefilled(&[flag, "Answer with one sentence."]));
    assert!(prefilled(&[]) < instructed[0] && instructed == [instructed[0]; 3], "{instructed:?}");
}

#[test]
fn raw_text_is_continued_and_n_limits_the_tokens() {
    let lab = Lab::new();
    let run = |n: &str, raw: &[&str]| {
        lab.ds4(&[&["run", "-p", "And the LORD said unto Moses,", "--temp", "0", "-n", n][..], raw].concat())
    };
    let (long, short, none) = (run("12", &["--raw"]), run("5", &["--raw"]), run("0", &["--raw"]));
    assert!(long.err.contains("decode: 12 tokens"), "{long:?}");
    assert!(short.err.contains("decode: 5 tokens"), "{short:?}");
    assert!(none.err.contains("decode: 0 tokens"), "{none:?}");
    let (long, short) = (long.good(), short.good());
    assert!(long.starts_with(short.trim_end()) && short.len() < long.len(), "{short:?} {long:?}");
    assert_ne!(run("12", &[]).good(), long, "with roles it is another prompt");
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let lab = Lab::new();
    let run = |flags: &[&str]| {
        let fixed = ["run", "--raw", "-p", "And it came to pass", "-n", "40", "--temp", "1.2"];
        lab.ds4(&[&fixed[..], flags].concat()).good()
    };
    let text = run(&["--seed", "7"]);
    assert_eq!(text, run(&["--seed", "7"]));
    assert_ne!(text, run(&["--seed", "8"]));
    // One candidate leaves no choice, however hot.
    assert_eq!(run(&["--top-k", "1", "--seed", "1"]), run(&["--top-k", "1", "--seed", "2"]));
    assert_eq!(run(&["--top-p", "0", "--seed", "1"]), run(&["--min-p", "1", "--seed", "2"]));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let lab = Lab::new();
    lab.ds4(&["run", "--bogus"]).is_usage("--bogus");
    lab.ds4(&["run", "-n", "many"]).is_usage("many");
    lab.ds4(&["run", "--numerics", "sloppy"]).is_usage("exact, official, fast");
    lab.ds4(&["run", "--ctx", "0"]).is_usage("0");
    lab.ds4(&["run", "-p", "a", "--prompt-file", "b"]).is_usage("cannot be used with");
    lab.ds4(&["run", "--raw", "--system", "x"]).is_usage("cannot be used with");
    lab.ds4(&["run", "--think", "--nothink"]).is_usage("cannot be used with");
    lab.ds4(&["waltz"]).is_usage("waltz");
    lab.ds4::<&str>(&[]).is_usage("Usage");
    lab.ds4(&["logits", "demo", "--tokens", "x", "-o", "y", "--chunk", "0"]).is_usage("above 0");
    lab.ds4c(&["compile"]).is_usage("MODEL");
    lab.ds4c(&["synth", "flash", "--layers", "0", "-o", "x"]).is_usage("0");
    assert_eq!(lab.ds4(&["--help"]).code, Some(0));
    assert_eq!(lab.ds4c(&["--version"]).good(), format!("ds4c {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_missing_or_out_of_range_is_told_in_one_message() {
    let lab = Lab::new();
    lab.ds4(&["run", "no-such-model", "-p", "x"]).fails(&["no-such-model"]);
    lab.ds4(&["run", "--prompt-file", "no-such-file"]).fails(&["no-such-file"]);
    lab.ds4(&["run", "-p", "x", "--temp", "101"]).fails(&["temperature", "0 to 100", "101"]);
    lab.ds4(&["run", "-p", "x", "--top-p", "1.5"]).fails(&["top-p", "0 to 1", "1.5"]);
    lab.ds4(&["run", "-p", "x", "--min-p", "nan"]).fails(&["min-p", "NaN"]);
    lab.ds4(&["run", "-p", "x", "--threads", "5000"]).fails(&["threads", "1024", "5000"]);
    lab.ds4(&["run", "-p", "x", "--ctx", "1000000"]).fails(&["context", "4096", "1000000"]);
    lab.ds4c(&["inspect", "no-such-file"]).fails(&["no-such-file"]);
    lab.ds4c(&["compile", "no-such-model"]).fails(&["no-such-model"]);
}

#[test]
fn a_full_context_stops_and_a_longer_prompt_is_an_error() {
    let lab = Lab::new();
    let run = |n: &str| {
        let fixed = ["run", "--raw", "-p", "And it came to pass", "--temp", "0", "--ctx", "16", "-n"];
        lab.ds4(&[&fixed[..], &[n]].concat())
    };
    let answer = run("100");
    assert!(answer.err.contains("stopped: the context of 16 tokens is full"), "{answer:?}");
    answer.good();
    let prompt = "word ".repeat(100);
    Lab::new().ds4(&["run", "--raw", "-p", &prompt, "--ctx", "16"]).fails(&["context", "at most 16 tokens"]);
}

#[test]
fn tokens_are_shown_with_their_pieces() {
    let lab = Lab::new();
    let out = lab.ds4(&["tokens", "demo", "-p", "Noah built\nthe ark"]).good();
    let mut whole = String::new();
    for line in out.lines() {
        let (id, piece) = line.split_once('\t').unwrap();
        assert!(id.parse::<u32>().unwrap() < 2048, "{line}");
        whole += &serde_json::from_str::<String>(piece).unwrap();
    }
    assert_eq!(whole, "Noah built\nthe ark");
    assert_eq!(lab.ds4(&["tokens", "-p", ""]).good(), "");
}

#[test]
fn a_model_without_words_refuses_text_and_says_so() {
    let lab = Lab::new();
    let model = fixture("flash-bf16");
    for args in
        [&["run", text(&model), "-p", "x"][..], &["tokens", text(&model), "-p", "x"], &["chat", text(&model)]]
    {
        lab.ds4(args).fails(&["flash-bf16", "no tokenizer", "token ids"]);
    }
}

/// Starts a run that would take minutes and answers when its first text is there.
fn long_run(lab: &Lab) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let args = ["run", "--raw", "-p", "And it came to pass", "--temp", "1.5", "--seed", "1"];
    let mut child = lab.command("ds4", &args).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert!(!out.fill_buf().unwrap().is_empty());
    (child, out)
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_a_run_cleanly() {
    let lab = Lab::new();
    let (child, mut out) = long_run(&lab);
    interrupt(&child);
    let mut shown = String::new();
    out.read_to_string(&mut shown).unwrap();
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(shown.ends_with('\n'), "{shown:?}");
    assert!(answer.err.contains("stopped\nprefill: "), "{answer:?}");
    assert!(answer.err.contains("; decode: "), "{answer:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let lab = Lab::new();
    let (child, out) = long_run(&lab);
    drop(out);
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.told().iter().all(|line| line.starts_with("restored ")), "{answer:?}");
}

//! One file per command.
pub mod bench;
pub mod chat;
pub mod compile;
pub mod diff;
pub mod emit;
pub mod inspect;
pub mod kv;
pub mod layout;
pub mod logits;
pub mod probe;
pub mod run;
pub mod synth;
pub mod tokens;
pub mod verify;

use anyhow::Result;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

/// The exit code of a command: 0 done, 1 an error, told in one message on stderr.
///
/// A reader of our output that goes away early is no error.
pub fn exit(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let broken_pipe = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe);
    if broken_pipe {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", told(&error));
    ExitCode::FAILURE
}

/// An error with its causes, each once: some errors tell their cause themselves.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

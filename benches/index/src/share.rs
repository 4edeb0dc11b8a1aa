//! Two processes that use one index.
use crate::log::Log;
use crate::tree::Tree;
use crate::{CHANGES, Failure, Index, LONG, SESSIONS, longer, median, seconds};
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Set for a child; its value says which index is at work.
const CHILD: &str = "DS4_INDEX_CHILD";

pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Makes changes as the lines of standard input ask for: `NUMBER HOW_MANY`.
pub fn child() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).ok_or("no folder")?;
    match std::env::var(CHILD)?.as_str() {
        "log" => changes(&Log::open(Path::new(&folder))),
        _ => changes(&Tree::open(Path::new(&folder))),
    }
}

fn changes(index: &impl Index) -> Result<(), Failure> {
    for line in stdin().lock().lines() {
        let line = line?;
        let (number, many) = line.split_once(' ').ok_or("two numbers")?;
        let (number, many): (u32, u32) = (number.parse()?, many.parse()?);
        let time = seconds(|| {
            (0..many).for_each(|i| index.put(&longer((number + i) * 31 % SESSIONS, number + i)));
        });
        writeln!(stdout(), "{time}")?;
    }
    Ok(())
}

struct Other {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn start(which: &str, folder: &Path) -> Result<Other, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(folder).env(CHILD, which).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut other = Other { child, said };
        // The first change of a process compares the folder with the log.
        other.ask(std::process::id() * 1000 + other.child.id(), 1)?;
        other.answer()?;
        Ok(other)
    }

    fn ask(&mut self, number: u32, many: u32) -> Result<(), Failure> {
        Ok(writeln!(self.child.stdin.as_mut().ok_or("no input")?, "{number} {many}")?)
    }

    fn answer(&mut self) -> Result<f64, Failure> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    fn end(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        if self.child.wait()?.success() { Ok(()) } else { Err("a process failed".into()) }
    }
}

/// Seconds of a change while two processes make [`CHANGES`] each.
pub fn at_once(which: &str, folder: &Path) -> Result<f64, Failure> {
    let mut others = [Other::start(which, folder)?, Other::start(which, folder)?];
    for (i, other) in others.iter_mut().enumerate() {
        other.ask(1_000_000 * (i as u32 + 1), CHANGES)?;
    }
    let mut longest = 0.0_f64;
    for mut other in others {
        longest = longest.max(other.answer()?);
        other.end()?;
    }
    Ok(longest / f64::from(2 * CHANGES))
}

/// Seconds of a look-up each of which finds what another process put there just before.
pub fn follow<I: Index>(which: &str, folder: &Path) -> Result<f64, Failure> {
    let index = I::open(folder);
    let mut other = Other::start(which, folder)?;
    let mut times = Vec::new();
    for number in 5_000_000..5_000_000 + CHANGES {
        other.ask(number, 1)?;
        other.answer()?;
        let tokens = longer(number * 31 % SESSIONS, number);
        times.push(seconds(|| assert_eq!(index.find(&tokens), LONG as u64 + 40)));
    }
    other.end()?;
    Ok(median(times))
}

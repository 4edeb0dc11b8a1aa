//! A folder in which programs run, and what they answered.
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A folder with a cache of its own, removed at the end.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab { folder: tempfile::tempdir().unwrap() }
    }

    /// Path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and answers its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// A copy of a fixture's model, which tests may damage.
    pub(crate) fn model(&self, fixture: &str) -> PathBuf {
        let folder = self.path(fixture);
        std::fs::create_dir(&folder).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(crate::common::fixture(fixture).join(name), folder.join(name)).unwrap();
        }
        folder
    }

    /// The command `program` with `args`, run in the folder.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, program: &str, args: &[S]) -> Command {
        let path = if program == "ds4c" { env!("CARGO_BIN_EXE_ds4c") } else { env!("CARGO_BIN_EXE_ds4") };
        let mut command = Command::new(path);
        command.args(args).current_dir(self.folder.path());
        command.env("XDG_CACHE_HOME", self.path("cache")).env("HOME", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn ds4<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        Answer::of(self.command("ds4", args).output().unwrap())
    }

    pub(crate) fn ds4c<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        Answer::of(self.command("ds4c", args).output().unwrap())
    }

    /// Runs `ds4` with `text` on standard input.
    pub(crate) fn ds4_with(&self, args: &[&str], text: &str) -> Answer {
        let mut child = self.command("ds4", args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Answer::of(child.wait_with_output().unwrap())
    }
}

impl Answer {
    pub(crate) fn of(output: Output) -> Answer {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it wrote to standard output, all having gone well.
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// The lines on standard error, without the first of a build with GPUs: what it chose to run on.
    pub(crate) fn told(&self) -> Vec<&str> {
        let chose = |line: &&str| cfg!(feature = "gpu") && line.starts_with("target ");
        self.err.lines().skip_while(chose).collect()
    }

    /// That it failed with one message, which holds all of `parts`.
    pub(crate) fn fails(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        let lines = self.told();
        assert_eq!(lines.len(), 1, "one message: {self:?}");
        assert!(lines[0].starts_with("error: "), "{self:?}");
        let parts_told: Vec<&str> = lines[0].split(": ").collect();
        assert!(parts_told.windows(2).all(|w| w[0] != w[1]), "told twice: {self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is missing: {self:?}");
        }
    }

    /// That it failed and named `part`, with as many messages as it had to say.
    pub(crate) fn fails_saying(&self, part: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.err.contains(part), "{part:?} is missing: {self:?}");
    }

    /// That it was used wrongly.
    pub(crate) fn is_usage(&self, part: &str) {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert!(self.err.contains(part), "{part:?} is missing: {self:?}");
    }
}

/// Sends a running program the signal of Ctrl-C.
#[cfg(unix)]
pub(crate) fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

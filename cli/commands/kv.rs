//! `ds4 kv`: a look into a folder of kept sessions.
use crate::keep::{folder, open_store, size, warn};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use ds4_runtime::store::{Key, Options, RealDisk, Store};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Look after kept sessions.
#[derive(Args, Debug)]
pub struct KvCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List stored states and sessions
    Ls {
        /// The folder; `kv` in the cache folder if absent
        dir: Option<PathBuf>,
    },
    /// Show a stored state: the states it extends, and its tokens
    Show {
        /// The beginning of its key
        key: String,
        /// The folder
        dir: Option<PathBuf>,
    },
    /// Read every byte of every committed entry; fails naming each that is not whole
    Verify {
        /// The folder
        dir: Option<PathBuf>,
    },
    /// Remove what was put aside, and states down to a size
    Gc {
        /// The folder
        dir: Option<PathBuf>,
        /// Most that may stay, as in 500M or 32G
        #[arg(long, value_name = "SIZE", value_parser = size)]
        budget: Option<u64>,
    },
    /// Remove a kept conversation with the states that only it stands on, or one stored state
    Rm {
        /// The conversation's name, or the beginning of the state's key
        #[arg(value_name = "NAME|KEY")]
        what: String,
        /// The folder
        dir: Option<PathBuf>,
    },
    /// Write a stored state and all it stands on to one file
    Export {
        /// The beginning of its key
        key: String,
        /// The file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// The folder
        dir: Option<PathBuf>,
    },
    /// Take a state from a file; its states are believed, so take none from those you do not trust
    Import {
        /// The file
        file: PathBuf,
        /// The folder
        dir: Option<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// A folder that cannot be used, a key that is not there, entries that are not whole.
pub fn kv(args: &KvCommand) -> Result<()> {
    match &args.action {
        Action::Ls { dir } => if_kept(dir, |folder| ls(&open(folder)?)),
        Action::Verify { dir } => if_kept(dir, verify),
        Action::Gc { dir, budget } => if_kept(dir, |folder| gc(&open(folder)?, *budget)),
        Action::Show { key, dir } => show(&open(&existing(dir)?)?, key),
        Action::Rm { what, dir } => rm(&open(&existing(dir)?)?, what),
        Action::Export { key, output, dir } => export(&open(&existing(dir)?)?, key, output),
        Action::Import { file, dir } => {
            Ok(writeln!(stdout(), "{}", open(&folder(dir.as_deref())?)?.import(file)?)?)
        }
    }
}

fn open(folder: &Path) -> Result<Store> {
    open_store(folder, Options::default())
}

/// Works on a folder; the default one need not be there yet.
fn if_kept(dir: &Option<PathBuf>, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let default = folder(None).ok().filter(|folder| dir.is_none() && !Store::exists(folder));
    match default {
        Some(folder) => Ok(writeln!(stdout(), "nothing is kept in {}", folder.display())?),
        None => work(&existing(dir)?),
    }
}

/// A folder that is a store already: looking at another must not make it one.
fn existing(dir: &Option<PathBuf>) -> Result<PathBuf> {
    let folder = folder(dir.as_deref())?;
    if !Store::exists(&folder) {
        bail!("{}: expected a folder of kept sessions, got none", folder.display());
    }
    Ok(folder)
}

fn gc(store: &Store, budget: Option<u64>) -> Result<()> {
    let freed = store.gc(budget.unwrap_or(u64::MAX))?;
    writeln!(stdout(), "{freed} bytes freed, {} in use", store.bytes())?;
    warn(store);
    Ok(())
}

fn rm(store: &Store, what: &str) -> Result<()> {
    let freed = match store.session_names()?.iter().any(|name| name == what) {
        true => store.forget_session(what)?,
        false => store.forget_entry(&store.lookup(what)?)?,
    };
    Ok(writeln!(stdout(), "{freed} bytes freed, {} in use", store.bytes())?)
}

fn export(store: &Store, key: &str, output: &Path) -> Result<()> {
    let bytes = store.export(&store.lookup(key)?, output)?;
    Ok(writeln!(stdout(), "{}: {bytes} bytes", output.display())?)
}

fn ls(store: &Store) -> Result<()> {
    let nodes = store.list()?;
    let mut out = stdout().lock();
    writeln!(out, "{} bytes in {}", store.bytes(), store.folder().display())?;
    for node in nodes.iter().filter(|n| n.edge > 0) {
        let used = UNIX_EPOCH + Duration::from_millis(node.used);
        let age = age(SystemTime::now().duration_since(used).unwrap_or_default().as_secs());
        writeln!(
            out,
            "{}  {:>8} tokens  {:>12} bytes  used {age} ago",
            short(&node.key),
            node.end,
            node.rows + node.edge
        )?;
    }
    for name in store.session_names()? {
        match store.session(&name) {
            Ok(session) => {
                let damage = session.damaged.map_or(String::new(), |d| format!("  damaged: {d}"));
                writeln!(out, "session {name}  {} tokens{damage}", session.tokens.len())?;
            }
            // One that cannot be read hides none of the others.
            Err(error) => writeln!(out, "session {name}  damaged: {error}")?,
        }
    }
    Ok(())
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn short(key: &Key) -> String {
    key.to_string().chars().take(16).collect()
}

fn show(store: &Store, key: &str) -> Result<()> {
    let entry = store.show(&store.lookup(key)?)?;
    let mut out = stdout().lock();
    for node in &entry.path {
        writeln!(
            out,
            "{}  tokens {}..{}  rows {}  edge {}",
            short(&node.key),
            node.start,
            node.end,
            node.rows,
            node.edge
        )?;
    }
    Ok(writeln!(out, "{:?}", entry.tokens)?)
}

fn verify(folder: &Path) -> Result<()> {
    let store = Store::open(Arc::new(RealDisk), folder, Options::default())?;
    // A damaged index is rebuilt by opening, which does not make it whole before.
    let index = store.take_warnings();
    let report = store.verify()?;
    index.iter().for_each(|problem| eprintln!("{problem}"));
    for problem in &report.problems {
        eprintln!("{}: {}", problem.file.display(), problem.why);
    }
    match index.len() + report.problems.len() {
        0 => Ok(writeln!(stdout(), "{} entries whole, {} bytes read", report.entries, report.bytes)?),
        n => bail!("{n} files are not whole, {} entries looked at", report.entries),
    }
}

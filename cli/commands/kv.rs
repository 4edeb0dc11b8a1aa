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
        Action::Ls { dir } => ls(&store(dir)?),
        Action::Show { key, dir } => show(&store(dir)?, key),
        Action::Verify { dir } => verify(&existing(dir)?),
        Action::Gc { dir, budget } => {
            let store = store(dir)?;
            let freed = store.gc(budget.unwrap_or(u64::MAX))?;
            writeln!(stdout(), "{freed} bytes freed, {} in use", store.bytes())?;
            warn(&store);
            Ok(())
        }
        Action::Export { key, output, dir } => {
            let store = store(dir)?;
            let bytes = store.export(&store.lookup(key)?, output)?;
            writeln!(stdout(), "{}: {bytes} bytes", output.display())?;
            Ok(())
        }
        Action::Import { file, dir } => Ok(writeln!(stdout(), "{}", store(dir)?.import(file)?)?),
    }
}

/// Opens a folder that is there already: looking at one must not make it.
fn store(dir: &Option<PathBuf>) -> Result<Store> {
    open_store(&existing(dir)?, Options::default())
}

fn existing(dir: &Option<PathBuf>) -> Result<PathBuf> {
    let folder = folder(dir.as_deref())?;
    if !folder.is_dir() && dir.is_some() {
        bail!("{}: expected a folder of kept sessions, got none", folder.display());
    }
    Ok(folder)
}

fn ls(store: &Store) -> Result<()> {
    let nodes = store.list()?;
    let mut out = stdout().lock();
    writeln!(out, "{} bytes in {}", store.bytes(), store.folder().display())?;
    for node in nodes.iter().filter(|n| n.edge > 0) {
        let used = UNIX_EPOCH + Duration::from_millis(node.used);
        let age = SystemTime::now().duration_since(used).unwrap_or_default().as_secs();
        writeln!(
            out,
            "{}  {:>8} tokens  {:>12} bytes  used {age} s ago",
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

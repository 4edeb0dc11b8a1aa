//! `ds4 kv`: a look into a folder of kept sessions.
use crate::keep::{folder, open_store, warn};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use ds4_runtime::store::{Key, Store};
use std::io::{Write, stdout};
use std::path::PathBuf;
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
        /// Bytes that may stay
        #[arg(long, value_name = "BYTES", default_value_t = u64::MAX)]
        budget: u64,
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
    /// Take a state from a file
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
        Action::Verify { dir } => verify(&store(dir)?),
        Action::Gc { dir, budget } => {
            let store = store(dir)?;
            writeln!(stdout(), "{} bytes freed, {} in use", store.gc(*budget)?, store.bytes())?;
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
    let folder = folder(dir.as_deref())?;
    if !folder.is_dir() && dir.is_some() {
        bail!("{}: expected a folder of kept sessions, got none", folder.display());
    }
    open_store(&folder)
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
        let session = store.session(&name)?;
        let damage = session.damaged.map_or(String::new(), |d| format!("  damaged: {d}"));
        writeln!(out, "session {name}  {} tokens{damage}", session.tokens.len())?;
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

fn verify(store: &Store) -> Result<()> {
    let report = store.verify()?;
    for problem in &report.problems {
        eprintln!("{}: {}", problem.file.display(), problem.why);
    }
    if !report.problems.is_empty() {
        bail!("{} of {} entries are not whole", report.problems.len(), report.entries);
    }
    Ok(writeln!(stdout(), "{} entries whole, {} bytes read", report.entries, report.bytes)?)
}

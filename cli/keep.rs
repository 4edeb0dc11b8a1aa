//! Keeps a session on disk while it runs: tokens in a journal before they are shown, states at
//! boundaries beside the work.
use anyhow::{Context, Result};
use clap::Args;
use ds4_runtime::Session;
use ds4_runtime::store::{Journal, Options, RealDisk, Restored, Store, StoreError, Writer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What an error that ends the work is about, and the way around it.
const KEPT: &str = "kept sessions (--no-kv keeps none)";

/// Where sessions are kept.
#[derive(Args, Clone, Debug)]
pub struct KvArgs {
    /// Folder in which sessions are kept; `kv` in the cache folder if absent
    #[arg(long, value_name = "DIR", conflicts_with = "no_kv")]
    kv: Option<PathBuf>,
    /// Most that kept states may take, as in 500M or 32G; what saves least goes first
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "32G", conflicts_with = "no_kv")]
    kv_budget: u64,
    /// Keep nothing
    #[arg(long)]
    no_kv: bool,
}

/// Bytes as people write them: digits, then K, M, G or T for powers of 1024.
///
/// # Errors
/// Anything else, or more than 64 bits hold.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let bytes = digits.parse::<u64>().ok().zip(shift).and_then(|(n, shift)| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("expected bytes as in 4096, 500M or 32G, got {text}"))
}

/// The store's folder: the one given, or the default.
///
/// # Errors
/// The platform names no cache folder.
pub fn folder(given: Option<&Path>) -> Result<PathBuf> {
    Ok(match given {
        Some(folder) => folder.to_path_buf(),
        None => crate::open::cache()?.join("kv"),
    })
}

/// Opens the store in a folder.
///
/// # Errors
/// A folder that is not private, or cannot be used.
pub fn open_store(folder: &Path, options: Options) -> Result<Store> {
    let store = Store::open(Arc::new(RealDisk), folder, options)?;
    warn(&store);
    Ok(store)
}

/// Tells the store's warnings on stderr.
pub fn warn(store: &Store) {
    for warning in store.take_warnings() {
        eprintln!("warning: {warning}");
    }
}

/// The store, its writer, and the journal of the running session.
pub struct Keeper {
    /// The store.
    pub store: Arc<Store>,
    writer: Writer,
    journal: Option<Journal>,
    is_temporary: bool,
}

impl Keeper {
    /// Opens the store that the flags ask for; `None` with `--no-kv`, and, with a warning, if another
    /// version of ds4 keeps its sessions there. With `is_temporary` the
    /// journal is removed when the work ends as it should; states stay.
    ///
    /// # Errors
    /// A folder that is not private, or cannot be used.
    pub fn open(args: &KvArgs, is_temporary: bool) -> Result<Option<Keeper>> {
        if args.no_kv {
            return Ok(None);
        }
        let options = Options { budget: args.kv_budget, ..Options::default() };
        let folder = folder(args.kv.as_deref())?;
        let store = match open_store(&folder, options) {
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Version { .. })) => {
                eprintln!("warning: {error}: nothing is restored or kept");
                return Ok(None);
            }
            store => Arc::new(store.context(KEPT)?),
        };
        let writer = Writer::start(Arc::clone(&store)).context(KEPT)?;
        Ok(Some(Keeper { store, writer, journal: None, is_temporary }))
    }

    /// Brings the session to the longest stored prefix of `tokens`, and says so.
    pub fn restore(&self, session: &mut Session, tokens: &[u32]) -> Restored {
        let restored = session.restore(&self.store, tokens);
        warn(&self.store);
        eprintln!("{restored}");
        restored
    }

    /// Records that the session's tokens are now `tokens`, of which the first `same` are as before.
    ///
    /// # Errors
    /// The journal cannot be written: the tokens would not survive.
    pub fn record(&mut self, session: &Session, tokens: &[u32], same: usize) -> Result<()> {
        match &mut self.journal {
            Some(journal) => {
                let known = usize::try_from(journal.tokens()).context("journal")?;
                match known > same {
                    true => journal.replace(same as u64, &tokens[same..])?,
                    false => journal.append(&tokens[known..])?,
                }
            }
            None => {
                let name = fresh_name();
                let journal = self.store.create_session(&session.layout(), &name, tokens).context(KEPT)?;
                self.journal = Some(journal);
            }
        }
        Ok(())
    }

    /// Records one more token of the answer that a recorded prompt has.
    ///
    /// # Errors
    /// The journal cannot be written: the token would not survive.
    pub fn append(&mut self, token: u32) -> Result<()> {
        Ok(self.journal.as_mut().context("nothing was recorded")?.append(&[token])?)
    }

    /// Records that the session went back to its first `len` tokens.
    ///
    /// # Errors
    /// The journal cannot be written: the tokens would come back.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        match &mut self.journal {
            Some(journal) if journal.tokens() > len as u64 => Ok(journal.rewind(len as u64)?),
            _ => Ok(()),
        }
    }

    /// Waits until the journal and all queued states are on the disk; tells what could not be.
    ///
    /// # Errors
    /// The journal is not.
    pub fn settle(&self) -> Result<()> {
        self.writer.wait();
        warn(&self.store);
        Ok(self.store.sync_sessions()?)
    }

    /// Queues the states for saving. A full queue skips them: the next boundary has them too.
    pub fn save(&self, session: &Session, tokens: &[u32], logits: &[f32], seconds: f32) {
        match session.capture(&self.store, tokens, logits, seconds) {
            Ok(Some(capture)) => drop(self.writer.save(capture)),
            Ok(None) => {}
            Err(error) => eprintln!("warning: state at {} tokens not saved: {error}", tokens.len()),
        }
    }

    /// Name of the running session's journal, once it has one.
    pub fn name(&self) -> Option<&str> {
        self.journal.as_ref().map(Journal::name)
    }

    /// Goes on under another journal; the one before stays as it is.
    pub fn switch(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// Goes on under a new journal, made with the next tokens.
    pub fn forget(&mut self) {
        self.journal = None;
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// It is not.
    pub fn finish(self) -> Result<()> {
        let Keeper { store, writer, journal, is_temporary } = self;
        drop(writer);
        if let Some(journal) = journal {
            journal.sync()?;
            let name = journal.name().to_string();
            drop(journal);
            if is_temporary {
                store.remove_session(&name)?;
            }
        }
        warn(&store);
        Ok(())
    }
}

/// A session name that no other process takes: time and process.
fn fresh_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    format!("s{now}-{}", std::process::id())
}

//! Everything that can be wrong with a model that a person hands us.
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A model that cannot be used, and why: the thing, what was expected, what was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key of the configuration is absent, out of range, inconsistent or not supported.
    #[error("{key}: expected {expected}, got {got}")]
    Config {
        /// The key as the file spells it.
        key: String,
        /// What is supported.
        expected: String,
        /// What the file says.
        got: String,
    },
    /// A file breaks the rules of its format.
    #[error("{}: {thing}: expected {expected}, got {got}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part of the file.
        thing: String,
        /// What the format demands.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A tensor of the model is in none of the files.
    #[error("{tensor}: expected {expected}, got no tensor of that name")]
    Missing {
        /// The project's name for the weight.
        tensor: String,
        /// The usual spelling in such files and the shape.
        expected: String,
    },
    /// A tensor has another shape than the configuration demands.
    #[error("{tensor}: expected shape {expected}, got {got}")]
    Misshapen {
        /// The name in the file.
        tensor: String,
        /// Shape by the configuration, outermost extent first.
        expected: String,
        /// Shape in the file, outermost extent first.
        got: String,
    },
    /// A tensor has an element type that this weight cannot have.
    #[error("{tensor}: expected type {expected}, got {got}")]
    WrongType {
        /// The name in the file.
        tensor: String,
        /// The types it may have.
        expected: String,
        /// The type in the file.
        got: String,
    },
    /// A name that the model does not have.
    #[error("{name}: expected a weight of this model, got an unknown name")]
    UnknownWeight {
        /// The name asked for.
        name: String,
    },
    /// Something legal that ds4 does not do.
    #[error("{thing}: {why}")]
    Unsupported {
        /// The tensor or file.
        thing: String,
        /// What is not done.
        why: String,
    },
}

impl Error {
    /// Wraps an I/O error with the file it happened on.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    /// A configuration error.
    pub(crate) fn config(
        key: impl Into<String>,
        expected: impl Into<String>,
        got: impl fmt::Display,
    ) -> Error {
        Error::Config { key: key.into(), expected: expected.into(), got: clip(got) }
    }

    /// A format error.
    pub(crate) fn damaged(
        path: &Path,
        thing: impl Into<String>,
        expected: impl Into<String>,
        got: impl fmt::Display,
    ) -> Error {
        Error::Damaged {
            path: path.to_path_buf(),
            thing: clip(thing.into()),
            expected: expected.into(),
            got: clip(got),
        }
    }
}

/// Longest text of a file that a message repeats, in characters.
const QUOTE_MAX: usize = 120;

/// Shortens what a hostile file may have made long, and takes control characters out.
pub(crate) fn clip(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(QUOTE_MAX).map(clean).collect();
    if short.len() < text.len() && text.chars().nth(QUOTE_MAX).is_some() {
        short.push_str("...");
    }
    short
}

/// A shape as messages write it: `[40, 96]`.
pub(crate) fn shape_text<T: fmt::Display>(shape: &[T]) -> String {
    let dims: Vec<String> = shape.iter().map(T::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Opens a regular file and tells its length. Anything else could block or never end.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if !metadata.is_file() {
        return Err(Error::damaged(path, "file", "a regular file", "something else"));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let bytes = file.metadata().map_err(Error::io(path))?.len();
    Ok((file, bytes))
}

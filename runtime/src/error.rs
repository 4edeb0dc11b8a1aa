//! What can go wrong with files, requests and sessions.
use std::io;
use std::path::{Path, PathBuf};

/// An error of the world, told in one message: the thing, what was expected, what came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file's content is not what it must be.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The part, expected and got.
        message: String,
    },
    /// A weight file is not the one that was compiled.
    #[error("{}: {message}; compile the model again", path.display())]
    WeightsChanged {
        /// The weight file.
        path: PathBuf,
        /// The tensor or property, expected and got.
        message: String,
    },
    /// The layout file of an artifact is not the one that was built for it.
    #[error("{}: {message}; `ds4c layout` on the artifact builds the file", path.display())]
    Layout {
        /// The layout file.
        path: PathBuf,
        /// Expected and got.
        message: String,
    },
    /// A token id is no token of the model.
    #[error("token id {id}: expected less than {vocab}")]
    Token {
        /// The id.
        id: u32,
        /// Number of token ids.
        vocab: u32,
    },
    /// More tokens than the context holds.
    #[error("context: expected at most {ctx} tokens, got {position} and {more} more")]
    Context {
        /// Tokens the session can hold.
        ctx: u32,
        /// Tokens it holds.
        position: u64,
        /// Tokens to add.
        more: usize,
    },
    /// A rewind further back than the states keep.
    #[error("rewind: expected at most {max} tokens back, got {back}")]
    Rewind {
        /// Tokens that can be taken back.
        max: u64,
        /// Tokens asked for.
        back: u64,
    },
    /// The caller's cancel flag was set; the session is as it was before the call's current chunk.
    #[error("cancelled")]
    Cancelled,
    /// A GPU, its driver or its compiler; the message names it.
    #[error("{0}")]
    Device(String),
    /// A parameter of a call is out of its range.
    #[error("{0}")]
    Invalid(String),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on I/O with `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn malformed(path: &Path, message: impl Into<String>) -> Error {
        Error::Malformed { path: path.to_path_buf(), message: message.into() }
    }
}

//! What can be wrong with a tokenizer file.

/// A tokenizer that cannot be used, or a name it does not have.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The bytes are not JSON of the tokenizer's shape.
    #[error("tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),
    /// One field holds something this engine cannot honour.
    #[error("tokenizer: {what}: expected {expected}, got {got}")]
    Expected {
        /// The field or token that is wrong.
        what: String,
        /// What it should have been.
        expected: String,
        /// What it was.
        got: String,
    },
    /// The vocabulary has no control token of this spelling.
    #[error("tokenizer: control token `{0}`: expected in the vocabulary, got none")]
    NoControl(String),
    /// A split pattern does not compile.
    #[error("tokenizer: split pattern {index}: expected a regular expression, got error: {message}")]
    Pattern {
        /// Place of the pattern in the pre-tokenizer's list, from 0.
        index: usize,
        /// What the regular expression compiler said.
        message: String,
    },
    /// The BPE model refused the vocabulary.
    #[error("tokenizer: bpe model: expected a usable vocabulary, got error: {0}")]
    Model(String),
}

impl TokenizerError {
    pub(crate) fn expected(
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> TokenizerError {
        TokenizerError::Expected { what: what.into(), expected: expected.into(), got: got.into() }
    }
}

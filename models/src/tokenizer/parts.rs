//! A tokenizer as plain data, whatever file it came from, checked once.
//!
//! After `Parts::check`: every byte has a base token; every merge joins two base tokens into a base
//! token; so text that goes through BPE can produce base tokens only, never a control token.
use std::collections::HashMap;

use super::alphabet;
use super::error::TokenizerError;

/// What a token of the vocabulary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reached by BPE from ordinary text.
    Base,
    /// Matched as a whole or produced by the template; `special` is the file's flag, which does not
    /// change how it is matched.
    Added { special: bool },
}

/// How text is cut before BPE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splits {
    /// Regular expressions applied in turn; each isolates its matches and keeps the gaps.
    pub(crate) patterns: Vec<String>,
    /// Whether the GPT-2 pattern is applied last.
    pub(crate) gpt2: bool,
}

/// Vocabulary, merges and splits; ids are positions in `tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) tokens: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) merges: Vec<(u32, u32)>,
    pub(crate) splits: Splits,
}

/// Longest split pattern taken from a file, in bytes; the official ones are below 150.
const PATTERN_BYTES_MAX: usize = 4096;
/// Most split patterns taken from a file; the official tokenizer has 3.
const PATTERNS_MAX: usize = 16;

impl Parts {
    /// Ids of the base tokens by text.
    pub(crate) fn base_ids(&self) -> HashMap<&str, u32> {
        let base = self.tokens.iter().zip(&self.kinds).zip(0..);
        base.filter(|((_, kind), _)| **kind == Kind::Base)
            .map(|((text, _), id)| (text.as_str(), id))
            .collect()
    }

    /// The invariants in the head of this file.
    pub(crate) fn check(&self) -> Result<(), TokenizerError> {
        assert_eq!(self.tokens.len(), self.kinds.len());
        self.check_splits()?;
        let base = self.base_ids();
        for (byte, c) in alphabet::chars().into_iter().enumerate() {
            if !base.contains_key(c.encode_utf8(&mut [0; 4]) as &str) {
                let what = format!("byte 0x{byte:02x}");
                return Err(TokenizerError::expected(what, format!("a base token `{c}`"), "none"));
            }
        }
        let mut joined = String::new();
        for (rank, &(left, right)) in self.merges.iter().enumerate() {
            let (Some(a), Some(b)) = (self.base_text(left), self.base_text(right)) else {
                let got = format!("ids {left} and {right}");
                return Err(TokenizerError::expected(format!("merge {rank}"), "two base tokens", got));
            };
            joined.clear();
            joined.push_str(a);
            joined.push_str(b);
            if !base.contains_key(joined.as_str()) {
                let (what, got) = (format!("merge {rank} `{a} {b}`"), "no such base token");
                return Err(TokenizerError::expected(what, format!("base token `{joined}`"), got));
            }
        }
        Ok(())
    }

    fn base_text(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        (self.kinds.get(id) == Some(&Kind::Base)).then(|| self.tokens[id].as_str())
    }

    fn check_splits(&self) -> Result<(), TokenizerError> {
        let patterns = &self.splits.patterns;
        if patterns.len() > PATTERNS_MAX {
            let got = patterns.len().to_string();
            return Err(TokenizerError::expected("split patterns", format!("at most {PATTERNS_MAX}"), got));
        }
        for (index, pattern) in patterns.iter().enumerate() {
            if pattern.len() > PATTERN_BYTES_MAX {
                let expected = format!("at most {PATTERN_BYTES_MAX} bytes");
                let what = format!("split pattern {index}");
                return Err(TokenizerError::expected(what, expected, pattern.len().to_string()));
            }
        }
        Ok(())
    }
}

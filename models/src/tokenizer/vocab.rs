//! A tokenizer from the vocabulary and merges a GGUF file carries (spec 4.2).
use std::collections::{HashMap, HashSet};

use super::alphabet;
use super::error::TokenizerError;
use super::parts::{Kind, Parts, Splits};

/// The `tokenizer.ggml.*` arrays of a GGUF file.
#[derive(Clone, Debug, Default)]
pub struct VocabParts {
    /// `tokens`: text of every id, in byte-level spelling.
    pub tokens: Vec<String>,
    /// `merges`: the two parts joined by a space, lowest rank first.
    pub merges: Vec<String>,
    /// `token_type`: one number per token, or empty where the file has none.
    pub token_type: Vec<i32>,
    /// `pre`: name of the split rules.
    pub pre: String,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
}

/// GGUF's number for a token that is matched as a whole and kept out of plain text.
const TYPE_CONTROL: i32 = 3;

/// The split patterns of DeepSeek V3 and V4 (spec 5.1, encoding order, step 2).
pub(crate) const DEEPSEEK_PATTERNS: [&str; 3] = [
    r"\p{N}{1,3}",
    "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"##,
        "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|",
        " ?[\\p{P}\\p{S}]+[\r\n]*|",
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// Names of split rules in GGUF files.
fn splits(pre: &str) -> Result<Splits, TokenizerError> {
    match pre {
        "joyai-llm" | "deepseek-v3" | "deepseek-v4" => {
            Ok(Splits { patterns: DEEPSEEK_PATTERNS.map(String::from).to_vec(), gpt2: false })
        }
        "gpt-2" => Ok(Splits { patterns: Vec::new(), gpt2: true }),
        other => {
            let expected = "`joyai-llm`, `deepseek-v3`, `deepseek-v4` or `gpt-2`";
            Err(TokenizerError::expected("tokenizer.ggml.pre", expected, format!("`{other}`")))
        }
    }
}

/// Checks and converts the arrays of a GGUF file.
pub(crate) fn read(vocab: &VocabParts) -> Result<Parts, TokenizerError> {
    let n_tokens = vocab.tokens.len();
    if !vocab.token_type.is_empty() && vocab.token_type.len() != n_tokens {
        let (expected, got) = (n_tokens.to_string(), vocab.token_type.len().to_string());
        return Err(TokenizerError::expected("tokenizer.ggml.token_type", expected, got));
    }
    let splits = splits(&vocab.pre)?;
    let mut ids = HashMap::with_capacity(n_tokens);
    for (text, id) in vocab.tokens.iter().zip(0u32..) {
        if let Some(before) = ids.insert(text.as_str(), id) {
            let got = format!("`{text}`, which is token {before}");
            return Err(TokenizerError::expected(format!("token {id}"), "a text of its own", got));
        }
    }
    let merges = merges(&vocab.merges, &ids)?;
    let kinds = kinds(vocab, &ids, &merges);
    let parts = Parts { tokens: vocab.tokens.clone(), kinds, merges, splits };
    parts.check()?;
    Ok(parts)
}

fn merges(merges: &[String], ids: &HashMap<&str, u32>) -> Result<Vec<(u32, u32)>, TokenizerError> {
    let pairs = merges.iter().enumerate().map(|(rank, text)| {
        let pair = text.split_once(' ').and_then(|(a, b)| Some((*ids.get(a)?, *ids.get(b)?)));
        pair.ok_or_else(|| {
            TokenizerError::expected(
                format!("merge {rank}"),
                "two tokens of the vocabulary",
                format!("`{text}`"),
            )
        })
    });
    pairs.collect()
}

/// Base tokens are the bytes' characters and what the merges build; BPE reaches nothing else.
///
/// The file's types are not asked: writers disagree about `<think>` and its like, and some write
/// none, while what no merge builds cannot come from text.
fn kinds(vocab: &VocabParts, ids: &HashMap<&str, u32>, merges: &[(u32, u32)]) -> Vec<Kind> {
    let text = |id: u32| vocab.tokens[id as usize].as_str();
    let bytes = alphabet::chars().map(String::from);
    let mut base: HashSet<u32> = bytes.iter().filter_map(|c| ids.get(c.as_str()).copied()).collect();
    let mut joined = String::new();
    for &(a, b) in merges {
        joined.clear();
        joined.push_str(text(a));
        joined.push_str(text(b));
        base.extend(ids.get(joined.as_str()));
    }
    let kind = |id: u32| match base.contains(&id) {
        true => Kind::Base,
        false => Kind::Added { special: vocab.token_type.get(id as usize) == Some(&TYPE_CONTROL) },
    };
    (0..vocab.tokens.len() as u32).map(kind).collect()
}

//! `tokenizer.json` to `Parts` and back.
//!
//! Only what changes the ids is read, and what this engine does not do is an error that names the
//! key: a normaliser, dropout, byte fallback, affixes, whole-word look-up, other pre-tokenizers.
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::TokenizerError;
use super::parts::{Kind, Parts, Splits};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Newer files hold pairs, older ones the two parts joined by a space.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

impl Merge {
    fn parts(&self) -> Option<(&str, &str)> {
        match self {
            Merge::Pair(a, b) => Some((a, b)),
            Merge::Joined(text) => text.split_once(' ').filter(|(_, b)| !b.contains(' ')),
        }
    }
}

/// Reads and checks a `tokenizer.json`.
pub(crate) fn read(bytes: &[u8]) -> Result<Parts, TokenizerError> {
    let file: File = serde_json::from_slice(bytes)?;
    check_model(&file.model)?;
    check_normalizer(file.normalizer.as_ref())?;
    let splits = read_splits(file.pre_tokenizer.as_ref())?;
    let merges = read_merges(&file.model)?;
    let (tokens, kinds) = read_tokens(file.model.vocab, file.added_tokens)?;
    let parts = Parts { tokens, kinds, merges, splits };
    parts.check()?;
    Ok(parts)
}

fn check_model(model: &Model) -> Result<(), TokenizerError> {
    let absent = |key: &str, got: &Option<String>| match got.as_deref() {
        None | Some("") => Ok(()),
        Some(text) => Err(TokenizerError::expected(format!("model.{key}"), "none", format!("`{text}`"))),
    };
    let off = |key: &str, got: bool| match got {
        false => Ok(()),
        true => Err(TokenizerError::expected(format!("model.{key}"), "false", "true")),
    };
    if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
        let got = format!("`{}`", model.kind.as_deref().unwrap_or_default());
        return Err(TokenizerError::expected("model.type", "`BPE`", got));
    }
    if let Some(dropout) = model.dropout.filter(|&p| p != 0.0) {
        return Err(TokenizerError::expected("model.dropout", "none", dropout.to_string()));
    }
    absent("unk_token", &model.unk_token)?;
    absent("continuing_subword_prefix", &model.continuing_subword_prefix)?;
    absent("end_of_word_suffix", &model.end_of_word_suffix)?;
    off("byte_fallback", model.byte_fallback)?;
    off("ignore_merges", model.ignore_merges)
}

fn check_normalizer(normalizer: Option<&Value>) -> Result<(), TokenizerError> {
    let Some(normalizer) = normalizer else { return Ok(()) };
    let empty = normalizer["normalizers"].as_array().is_some_and(Vec::is_empty);
    if normalizer["type"] == "Sequence" && empty {
        return Ok(());
    }
    Err(TokenizerError::expected("normalizer", "none", format!("type {}", normalizer["type"])))
}

fn read_splits(pre_tokenizer: Option<&Value>) -> Result<Splits, TokenizerError> {
    let Some(pre_tokenizer) = pre_tokenizer else {
        return Err(TokenizerError::expected("pre_tokenizer", "a `ByteLevel` step", "none"));
    };
    let steps = match pre_tokenizer["type"].as_str() {
        Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let Some((last, splits)) = steps.split_last() else {
        return Err(TokenizerError::expected("pre_tokenizer", "a `ByteLevel` step", "an empty sequence"));
    };
    if last["type"] != "ByteLevel" {
        let got = format!("type {}", last["type"]);
        return Err(TokenizerError::expected("pre_tokenizer's last step", "type \"ByteLevel\"", got));
    }
    if last["add_prefix_space"] != Value::Bool(false) {
        let got = last["add_prefix_space"].to_string();
        return Err(TokenizerError::expected("pre_tokenizer.add_prefix_space", "false", got));
    }
    let patterns = splits.iter().enumerate().map(|(index, step)| read_split(index, step));
    let patterns = patterns.collect::<Result<_, _>>()?;
    // The key is younger than the step; files without it mean true.
    Ok(Splits { patterns, gpt2: last["use_regex"] != Value::Bool(false) })
}

fn read_split(index: usize, step: &Value) -> Result<String, TokenizerError> {
    let isolates = step["behavior"] == "Isolated" && step["invert"] != Value::Bool(true);
    match step["pattern"]["Regex"].as_str() {
        Some(pattern) if step["type"] == "Split" && isolates => Ok(pattern.to_owned()),
        _ => {
            let mut got = step.to_string();
            got.truncate(got.char_indices().nth(80).map_or(got.len(), |(at, _)| at));
            let what = format!("pre_tokenizer step {index}");
            Err(TokenizerError::expected(what, "a `Split` that isolates a regular expression", got))
        }
    }
}

fn read_merges(model: &Model) -> Result<Vec<(u32, u32)>, TokenizerError> {
    let id = |rank: usize, text: &str| {
        let id = model.vocab.get(text).copied();
        id.ok_or_else(|| TokenizerError::expected(format!("merge {rank}"), format!("token `{text}`"), "none"))
    };
    let pairs = model.merges.iter().enumerate().map(|(rank, merge)| {
        let Some((a, b)) = merge.parts() else {
            return Err(TokenizerError::expected(format!("merge {rank}"), "two parts", "another number"));
        };
        Ok((id(rank, a)?, id(rank, b)?))
    });
    pairs.collect()
}

/// Places every token at its id; ids must cover 0 to the largest without holes, so that nothing is
/// sized by a number the file merely claims.
fn read_tokens(
    vocab: HashMap<String, u32>,
    added: Vec<Added>,
) -> Result<(Vec<String>, Vec<Kind>), TokenizerError> {
    let mut by_id: HashMap<u32, (String, Kind)> = HashMap::with_capacity(vocab.len() + added.len());
    let mut place = |id: u32, text: String, kind: Kind| match by_id.insert(id, (text.clone(), kind)) {
        Some((before, _)) if before != text => {
            let got = format!("`{before}` and `{text}`");
            Err(TokenizerError::expected(format!("id {id}"), "one token", got))
        }
        _ => Ok(()),
    };
    for token in &added {
        if let Some(&id) = vocab.get(&token.content).filter(|&&id| id != token.id) {
            let what = format!("added token `{}`", token.content);
            return Err(TokenizerError::expected(what, format!("id {id}"), token.id.to_string()));
        }
        if token.lstrip || token.rstrip || token.single_word || token.content.is_empty() {
            let what = format!("added token {} `{}`", token.id, token.content);
            return Err(TokenizerError::expected(what, "text matched as it stands", "a flag or no text"));
        }
    }
    for (text, id) in vocab {
        place(id, text, Kind::Base)?;
    }
    for token in added {
        place(token.id, token.content, Kind::Added { special: token.special })?;
    }
    let count = by_id.len();
    let (mut tokens, mut kinds) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for id in 0..count as u32 {
        let Some((text, kind)) = by_id.remove(&id) else {
            let expected = format!("{count} tokens with ids 0 to {}", count - 1);
            return Err(TokenizerError::expected("vocabulary", expected, format!("no id {id}")));
        };
        tokens.push(text);
        kinds.push(kind);
    }
    Ok((tokens, kinds))
}

/// Writes `parts` as a `tokenizer.json` that other programs read alike.
pub(crate) fn write(parts: &Parts) -> Vec<u8> {
    // Readers number an added token by the model's vocabulary if it is there, else after its end;
    // so what lies below the last base token must be listed in both places.
    let base_end = parts.kinds.iter().rposition(|&kind| kind == Kind::Base).map_or(0, |last| last + 1);
    let vocab: serde_json::Map<String, Value> =
        parts.tokens[..base_end].iter().zip(0u32..).map(|(text, id)| (text.clone(), id.into())).collect();
    let text = |id: u32| &parts.tokens[id as usize];
    let merges: Vec<_> = parts.merges.iter().map(|&(a, b)| json!([text(a), text(b)])).collect();
    let added: Vec<_> = parts.tokens.iter().zip(&parts.kinds).zip(0u32..).filter_map(added_json).collect();
    let mut steps: Vec<_> = parts.splits.patterns.iter().map(|pattern| split_json(pattern)).collect();
    steps.push(byte_level_json(parts.splits.gpt2));
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
        "post_processor": null,
        "decoder": byte_level_json(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        },
    });
    file.to_string().into_bytes()
}

fn added_json(((text, kind), id): ((&String, &Kind), u32)) -> Option<Value> {
    let Kind::Added { special } = kind else { return None };
    Some(json!({
        "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    }))
}

fn split_json(pattern: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

fn byte_level_json(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

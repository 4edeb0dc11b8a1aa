//! Vocabularies for written files.
use crate::gguf::GgufVocab;
use crate::{Config, Error, Result};
use serde_json::Value;

/// `token_type` of ordinary tokens, of control tokens and of other added ones.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
/// Largest `tokenizer.json`, in bytes. The real one has 7.8 MB.
const JSON_BYTES_MAX: usize = 64 << 20;

/// A vocabulary that only has the right size: its model is `none`, so that no text is encoded
/// with it.
pub fn placeholder_vocab(config: &Config) -> GgufVocab {
    GgufVocab {
        model: "none".into(),
        pre: "none".into(),
        tokens: (0..config.vocab_size).map(|i| format!("<{i}>")).collect(),
        merges: Vec::new(),
        token_type: vec![NORMAL; config.vocab_size as usize],
        bos: config.bos_token_id,
        eos: config.eos_token_ids[0],
    }
}

/// The vocabulary of a `tokenizer.json` with byte-level BPE, as a GGUF carries it.
///
/// # Errors
/// [`Error::Config`] naming the part of the file: no BPE, ids that are not 0 to `vocab_size` - 1,
/// each once.
pub fn vocab_from_json(text: &str, config: &Config) -> Result<GgufVocab> {
    if JSON_BYTES_MAX < text.len() {
        let got = format!("{} bytes", text.len());
        return Err(Error::config("tokenizer.json", format!("at most {JSON_BYTES_MAX} bytes"), got));
    }
    let json: Value = serde_json::from_str(text).map_err(|e| Error::config("tokenizer.json", "JSON", e))?;
    let Value::Object(base) = &json["model"]["vocab"] else {
        return Err(Error::config("tokenizer.json", "model.vocab", "nothing"));
    };
    let n_tokens = config.vocab_size as usize;
    let mut tokens = vec![None; n_tokens];
    let mut token_type = vec![NORMAL; n_tokens];
    let mut place = |text: &str, id: &Value, kind: i32| -> Result<()> {
        let index = id.as_u64().filter(|i| *i < u64::from(config.vocab_size));
        let Some(index) = index.map(|i| i as usize) else {
            let expected = format!("ids below vocab_size = {n_tokens}");
            return Err(Error::config("tokenizer.json", expected, id));
        };
        // The base vocabulary lists some added tokens too.
        if tokens[index].as_deref().is_some_and(|other| other != text) {
            return Err(Error::config("tokenizer.json", "one token per id", format!("two with id {index}")));
        }
        tokens[index] = Some(text.to_owned());
        token_type[index] = kind;
        Ok(())
    };
    for (text, id) in base {
        place(text, id, NORMAL)?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if added["special"] == Value::Bool(true) { CONTROL } else { USER_DEFINED };
        place(added["content"].as_str().unwrap_or_default(), &added["id"], kind)?;
    }
    if let Some(hole) = tokens.iter().position(Option::is_none) {
        return Err(Error::config(
            "tokenizer.json",
            format!("{n_tokens} tokens"),
            format!("none with id {hole}"),
        ));
    }
    let merges =
        json["model"]["merges"].as_array().into_iter().flatten().map(merge).collect::<Result<_>>()?;
    Ok(GgufVocab {
        model: "gpt2".into(),
        pre: "joyai-llm".into(),
        tokens: tokens.into_iter().flatten().collect(),
        merges,
        token_type,
        bos: config.bos_token_id,
        eos: config.eos_token_ids[0],
    })
}

/// A merge as text; the JSON has `"a b"` or `["a", "b"]`.
fn merge(value: &Value) -> Result<String> {
    let pair: Option<Vec<&str>> =
        value.as_array().and_then(|parts| parts.iter().map(Value::as_str).collect());
    match (value.as_str(), pair.as_deref()) {
        (Some(text), _) => Ok(text.to_owned()),
        (_, Some([a, b])) => Ok(format!("{a} {b}")),
        _ => Err(Error::config("tokenizer.json", "merges of two tokens", value)),
    }
}

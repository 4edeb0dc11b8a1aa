//! The vocabulary that a GGUF carries.
use super::Metadata;
use crate::Result;
use crate::tokenizer::VocabParts;

/// Tokens and merges as a GGUF has them; the tokenizer is built from it elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` for byte-level BPE.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is split, `joyai-llm` in DwarfStar's files.
    pub pre: String,
    /// `tokenizer.ggml.tokens`: texts in the byte alphabet of GPT-2, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.merges`: two tokens with a space between, best first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.token_type`: 1 normal, 3 control, 4 user-defined; empty where absent.
    pub token_type: Vec<i32>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: u32,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: u32,
}

impl GgufVocab {
    /// Takes the vocabulary out of the metadata, `None` where there is none.
    pub(super) fn take(metadata: &mut Metadata) -> Result<Option<GgufVocab>> {
        let text = |key| metadata.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let (model, pre) = (text("tokenizer.ggml.model"), text("tokenizer.ggml.pre"));
        let bos = metadata.u32_or("tokenizer.ggml.bos_token_id", 0)?;
        let eos = metadata.u32_or("tokenizer.ggml.eos_token_id", 1)?;
        let key = "tokenizer.ggml.token_type";
        let token_type: Vec<i32> = match metadata.get(key) {
            Some(_) => metadata.u32s(key)?.into_iter().map(|n| n as i32).collect(),
            None => Vec::new(),
        };
        let Some(tokens) = metadata.take_strings("tokenizer.ggml.tokens") else { return Ok(None) };
        if !token_type.is_empty() && token_type.len() != tokens.len() {
            return metadata.wrong(key, "one entry per token");
        }
        let merges = metadata.take_strings("tokenizer.ggml.merges").unwrap_or_default();
        Ok(Some(GgufVocab { model, pre, tokens, merges, token_type, bos, eos }))
    }
}

impl From<GgufVocab> for VocabParts {
    fn from(vocab: GgufVocab) -> VocabParts {
        let GgufVocab { model: _, pre, tokens, merges, token_type, bos, eos } = vocab;
        VocabParts { tokens, merges, token_type, pre, bos: Some(bos), eos: Some(eos) }
    }
}

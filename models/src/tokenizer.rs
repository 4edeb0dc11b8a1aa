//! Text to token ids and back: byte-level BPE as DeepSeek V4 uses it (spec 5.1).
//!
//! There are two doors. `encode_text` takes ordinary text, whoever wrote it, and cannot produce a
//! control token, even from a text that spells one. `encode_control` gives the id of a control token
//! asked for by name; only prompt templates use it.
mod alphabet;
mod decoder;
mod error;
mod json;
mod parts;
mod split;
mod vocab;

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::{Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::chat::Control;
pub use decoder::{Decoder, Utf8Stream};
pub use error::TokenizerError;
use parts::{Kind, Parts};
use split::Splitter;
pub use vocab::VocabParts;

/// The split pattern of GPT-2, which `ByteLevel` steps apply unless they are told not to.
const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// A byte-level BPE tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    parts: Parts,
    splitters: Vec<Splitter>,
    alphabet: ByteLevel,
    bpe: BPE,
    /// Bytes of all tokens, one after the other; token `id` ends at `ends[id]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    controls: HashMap<String, u32>,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`; BOS and EOS are found by their spelling.
    ///
    /// Errors name the key that is damaged or asks for something this engine does not do.
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::build(json::read(bytes)?)
    }

    /// Builds the tokenizer of a GGUF file: the same ids as from the `tokenizer.json` it was made of.
    pub fn from_vocab(vocab: &VocabParts) -> Result<Tokenizer, TokenizerError> {
        let tokenizer = Tokenizer::build(vocab::read(vocab)?)?;
        let (bos, eos) = (vocab.bos.or(tokenizer.bos), vocab.eos.or(tokenizer.eos));
        tokenizer.with_bos_eos(bos, eos)
    }

    /// The same tokenizer with other ids for BOS and EOS, for files that spell them in their own way.
    pub fn with_bos_eos(mut self, bos: Option<u32>, eos: Option<u32>) -> Result<Tokenizer, TokenizerError> {
        for (what, id) in [("bos token id", bos), ("eos token id", eos)] {
            if let Some(id) = id.filter(|&id| id as usize >= self.vocab_size()) {
                let expected = format!("below {}", self.vocab_size());
                return Err(TokenizerError::expected(what, expected, id.to_string()));
            }
        }
        (self.bos, self.eos) = (bos, eos);
        Ok(self)
    }

    fn build(parts: Parts) -> Result<Tokenizer, TokenizerError> {
        let splitters = splitters(&parts)?;
        let bpe = bpe(&parts)?;
        let (mut bytes, mut ends, mut controls) = (Vec::new(), Vec::new(), HashMap::new());
        for ((text, kind), id) in parts.tokens.iter().zip(&parts.kinds).zip(0u32..) {
            match kind {
                Kind::Base => bytes.extend(alphabet::bytes(text)),
                Kind::Added { .. } => {
                    bytes.extend_from_slice(text.as_bytes());
                    controls.insert(text.clone(), id);
                }
            }
            ends.push(bytes.len());
        }
        let id = |control: Control| controls.get(control.name()).copied();
        let (bos, eos) = (id(Control::Bos), id(Control::Eos));
        let alphabet = ByteLevel::new(false, true, false);
        Ok(Tokenizer { parts, splitters, alphabet, bpe, bytes, ends, controls, bos, eos })
    }

    /// The tokenizer as a `tokenizer.json`, for the artifact; `from_json` gives the same ids back.
    ///
    /// BOS and EOS ids set by hand are not part of it.
    pub fn to_json(&self) -> Vec<u8> {
        json::write(&self.parts)
    }

    /// Ids of ordinary text. No control token can come out of it.
    pub fn encode_text(&self, text: &str) -> Vec<u32> {
        let mut pieces = PreTokenizedString::from(text);
        let steps = self.splitters.iter().map(|splitter| splitter as &dyn PreTokenizer);
        for step in steps.chain([&self.alphabet as &dyn PreTokenizer]) {
            step.pre_tokenize(&mut pieces).expect("isolating matches of a compiled pattern cannot fail");
        }
        let tokenized = pieces.tokenize(|piece| self.bpe.tokenize(piece.get()));
        tokenized.expect("every byte has a base token");
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        splits.into_iter().flat_map(|(_, _, tokens)| tokens.iter().flatten().map(|token| token.id)).collect()
    }

    /// Id of the control token spelled `name`.
    pub fn encode_control(&self, name: &str) -> Result<u32, TokenizerError> {
        let id = self.controls.get(name).copied();
        id.ok_or_else(|| TokenizerError::NoControl(name.to_owned()))
    }

    /// Ids of a text in which spelled control tokens count as such, the longest at each place.
    ///
    /// For texts that are known to come from the template, such as recorded prompts.
    pub fn encode_raw(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let (mut plain, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            match self.control_at(&text[at..]) {
                Some((name, id)) => {
                    ids.extend(self.encode_text(&text[plain..at]));
                    ids.push(id);
                    at += name.len();
                    plain = at;
                }
                None => at += c.len_utf8(),
            }
        }
        ids.extend(self.encode_text(&text[plain..]));
        ids
    }

    /// The longest control token that `text` begins with.
    fn control_at(&self, text: &str) -> Option<(&str, u32)> {
        let here = self.controls.iter().filter(|(name, _)| text.starts_with(name.as_str()));
        here.max_by_key(|(name, _)| name.len()).map(|(name, &id)| (name.as_str(), id))
    }

    /// Bytes that `id` stands for, or `None` outside the vocabulary; they may be half a character.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        Some(&self.bytes[start..end])
    }

    /// Spelling of `id` if it is a control token.
    pub fn control_name(&self, id: u32) -> Option<&str> {
        let kind = self.parts.kinds.get(id as usize)?;
        matches!(kind, Kind::Added { .. }).then(|| self.parts.tokens[id as usize].as_str())
    }

    /// All control tokens as (spelling, id), by id.
    pub fn controls(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.vocab_size() as u32).filter_map(|id| Some((self.control_name(id)?, id)))
    }

    /// A decoder at the beginning of a sequence.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder::new(self)
    }

    /// Text of `ids`; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut decoder = self.decoder();
        let mut text: String = ids.iter().map(|&id| decoder.push(id)).collect();
        text += &decoder.finish();
        text
    }

    /// Id of the token a prompt begins with.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Id of the token that ends an answer.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Number of tokens; ids run from 0 to one less.
    pub fn vocab_size(&self) -> usize {
        self.ends.len()
    }
}

fn splitters(parts: &Parts) -> Result<Vec<Splitter>, TokenizerError> {
    let patterns = parts.splits.patterns.iter().map(String::as_str);
    let patterns = patterns.chain(parts.splits.gpt2.then_some(GPT2_PATTERN)).enumerate();
    let compiled = patterns.map(|(index, pattern)| {
        Splitter::new(pattern).map_err(|message| TokenizerError::Pattern { index, message })
    });
    compiled.collect()
}

fn bpe(parts: &Parts) -> Result<BPE, TokenizerError> {
    let vocab: tokenizers::models::bpe::Vocab =
        parts.base_ids().into_iter().map(|(text, id)| (text.to_owned(), id)).collect();
    let text = |id: u32| parts.tokens[id as usize].clone();
    let merges = parts.merges.iter().map(|&(a, b)| (text(a), text(b))).collect();
    let model = BPE::builder().vocab_and_merges(vocab, merges).build();
    model.map_err(|error| TokenizerError::Model(error.to_string()))
}

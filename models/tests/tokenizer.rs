//! The tokenizer against the official ids, against itself over both kinds of files, and against
//! damaged files.
mod words;

use ds4_models::chat::Control;
use ds4_models::tokenizer::{Tokenizer, VocabParts};
use serde_json::{Value, json};
use words::{Random, fixture, ids, official, official_json, tiny_json};

fn load(json: &Value) -> Result<Tokenizer, String> {
    Tokenizer::from_json(json.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// What a converter writes into a GGUF for the tokenizer of `json`.
fn gguf_of(json: &Value) -> VocabParts {
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(u64, &str, i32)> =
        vocab.iter().map(|(text, id)| (id.as_u64().unwrap(), text.as_str(), 1)).collect();
    for added in json["added_tokens"].as_array().unwrap() {
        let id = added["id"].as_u64().unwrap();
        tokens.retain(|token| token.0 != id || id >= 3);
        let kind = if added["special"] == true { 3 } else { 4 };
        tokens.push((id, added["content"].as_str().unwrap(), kind));
    }
    tokens.sort();
    let merges = json["model"]["merges"].as_array().unwrap().iter().map(|merge| match merge {
        Value::String(joined) => joined.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    });
    VocabParts {
        tokens: tokens.iter().map(|token| token.1.to_owned()).collect(),
        merges: merges.collect(),
        token_type: tokens.iter().map(|token| token.2).collect(),
        pre: "joyai-llm".into(),
        bos: Some(0),
        eos: Some(1),
    }
}

#[test]
fn official_cases_id_by_id() {
    let Some(tokenizer) = official() else { return };
    let cases = fixture("tokenizer_cases.json");
    let cases = cases["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 45);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_raw(text), ids(&case["ids"]), "{text:?}");
        assert_eq!(tokenizer.decode(&ids(&case["ids"])), text);
    }
}

#[test]
fn official_ids_that_matter() {
    let Some(tokenizer) = official() else { return };
    assert_eq!(tokenizer.vocab_size(), 129_280);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(1)));
    let pairs =
        [("<｜User｜>", 128_803), ("<｜Assistant｜>", 128_804), ("｜DSML｜", 128_825), ("<think>", 128_821)];
    for (name, id) in pairs {
        assert_eq!(tokenizer.encode_control(name).unwrap(), id);
        assert_eq!(tokenizer.control_name(id), Some(name));
        assert_eq!(tokenizer.piece(id), Some(name.as_bytes()));
    }
    assert_eq!(tokenizer.controls().count(), 1283);
    assert_eq!(tokenizer.piece(129_280), None);
}

#[test]
fn official_from_vocabulary_and_merges_gives_the_same_ids() {
    let Some(bytes) = official_json() else { return };
    let json: Value = serde_json::from_slice(bytes).unwrap();
    let mut vocab = gguf_of(&json);
    let from_json = official().unwrap();
    let typed = Tokenizer::from_vocab(&vocab).unwrap();
    vocab.token_type.clear();
    let untyped = Tokenizer::from_vocab(&vocab).unwrap();
    let again = Tokenizer::from_json(&typed.to_json()).unwrap();
    for other in [&typed, &untyped, &again] {
        assert_eq!(other.vocab_size(), 129_280);
        assert_eq!((other.bos(), other.eos()), (Some(0), Some(1)));
        assert!(from_json.controls().eq(other.controls()));
        for id in 0..129_280 {
            assert_eq!(from_json.piece(id), other.piece(id), "{id}");
        }
        for text in texts(from_json) {
            assert_eq!(from_json.encode_text(&text), other.encode_text(&text), "{text:?}");
            assert_eq!(from_json.encode_raw(&text), other.encode_raw(&text), "{text:?}");
        }
    }
}

/// The official cases and random joins of tokens, control tokens among them.
fn texts(tokenizer: &Tokenizer) -> Vec<String> {
    let cases = fixture("tokenizer_cases.json");
    let cases = cases["cases"].as_array().unwrap().iter();
    let mut texts: Vec<String> = cases.map(|case| case["text"].as_str().unwrap().to_owned()).collect();
    let mut random = Random(7);
    for _ in 0..200 {
        let ids: Vec<u32> = (0..20).map(|_| random.below(tokenizer.vocab_size()) as u32).collect();
        texts.push(tokenizer.decode(&ids));
    }
    texts
}

#[test]
fn spelled_control_tokens_stay_text() {
    let Some(tokenizer) = official() else { return };
    let all: String = tokenizer.controls().map(|(name, _)| name).collect();
    let names = tokenizer.controls().map(|(name, _)| name.to_owned());
    for text in names.chain([all]) {
        let ids = tokenizer.encode_text(&text);
        assert!(ids.iter().all(|&id| tokenizer.control_name(id).is_none()), "{text:?}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

#[test]
fn long_runs_of_spaces_are_cut_like_short_ones() {
    let Some(tokenizer) = official() else { return };
    let text = format!("a{}b", " ".repeat(3_000_000));
    let ids = tokenizer.encode_text(&text);
    assert_eq!(tokenizer.decode(&ids), text);
    assert_eq!(ids[ids.len() - 1], tokenizer.encode_text("  b")[1], "the last space goes with the word");
}

#[test]
fn tiny_encodes_by_hand() {
    let tokenizer = load(&tiny_json()).unwrap();
    assert_eq!(tokenizer.encode_text("the the thx"), [257, 258, 0x20, 256, 0x78]);
    assert_eq!(tokenizer.encode_text("<think>"), [0x3c, 256, 0x69, 0x6e, 0x6b, 0x3e]);
    assert_eq!(tokenizer.encode_raw("a<think>x</think>"), [0x61, 263, 262]);
    assert_eq!(tokenizer.encode_control(Control::Bos.name()).unwrap(), 259);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(259), Some(260)));
    let message = tokenizer.encode_control("<|x|>").unwrap_err().to_string();
    assert_eq!(message, "tokenizer: control token `<|x|>`: expected in the vocabulary, got none");
    let unknown = tokenizer.with_bos_eos(Some(264), None).unwrap_err().to_string();
    assert_eq!(unknown, "tokenizer: bos token id: expected below 264, got 264");
}

#[test]
fn streaming_never_emits_half_a_character() {
    let tokenizer = load(&tiny_json()).unwrap();
    let text = "é日🙂x";
    let mut decoder = tokenizer.decoder();
    let pieces: Vec<String> = tokenizer.encode_text(text).into_iter().map(|id| decoder.push(id)).collect();
    assert_eq!(pieces, ["", "é", "", "", "日", "", "", "", "🙂", "x"]);
    assert_eq!(decoder.push(0xe6), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(tokenizer.decode(&[0x61, 9999]), "a\u{fffd}");
}

#[test]
fn tiny_survives_its_own_json() {
    let tokenizer = load(&tiny_json()).unwrap();
    let again = Tokenizer::from_json(&tokenizer.to_json()).unwrap();
    assert_eq!(again.to_json(), tokenizer.to_json());
    assert!(again.controls().eq(tokenizer.controls()));
    assert_eq!(again.encode_raw("the</think> <the"), tokenizer.encode_raw("the</think> <the"));
    assert_eq!(again.eos(), tokenizer.encode_control(Control::Eos.name()).ok());
}

/// `tiny_json` with one place changed.
fn with(path: &str, value: Value) -> Value {
    let mut json = tiny_json();
    let (parent, key) = path.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
    json
}

#[test]
fn damaged_files_name_what_is_wrong() {
    let spaced = json!({ "type": "ByteLevel", "add_prefix_space": true });
    let words = json!({ "type": "Sequence", "pretokenizers": [{ "type": "Whitespace" }, tiny_json()["pre_tokenizer"]] });
    let bad_regex = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false },
        tiny_json()["pre_tokenizer"]] });
    let long_regex = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": "x".repeat(5000) }, "behavior": "Isolated", "invert": false },
        tiny_json()["pre_tokenizer"]] });
    let added =
        |id: u32, content: &str, strip: bool| json!([{ "id": id, "content": content, "lstrip": strip }]);
    let cases = [
        (with("/model", json!({ "type": "BPE" })), "missing field `vocab`"),
        (with("/model/type", json!("WordPiece")), "model.type: expected `BPE`, got `WordPiece`"),
        (with("/model/dropout", json!(0.1)), "model.dropout: expected none, got 0.1"),
        (with("/model/unk_token", json!("?")), "model.unk_token: expected none, got `?`"),
        (with("/model/end_of_word_suffix", json!("@")), "model.end_of_word_suffix: expected none"),
        (with("/model/byte_fallback", json!(true)), "model.byte_fallback: expected false, got true"),
        (with("/model/ignore_merges", json!(true)), "model.ignore_merges: expected false, got true"),
        (with("/normalizer", json!({ "type": "NFC" })), "normalizer: expected none, got type \"NFC\""),
        (with("/pre_tokenizer", Value::Null), "pre_tokenizer: expected a `ByteLevel` step, got none"),
        (with("/pre_tokenizer", spaced), "add_prefix_space: expected false, got true"),
        (with("/pre_tokenizer", words), "pre_tokenizer step 0: expected a `Split`"),
        (with("/pre_tokenizer", bad_regex), "split pattern 0: expected a regular expression"),
        (with("/pre_tokenizer", long_regex), "split pattern 0: expected at most 4096 bytes, got 5000"),
        (with("/model/merges", json!(["t h e"])), "merge 0: expected two parts"),
        (with("/model/merges", json!([["t", "zz"]])), "merge 0: expected token `zz`, got none"),
        (with("/model/merges", json!([["x", "y"]])), "merge 0 `x y`: expected base token `xy`"),
        (with("/model/vocab/q", json!(7)), "id 7: expected one token, got"),
        (
            with("/model/vocab/new", json!(4_294_967_295u32)),
            "vocabulary: expected 265 tokens with ids 0 to 264",
        ),
        (with("/model/vocab/new", json!(-1)), "invalid value: integer `-1`"),
        (with("/added_tokens", added(259, "t", false)), "added token `t`: expected id 116, got 259"),
        (with("/added_tokens", added(116, "t", false)), "byte 0x74: expected a base token `t`, got none"),
        (with("/added_tokens", added(257, "the", false)), "merge 1 `th e`: expected base token `the`"),
        (
            with("/added_tokens", added(259, "<s>", true)),
            "added token 259 `<s>`: expected text matched as it stands",
        ),
    ];
    for (json, expected) in cases {
        let message = load(&json).unwrap_err();
        assert!(message.contains(expected), "expected `{expected}` in `{message}`");
        assert!(message.starts_with("tokenizer"), "{message}");
    }
}

#[test]
fn damaged_vocabularies_name_what_is_wrong() {
    let good = VocabParts { pre: "gpt-2".into(), bos: Some(259), ..gguf_of(&tiny_json()) };
    type Damage = fn(&mut VocabParts);
    let cases: [(Damage, &str); 8] = [
        (|v| v.pre = "llama-bpe".into(), "tokenizer.ggml.pre: expected `joyai-llm`"),
        (|v| v.token_type.truncate(5), "tokenizer.ggml.token_type: expected 264, got 5"),
        (|v| v.tokens[9] = "A".into(), "token 65: expected a text of its own, got `A`, which is token 9"),
        (|v| v.tokens[9] = "zz".into(), "byte 0x09: expected a base token"),
        (|v| v.merges[0] = "th".into(), "merge 0: expected two tokens of the vocabulary, got `th`"),
        (|v| v.merges[0] = "x y".into(), "merge 0 `x y`: expected base token `xy`"),
        (|v| v.bos = Some(264), "bos token id: expected below 264, got 264"),
        (|v| v.tokens.clear(), "tokenizer.ggml.token_type: expected 0, got 264"),
    ];
    assert_eq!(Tokenizer::from_vocab(&good).unwrap().encode_raw("the<think>"), [257, 261]);
    for (damage, expected) in cases {
        let mut vocab = good.clone();
        damage(&mut vocab);
        let message = Tokenizer::from_vocab(&vocab).unwrap_err().to_string();
        assert!(message.contains(expected), "expected `{expected}` in `{message}`");
    }
    assert!(Tokenizer::from_vocab(&VocabParts::default()).is_err());
}

#[test]
fn truncated_and_garbage_files_are_errors() {
    let bytes = tiny_json().to_string().into_bytes();
    for end in 0..bytes.len() {
        assert!(Tokenizer::from_json(&bytes[..end]).is_err(), "{end}");
    }
    assert!(Tokenizer::from_json(&[b'['; 100_000]).is_err());
    let mut random = Random(3);
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        for _ in 0..3 {
            let at = random.below(damaged.len());
            damaged[at] = random.below(256) as u8;
        }
        if let Ok(tokenizer) = Tokenizer::from_json(&damaged) {
            assert_eq!(tokenizer.decode(&tokenizer.encode_text("the end é")), "the end é");
        }
    }
}

//! What the fuzz targets do with their bytes, and what must hold whatever these are.
//!
//! Every target answers whether it accepted the bytes. The ordinary tests run the kept corpora through
//! the same functions.
mod memory;
mod store;

use ds4_ir::{Module, parse_funcs, parse_module, verify, verify_module};
use ds4_models::chat::{
    Answer, Effort, Ending, Mode, OutputParser, Piece, Source, parse_answer, parse_messages,
};
use ds4_models::tokenizer::Tokenizer;
use ds4_models::{StoredTensor, gguf, safetensors};
use ds4_runtime::Artifact;
use std::path::{Path, PathBuf};

pub use store::{store_bundle, store_index, store_journal, store_name, store_sealed};

/// A file of this thread's own that holds `bytes`.
fn file(bytes: &[u8]) -> PathBuf {
    let name = format!("ds4-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).expect("the folder of temporary files can be written");
    path
}

/// Runs `read` on a file of `bytes`.
fn with_file<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let path = file(bytes);
    let answer = read(&path);
    std::fs::remove_file(&path).expect("just written");
    answer
}

/// Tensors that were accepted lie inside their file.
fn lie_inside<'a>(tensors: impl IntoIterator<Item = &'a StoredTensor>, len: usize) {
    for tensor in tensors {
        let end = tensor.offset.checked_add(tensor.bytes);
        assert!(end.is_some_and(|end| end <= len as u64), "{tensor:?} in {len} bytes");
    }
}

/// The header of a safetensors file.
pub fn safetensors(bytes: &[u8]) -> bool {
    let Ok(tensors) = with_file(bytes, safetensors::read_header) else { return false };
    lie_inside(tensors.values(), bytes.len());
    true
}

/// The header of a GGUF.
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok(header) = with_file(bytes, gguf::read_header) else { return false };
    lie_inside(header.tensors.values(), bytes.len());
    true
}

/// An artifact, as it is and with checksums that hold.
pub fn artifact(bytes: &[u8]) -> bool {
    let as_it_is = Artifact::from_bytes(bytes);
    let artifact = Artifact::from_bytes(&sealed(bytes));
    assert!(as_it_is.is_err() || artifact.is_ok(), "right checksums made it worse");
    let Ok(artifact) = artifact else { return false };
    prints_itself(&artifact.module);
    artifact.plan.check(&artifact.module).expect("reading has checked it");
    true
}

/// The bytes with the right checksum over every section that lies inside, and over the header: without
/// them no fuzzer gets past the checksums.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    const ENTRY: usize = 56;
    let mut sealed = bytes.to_vec();
    let Some(count) = bytes.get(12..16) else { return sealed };
    let count = u32::from_le_bytes(count.try_into().expect("4 bytes")) as usize;
    let end = 16 + count.min(64) * ENTRY;
    if bytes.len() < end + 32 {
        return sealed;
    }
    for entry in (16..end).step_by(ENTRY) {
        let long = |at: usize| {
            let number = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
            usize::try_from(number).unwrap_or(usize::MAX)
        };
        let (start, len) = (long(entry + 8), long(entry + 16));
        // A section that holds its own checksum has no right one.
        let section = start.checked_add(len).and_then(|to| bytes.get(start..to));
        if let Some(section) = section.filter(|_| end + 32 <= start) {
            let sum = *blake3::hash(section).as_bytes();
            sealed[entry + 24..entry + 56].copy_from_slice(&sum);
        }
    }
    let sum = *blake3::hash(&sealed[..end]).as_bytes();
    sealed[end..end + 32].copy_from_slice(&sum);
    sealed
}

/// A module that was accepted is the one that its own text says.
fn prints_itself(module: &Module) {
    let text = module.to_string();
    let again = parse_module(&text).unwrap_or_else(|e| panic!("its own text is refused: {e}"));
    assert_eq!(again.to_string(), text);
}

/// The text of functions and modules.
pub fn module(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let module = parse_module(text).ok().filter(|module| verify_module(module).is_ok());
    if let Some(module) = &module {
        prints_itself(module);
    }
    let funcs = parse_funcs(text).unwrap_or_default();
    for func in &funcs {
        // An answer is all that is asked for.
        let _ = verify(func);
        let text = func.to_string();
        let again = parse_funcs(&text).unwrap_or_else(|e| panic!("its own text is refused: {e}"));
        assert!(again.len() == 1 && again[0].to_string() == text, "{text}");
    }
    module.is_some() || !funcs.is_empty()
}

/// A `tokenizer.json`.
pub fn tokenizer(bytes: &[u8]) -> bool {
    const TEXT: &str = "And God said, Let there be light: 1,234 <\u{ff5c}User\u{ff5c}> naïve\n\t 光";
    let Ok(tokenizer) = Tokenizer::from_json(bytes) else { return false };
    let ids = tokenizer.encode_text(TEXT);
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()), "{ids:?}");
    let again = Tokenizer::from_json(&tokenizer.to_json()).expect("what it writes it reads");
    assert_eq!(again.encode_text(TEXT), ids);
    tokenizer.decode(&ids);
    tokenizer.decode(&[0, 1, u32::MAX]);
    true
}

/// A conversation, and what a model wrote: the first byte says how it was asked and where the text is
/// cut.
pub fn chat(bytes: &[u8]) -> bool {
    let conversation = parse_messages(bytes).is_ok();
    let Some((first, rest)) = bytes.split_first() else { return conversation };
    let mode = if first & 1 == 0 { Mode::Chat } else { Mode::Think(Effort::Low) };
    let text = String::from_utf8_lossy(rest);
    let whole = parse_answer(&text, mode);
    let mut parser = OutputParser::new(mode, Source::Spelled);
    let mut answer = Answer::default();
    let step = 1 + usize::from(first >> 1);
    let mut buffer = String::new();
    for (i, c) in text.chars().enumerate() {
        buffer.push(c);
        if (i + 1).is_multiple_of(step) {
            answer.extend(parser.push(Piece::Text(&buffer)));
            buffer.clear();
        }
    }
    answer.extend(parser.push(Piece::Text(&buffer)));
    let (events, ending) = parser.finish();
    answer.extend(events);
    assert_eq!((answer, ending), whole, "cut every {step} characters: {text:?}");
    conversation || ending == Ending::Complete
}

//! Fuzzes the reader of a `tokenizer.json`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::tokenizer(bytes);
});

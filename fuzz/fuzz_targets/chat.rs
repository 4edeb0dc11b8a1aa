//! Fuzzes the readers of conversations and what a model writes.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::chat(bytes);
});

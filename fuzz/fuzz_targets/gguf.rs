//! Fuzzes the reader of the header of a GGUF.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::gguf(bytes);
});

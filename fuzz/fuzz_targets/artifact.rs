//! Fuzzes the reader of an artifact.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::artifact(bytes);
});

//! Fuzzes the reader of the text of functions and modules.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::module(bytes);
});

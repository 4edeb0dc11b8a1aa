//! Fuzzes the reader of a bundle.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::store_bundle(bytes);
});

//! Fuzzes the reader of the store's index.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::store_index(bytes);
});

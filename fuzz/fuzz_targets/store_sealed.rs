//! Fuzzes the reader of the files of rows and edges.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::store_sealed(bytes);
});

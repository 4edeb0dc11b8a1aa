//! Fuzzes the reader of a session's journal.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ds4_fuzz::store_journal(bytes);
});

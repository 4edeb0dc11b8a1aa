//! Compilers that a test may lack.

/// Says by name what is skipped, and why; where nothing may be skipped (`DS4_NO_SKIP=1`), fails.
///
/// # Panics
/// Nothing may be skipped.
pub(crate) fn missing(test: &str, why: &str) {
    let strict = std::env::var("DS4_NO_SKIP").is_ok_and(|v| v == "1");
    assert!(!strict, "{test} cannot run, and DS4_NO_SKIP=1 forbids to skip it: {why}");
    eprintln!("SKIPPED {test}: {why}");
}

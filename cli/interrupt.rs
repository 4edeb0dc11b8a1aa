//! Ctrl-C: the first asks the running work to stop, the second ends the program.
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Installs the handler and answers the flag that Ctrl-C sets.
pub fn flag() -> &'static AtomicBool {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Without a handler Ctrl-C ends the program at once, which is safe too.
        let _ = ctrlc::set_handler(|| {
            if ASKED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
    });
    &ASKED
}

/// Whether Ctrl-C was pressed since the last call; forgets it.
pub fn take() -> bool {
    ASKED.swap(false, Ordering::Relaxed)
}

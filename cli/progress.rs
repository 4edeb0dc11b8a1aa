//! Progress bars for long work, shown where stderr is a terminal.
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar over `total` steps; `what` says what is being done.
pub fn bar(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}");
    bar.set_style(style.expect("a fixed template").progress_chars("=> "));
    bar.set_message(what.to_string());
    bar
}

/// A bar over bytes, whose number is told later.
pub fn bytes(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta}");
    bar.set_style(style.expect("a fixed template").progress_chars("=> "));
    bar.set_message(what.to_string());
    bar
}

/// A sign of life for work of unknown length.
pub fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_message(what.to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

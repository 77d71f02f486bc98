//! What is said to the person at the terminal, beside what a command prints.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};

/// How far a command is with so many sessions: on a terminal only, and never in what is
/// piped on.
pub(super) fn sessions_bar(sessions: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} sessions, {eta} left");
    let bar = ProgressBar::new(sessions as u64);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Says it on standard error, apart from what a script reads.
#[allow(
    clippy::print_stderr,
    reason = "it is for the person, and not for what reads the output"
)]
pub(super) fn tell(text: &str) {
    eprintln!("interceptor: {text}");
}

//! Sessions of SSH, shown again.
//!
//! * [`terminals`] finds the terminals of a session, of which one can be played;
//! * [`screen`] plays one as it was, and tells what else happened before and after;
//! * [`cast`] writes one as an asciicast, which players and web pages show;
//! * [`filter`] lets through what draws, and nothing else that a terminal obeys;
//! * [`lines`] shows a terminal's output as text, where nothing draws.

pub mod cast;
pub mod filter;
pub mod lines;
pub mod screen;
pub mod terminals;

#[cfg(test)]
mod tests;

use super::Entry;

/// The channel that an entry of SSH belongs to.
#[must_use]
pub fn channel(entry: &Entry) -> Option<u64> {
    entry.meta_number("channel")
}

/// Whether these are bytes that a terminal was sent.
#[must_use]
pub fn is_drawing(entry: &Entry) -> bool {
    entry.kind == "output" && entry.meta.get("terminal").is_some() && channel(entry).is_some()
}

/// Whether what ran on a channel ended with this entry.
fn is_end(entry: &Entry) -> bool {
    entry.kind == "result" && entry.meta_text("ssh").is_some()
}

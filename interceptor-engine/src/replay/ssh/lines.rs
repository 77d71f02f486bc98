//! A terminal's output as lines of text.
//!
//! It comes a key's echo at a time. Put together to lines, and without colours, it can
//! be read; whatever else a terminal obeys is written out by who shows it.

use std::collections::BTreeMap;

use super::{channel, is_drawing};
use crate::replay::Entry;

/// Bytes of a line; a longer one goes on in the next.
const LINE_LIMIT: usize = 4096;
/// Channels whose last lines are kept.
const CHANNEL_LIMIT: usize = 256;

/// Puts lines together.
#[derive(Debug, Default)]
pub struct Lines {
    open: BTreeMap<u64, Entry>,
}

impl Lines {
    /// `entry`, behind the lines that were begun before it; or the lines that are
    /// whole now.
    pub fn push(&mut self, mut entry: Entry) -> Vec<Entry> {
        let Some(channel) = channel(&entry) else {
            // What belongs to all of the session.
            let mut all = self.finish();
            all.push(entry);
            return all;
        };
        if !is_drawing(&entry) {
            let begun = self.open.remove(&channel).map(shown);
            return begun.into_iter().chain([entry]).collect();
        }
        let mut done = Vec::new();
        if self.open.len() >= CHANNEL_LIMIT && !self.open.contains_key(&channel) {
            done = self.finish();
        }
        let data = std::mem::take(&mut entry.data);
        let mut rest = data.as_slice();
        loop {
            let begun = self.open.entry(channel);
            let line = begun.or_insert_with(|| entry.clone());
            let room = LINE_LIMIT.saturating_sub(line.data.len()).max(1);
            let end = rest.iter().take(room).position(|byte| *byte == b'\n');
            let whole = end.is_some() || rest.len() >= room;
            let (part, after) = match end {
                Some(end) => (rest.get(..end), rest.get(end + 1..)),
                None => rest
                    .split_at_checked(room)
                    .map_or((Some(rest), None), |(a, b)| (Some(a), Some(b))),
            };
            line.data.extend_from_slice(part.unwrap_or_default());
            if whole {
                done.extend(self.open.remove(&channel).map(shown));
            }
            rest = after.unwrap_or_default();
            if rest.is_empty() {
                return done;
            }
        }
    }

    /// The lines that were begun.
    pub fn finish(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.open)
            .into_values()
            .map(shown)
            .collect()
    }
}

/// A line as bytes of a stream.
fn shown(mut entry: Entry) -> Entry {
    entry.data = plain(&entry.data);
    if let Some(meta) = entry.meta.as_object_mut() {
        meta.remove("terminal");
    }
    entry
}

/// Without what every prompt is full of and no reader needs: colours, titles, the
/// erasing of a line's rest, what tells of pastes, and returns at a line's ends.
fn plain(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((byte, after)) = rest.split_first() {
        if let Some(behind) = behind_noise(rest) {
            rest = behind;
            continue;
        }
        // The cursor is there already.
        if !(out.is_empty() && *byte == b'\r') {
            out.push(*byte);
        }
        rest = after;
    }
    out
}

/// What stands behind such a sequence at the beginning of `text`.
fn behind_noise(text: &[u8]) -> Option<&[u8]> {
    if let Some(title) = text.strip_prefix(b"\x1b]") {
        let title = title.strip_prefix(b"0;").or(title.strip_prefix(b"2;"))?;
        let end = title.iter().position(|byte| byte.is_ascii_control())?;
        let end = title.get(end..)?;
        return end.strip_prefix(b"\x07").or(end.strip_prefix(b"\x1b\\"));
    }
    let control = text.strip_prefix(b"\x1b[")?;
    let pastes = control.strip_prefix(b"?2004");
    if let Some([b'h' | b'l', behind @ ..]) = pastes {
        return Some(behind);
    }
    let is_last = |byte: &u8| !matches!(byte, b'0'..=b'9' | b';' | b':');
    let (parameters, last) = control.split_at(control.iter().position(is_last)?);
    match (parameters, last) {
        (_, [b'm', behind @ ..]) | (b"" | b"0", [b'K', behind @ ..]) => Some(behind),
        _ => None,
    }
}

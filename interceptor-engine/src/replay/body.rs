//! Bytes that an agent sent or got, for a person: an HTTP body, a stream of a command.

use super::Entry;

/// Bytes of one event that are shown.
const SHOWN_LIMIT: usize = 8 << 10;

/// A part of them, with a mark at each line for the way they went.
pub(super) fn body(entry: &Entry) -> String {
    let mark = if entry.kind == "input" { ">" } else { "<" };
    let cut = entry.data.get(..SHOWN_LIMIT).unwrap_or(&entry.data);
    let left = entry.data.len() - cut.len();
    let text = match std::str::from_utf8(cut) {
        Ok(text) => text,
        // A part may end inside a character.
        Err(error) if error.error_len().is_none() || error.valid_up_to() + 4 > cut.len() => {
            let valid = cut.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        }
        Err(_) => return format!("{mark} {} bytes that are no text", entry.data.len()),
    };
    let mut out = String::new();
    for (index, line) in text.trim_end().split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        out.push_str(mark);
        out.push(' ');
        out.push_str(line);
    }
    if left > 0 {
        out.push_str(&format!("\n{mark} … {left} bytes more"));
    }
    out
}

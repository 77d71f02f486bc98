//! Text that a terminal shows and does not obey.
//!
//! What stands in a recording was written by an agent or by a service. An escape
//! sequence in it could clear the investigator's screen, rewrite what stands there,
//! answer as if it were typed; a character that turns the direction of text could
//! make a statement read as another. Both are shown as what they are.

use std::borrow::Cow;

/// `text` on one line: every character that is not simply seen is written out,
/// line ends and tabs included.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// `text` over several lines: as [`line()`], but line feeds and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |char| matches!(char, '\n' | '\t'))
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let obeyed = |char: char| is_obeyed(char) && !keep(char);
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            char if !obeyed(char) => out.push(char),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if u32::from(char) <= 0xff => out.push_str(&format!("\\x{:02x}", u32::from(char))),
            char => out.push_str(&format!("\\u{{{:x}}}", u32::from(char))),
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal or a reader's eye follows `char` and does not show it.
#[must_use]
pub fn is_obeyed(char: char) -> bool {
    char.is_control() // C0, DEL, C1
        || matches!(
            char,
            '\u{ad}' // soft hyphen
            | '\u{61c}' | '\u{200b}'..='\u{200f}' // zero width, marks of direction
            | '\u{2028}'..='\u{202e}' // separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}' // joiners, isolates
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' // tags
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(line("\x1b[2J\x1b]0;x\x07"), "\\x1b[2J\\x1b]0;x\\x07");
        assert_eq!(
            line("a\r\nb\tc\u{7f}\u{9b}31m"),
            "a\\r\\nb\\tc\\x7f\\x9b31m"
        );
        assert_eq!(line("user\u{202e}nimda"), "user\\u{202e}nimda");
        assert_eq!(lines("a\n\tb\r"), "a\n\tb\\r");
    }

    #[test]
    fn what_is_simply_seen_stays() {
        assert_eq!(line("Zoë — 漢字 🦀 ±"), "Zoë — 漢字 🦀 ±");
    }

    proptest! {
        #[test]
        fn nothing_obeyed_is_left(text in "\\PC{0,20}[\\x00-\\x1f\\x7f-\\u{9f}\\u{200b}-\\u{202e}]{0,5}\\PC{0,20}") {
            prop_assert!(!line(&text).chars().any(is_obeyed));
            prop_assert!(!lines(&text).chars().any(|c| is_obeyed(c) && c != '\n' && c != '\t'));
        }
    }
}

//! Reading at any place of a value, and what counts as the edge of a word there.

use std::ops::Range;

/// Which bytes a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `0-9A-Z`.
    Upper,
    /// `0-9A-Za-z`.
    Alnum,
    /// `0-9A-Za-z_-`: base64 for URLs, and most tokens.
    Word,
    /// The same and `.`.
    Dotted,
    /// `0-9A-Za-z+/=`.
    Base64,
    /// `0-9A-Za-z/`: the end of a web hook's address.
    Path,
    /// `0-9A-Za-z._~+/=-`: RFC 6750's `b64token`.
    Bearer,
}

impl Class {
    pub(super) const fn has(self, byte: u8) -> bool {
        if byte.is_ascii_digit() || byte.is_ascii_uppercase() {
            return true;
        }
        if byte.is_ascii_lowercase() {
            return !matches!(self, Self::Upper);
        }
        match self {
            Self::Upper | Self::Alnum => false,
            Self::Word => matches!(byte, b'_' | b'-'),
            Self::Dotted => matches!(byte, b'_' | b'-' | b'.'),
            Self::Base64 => matches!(byte, b'+' | b'/' | b'='),
            Self::Path => byte == b'/',
            Self::Bearer => matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-'),
        }
    }
}

/// The byte at `index`; 0 beyond the end.
pub(super) fn at(value: &[u8], index: usize) -> u8 {
    value.get(index).copied().unwrap_or(0)
}

/// The byte `back` before `index`; 0 before the start.
pub(super) fn before(value: &[u8], index: usize, back: usize) -> u8 {
    index.checked_sub(back).map_or(0, |index| at(value, index))
}

/// The end of the run that starts at `from`.
pub(super) fn run(value: &[u8], from: usize, is: impl Fn(u8) -> bool) -> usize {
    let rest = value.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| is(**byte)).count()
}

/// The same, at most `most` long.
pub(super) fn short_run(value: &[u8], from: usize, most: usize, is: impl Fn(u8) -> bool) -> usize {
    let end = value.len().min(from.saturating_add(most));
    run(value.get(..end).unwrap_or_default(), from, is)
}

/// The start of the run that ends at `end`, at most `most` long.
pub(super) fn run_back(value: &[u8], end: usize, most: usize, is: impl Fn(u8) -> bool) -> usize {
    let before = value.get(..end).unwrap_or_default();
    let len = before.iter().rev().take(most).take_while(|byte| is(**byte));
    end - len.count()
}

/// Whether something may begin at `start`: no letter or digit is before it,
/// other than the last of an escape (`\n`, `%3D`).
pub(super) fn begins(value: &[u8], start: usize) -> bool {
    let last = before(value, start, 1);
    if !last.is_ascii_alphanumeric() {
        return true;
    }
    let escape = before(value, start, 2) == b'\\' && last.is_ascii_lowercase();
    let percent = before(value, start, 3) == b'%'
        && before(value, start, 2).is_ascii_hexdigit()
        && last.is_ascii_hexdigit();
    escape || percent
}

/// Whether something may end at `end`: no letter or digit is behind it.
pub(super) fn ends(value: &[u8], end: usize) -> bool {
    !at(value, end).is_ascii_alphanumeric()
}

/// Whether the range lies in a UUID: digits of those are nobody's number.
pub(super) fn in_uuid(value: &[u8], range: &Range<usize>) -> bool {
    const LEN: usize = 36;
    let is = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let start = run_back(value, range.start, LEN, is);
    let end = short_run(value, start, LEN + 1, is);
    let Some(text) = value.get(start..end).filter(|text| text.len() == LEN) else {
        return false;
    };
    text.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => *byte != b'-',
    })
}

/// Bits of information in one byte of `text`, were each drawn by itself.
pub(super) fn entropy(text: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let len = text.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / len)
        .map(|share| -share * share.log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_begins_behind_punctuation_and_escapes() {
        for (text, start, whether) in [
            ("x", 0, true),
            (" x", 1, true),
            ("_x", 1, true),
            ("ax", 1, false),
            ("\\nx", 2, true),
            ("\\\\nx", 3, true),
            ("%3Dx", 3, true),
            ("3Dx", 2, false),
        ] {
            assert_eq!(begins(text.as_bytes(), start), whether, "{text}");
        }
    }

    #[test]
    fn digits_of_a_uuid_are_known_as_such() {
        let text = b"id=12345678-1234-1234-1234-123456789012;";
        for start in 3..30 {
            assert!(in_uuid(text, &(start..start + 5)), "{start}");
        }
        assert!(!in_uuid(b"12345678-1234-1234-1234-1234567890123", &(0..8)));
        assert!(!in_uuid(b"12345678-1234-1234-1234", &(0..8)));
    }

    #[test]
    fn entropy_is_none_of_one_letter_and_full_of_all_different() {
        assert_eq!(entropy(b"aaaa"), 0.0);
        assert_eq!(entropy(b"abcdefgh"), 3.0);
    }
}

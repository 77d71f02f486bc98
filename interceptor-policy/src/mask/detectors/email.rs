//! Email addresses, around their `@`.
//!
//! Looser than RFC 5321 where it costs nothing (letters beyond ASCII count),
//! stricter where prose would hit: the domain needs a dot and a last part of two
//! letters or more.

use std::ops::Range;

/// Longest part before the `@` that is looked at; RFC 5321 allows 64.
const LOCAL: usize = 128;
/// Longest domain that is looked at; RFC 5321 allows 255.
const DOMAIN: usize = 320;

const fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || byte >= 0x80
        || matches!(
            byte,
            b'.' | b'_'
                | b'%'
                | b'+'
                | b'-'
                | b'\''
                | b'!'
                | b'#'
                | b'$'
                | b'&'
                | b'*'
                | b'/'
                | b'='
                | b'?'
                | b'^'
                | b'`'
                | b'{'
                | b'|'
                | b'}'
                | b'~'
        )
}

const fn is_domain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'.' | b'-')
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

pub(super) fn emails(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut from = 0;
    for at in memchr::memchr_iter(b'@', value) {
        let before = value.get(from..at).unwrap_or_default();
        let local = before
            .iter()
            .rev()
            .take(LOCAL)
            .take_while(|byte| is_local(**byte))
            .count();
        let after = value.get(at + 1..).unwrap_or_default();
        if let (1.., Some(domain)) = (local, domain(after)) {
            let end = at + 1 + domain;
            into.push(trimmed(value, at - local, at)..end);
            from = end;
        }
    }
}

/// Quotes, braces and dots may stand in an address, but do not begin one: they
/// belong to the text around it.
fn trimmed(value: &[u8], start: usize, at: usize) -> usize {
    let local = value.get(start..at).unwrap_or_default();
    let around = local
        .iter()
        .take_while(|byte| !is_word(**byte) && **byte != b'_')
        .count();
    // An address of such characters alone is hidden whole.
    if around == local.len() {
        start
    } else {
        start + around
    }
}

/// Length of the domain at the start of `after`.
fn domain(after: &[u8]) -> Option<usize> {
    let len = after
        .iter()
        .take(DOMAIN)
        .take_while(|byte| is_domain(**byte))
        .count();
    let mut domain = after.get(..len)?;
    // The end of a sentence, or of a range.
    while let Some((b'.' | b'-', rest)) = domain.split_last() {
        domain = rest;
    }
    let mut parts = domain.rsplit(|byte| *byte == b'.');
    let last = parts.next()?;
    let letters = last.len() >= 2 && last.iter().all(|b| b.is_ascii_alphabetic() || *b >= 0x80);
    let punycode = last.starts_with(b"xn--");
    let mut others = parts.peekable();
    others.peek()?;
    let whole = others.all(|part| part.first().is_some_and(|byte| is_word(*byte)));
    (whole && (letters || punycode)).then_some(domain.len())
}

/// Whether the `@` at `mark` has on both sides what an address has there.
pub(super) fn may_be(chunk: &[u8], mark: usize) -> bool {
    is_local(super::bytes::before(chunk, mark, 1)) && is_word(super::bytes::at(chunk, mark + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut ranges = Vec::new();
        emails(text.as_bytes(), &mut ranges);
        ranges
            .into_iter()
            .map(|range| text.get(range).unwrap())
            .collect()
    }

    #[test]
    fn addresses_are_found_in_what_surrounds_them() {
        for address in [
            "a@b.co",
            "alice.smith+tag@mail.example.com",
            "o'neil@example.org",
            "jürgen@bücher.example",
            "x_1@sub-domain.example.museum",
            "x@example.xn--p1ai",
        ] {
            for around in [
                "{}", "<{}>", "to: {}.", "\"{}\"", "'{}'", "{{{}}}", "({}),", "a {} b",
            ] {
                let text = around
                    .replace("{{{}}}", &format!("{{{address}}}"))
                    .replace("{}", address);
                assert_eq!(found(&text), [address], "{text}");
            }
        }
    }

    #[test]
    fn two_addresses_are_two() {
        assert_eq!(found("a@b.co,c@d.co"), ["a@b.co", "c@d.co"]);
        assert_eq!(found("a@b.co@c.de"), ["a@b.co"]);
    }

    #[test]
    fn what_only_resembles_an_address_is_none() {
        for near in [
            "@example.com",
            "alice@",
            "alice@localhost",
            "alice @ example.com",
            "v@1.2.3",
            "a@b.c",
            "a@.com",
            "a@b..com",
            "@@@@",
        ] {
            assert_eq!(found(near), [""; 0], "{near}");
        }
    }
}

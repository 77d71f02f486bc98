//! IP addresses.
//!
//! Four numbers with dots between are an address or a version. They are taken
//! for a version where a letter, a dash or a name with a slash (`Chrome/120.0.0.0`)
//! is right before them, or the word `version`; anywhere else for an address.
//! Addresses that are nobody's (loopback, unspecified, masks) are shown.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::bytes::{at, before, run, run_back, short_run};

/// Longest IPv4 address as text, and longest IPv6 address, with an IPv4 one at its end.
const V4: usize = 15;
const V6: usize = 45;
/// How far before a version the word for it may begin.
const VERSION_REACH: usize = 12;

const fn is_v4(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'.'
}

const fn is_v6(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == b':' || byte == b'.'
}

/// IPv4 addresses in dotted form.
pub(super) fn ipv4s(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut from = 0;
    for dot in memchr::memchr_iter(b'.', value) {
        if dot < from {
            continue;
        }
        let start = run_back(value, dot, 4, |byte| byte.is_ascii_digit());
        if start == dot {
            continue;
        }
        let end = run(value, start, is_v4);
        from = end;
        let full = end;
        let mut end = end.min(start + V4 + 1);
        // The end of a sentence.
        if end == full && before(value, end, 1) == b'.' {
            end -= 1;
        }
        if let Some(text) = value.get(start..end)
            && is_address(text)
            && !is_version(value, &(start..end))
        {
            into.push(start..end);
        }
    }
}

fn is_address(text: &[u8]) -> bool {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<Ipv4Addr>().ok())
        .is_some_and(|address| {
            let [first, ..] = address.octets();
            !address.is_loopback() && first != 0 && first != 255
        })
}

fn is_version(value: &[u8], range: &Range<usize>) -> bool {
    let last = before(value, range.start, 1);
    let one_before = before(value, range.start, 2);
    let escape = one_before == b'\\' && last.is_ascii_lowercase();
    let named = (last.is_ascii_alphanumeric() && !escape)
        || matches!(last, b'.' | b'_')
        || (matches!(last, b'-' | b'/') && one_before.is_ascii_alphabetic());
    let next = at(value, range.end);
    let goes_on = next.is_ascii_alphabetic()
        || next == b'_'
        || (next == b'-' && at(value, range.end + 1).is_ascii_alphabetic());
    let words = value
        .get(range.start.saturating_sub(VERSION_REACH)..range.start)
        .unwrap_or_default()
        .to_ascii_lowercase();
    named || goes_on || memchr::memmem::find(&words, b"version").is_some()
}

/// Whether four numbers could be around the dot at `dot`, the first of three.
pub(super) fn may_be_ipv4(chunk: &[u8], dot: usize) -> bool {
    let mut index = dot;
    for more in [true, true, false] {
        let end = short_run(chunk, index + 1, 3, |byte| byte.is_ascii_digit());
        if end == index + 1 || (more && at(chunk, end) != b'.') {
            return false;
        }
        index = end;
    }
    true
}

/// IPv6 addresses in any form.
pub(super) fn ipv6s(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut from = 0;
    for colon in memchr::memchr_iter(b':', value) {
        if colon < from {
            continue;
        }
        let mut start = run_back(value, colon, V6, is_v6).max(from);
        let full = run(value, start, is_v6);
        from = full;
        // `host:2001:db8::1`, where the letters before it are of another word.
        let last = before(value, start, 1);
        let other = last.is_ascii_alphanumeric() || last == b'_';
        if other {
            let word = short_run(value, start, V6, |byte| byte != b':');
            if at(value, word) != b':' || at(value, word + 1) == b':' {
                continue;
            }
            start = word + 1;
        } else if at(value, start) == b':' && at(value, start + 1) != b':' {
            start += 1;
        }
        if full <= start || full - start > V6 + 1 {
            continue;
        }
        let mut end = full;
        // The end of a sentence, or of a key.
        while end > start
            && (before(value, end, 1) == b'.'
                || (before(value, end, 1) == b':' && before(value, end, 2) != b':'))
        {
            end -= 1;
        }
        let next = at(value, end);
        let goes_on = next.is_ascii_alphanumeric() || next == b'_';
        if !goes_on && value.get(start..end).is_some_and(is_address6) {
            into.push(start..end);
        }
    }
}

/// `a::b` and `c::d` are names in many languages; an address has a digit, and
/// three groups or a long one.
fn is_address6(text: &[u8]) -> bool {
    let Some(address) = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<Ipv6Addr>().ok())
    else {
        return false;
    };
    let groups = text
        .split(|byte| *byte == b':')
        .filter(|group| !group.is_empty());
    let long = groups.clone().any(|group| group.len() >= 3);
    let digit = text.iter().any(u8::is_ascii_digit);
    digit && (long || groups.count() >= 3) && !address.is_loopback() && !address.is_unspecified()
}

/// Whether an address could be around the colon at `colon`: two in a row, or
/// the first of six with groups between.
pub(super) fn may_be_ipv6(chunk: &[u8], colon: usize) -> bool {
    if at(chunk, colon + 1) == b':' {
        if at(chunk, colon + 2) == b':' {
            return false;
        }
        let start = run_back(chunk, colon, V6, is_v6);
        let end = short_run(chunk, colon, V6, is_v6);
        let run = chunk.get(start..end).unwrap_or_default();
        return run.iter().any(u8::is_ascii_digit);
    }
    let mut index = colon;
    for _ in 0..5 {
        let end = short_run(chunk, index + 1, 4, |byte| byte.is_ascii_hexdigit());
        if end == index + 1 || at(chunk, end) != b':' {
            return false;
        }
        index = end;
    }
    true
}

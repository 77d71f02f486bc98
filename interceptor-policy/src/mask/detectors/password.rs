//! Passwords, where one is assigned and where one stands in a URL.
//!
//! A password may be anything, so only the assignment tells: `=` or `:` behind
//! the word, SQL's `PASSWORD '…'`, a flag `--password …`. What is no password is
//! told by its form: nothing, a variable, a placeholder, a word of prose.

use std::ops::Range;

use memchr::memmem;

use super::bytes::{at, before, run, run_back, short_run};

/// Most letters of a key behind the word.
const KEY_REST: usize = 24;
/// Most spaces, quotes and brackets beside the sign of assignment.
const GAP: usize = 8;
/// Longest password in quotes; without an end till then, it is one without quotes.
const QUOTED: usize = 1024;
/// Longest text that stands for a password.
const PLACEHOLDER: usize = 64;
/// Longest part of a URL before its host that is looked at.
const USER_INFO: usize = 512;

/// What the word may go on with and still name a password.
const KEY_RESTS: &[&str] = &[
    "hash",
    "_hash",
    "-hash",
    "digest",
    "_digest",
    "confirm",
    "_confirm",
    "confirmation",
    "_confirmation",
    "value",
    "_value",
];

/// Values of programs that are no secret.
const NOTHING: &[&str] = &[
    "null",
    "none",
    "nil",
    "true",
    "false",
    "undefined",
    "empty",
    "string",
    "required",
    "optional",
];

/// How a value stands behind its key.
struct Assigned {
    start: usize,
    /// Its quote, with whether that is escaped.
    quote: Option<(u8, bool)>,
    /// `key: value`, which is prose as well.
    colon: bool,
}

/// The password whose word is `text` at `start`.
pub(super) fn find(value: &[u8], start: usize, text: &str) -> Option<Range<usize>> {
    let assigned = assigned(value, start, text)?;
    if let Some((quote, escaped)) = assigned.quote
        && let Some(end) = quoted_end(value, assigned.start, quote, escaped)
    {
        let range = assigned.start..end;
        return is_secret(value.get(range.clone())?).then_some(range);
    }
    let end = run(value, assigned.start, |byte| !ends_bare(byte));
    let range = assigned.start..end;
    let password = value.get(range.clone())?;
    let sure = !assigned.colon || assigned.quote.is_some() || is_no_prose(value, &range);
    (sure && is_secret(password)).then_some(range)
}

/// Whether there could be one in a value of any extent.
pub(super) fn may_be(chunk: &[u8], start: usize, text: &str) -> bool {
    assigned(chunk, start, text).is_some_and(|assigned| assigned.start < chunk.len())
}

fn assigned(value: &[u8], start: usize, text: &str) -> Option<Assigned> {
    let word = start + text.trim_end_matches(['=', ':', '"']).len();
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let key = short_run(value, word, KEY_REST + 1, is_key);
    let rest = value.get(word..key)?;
    let known = rest.iter().all(u8::is_ascii_digit)
        || KEY_RESTS
            .iter()
            .any(|known| rest.eq_ignore_ascii_case(known.as_bytes()));
    if !known {
        return None;
    }
    let closes = |byte: u8| matches!(byte, b' ' | b'\t' | b'\\' | b'"' | b'\'' | b']' | b'`');
    let sign = short_run(value, key, GAP, closes);
    let behind = match (at(value, sign), at(value, sign + 1), at(value, sign + 2)) {
        // Comparisons, and paths of modules.
        (b'=', b'=' | b'~', _) | (b':', b':' | b'/', _) => return None,
        (b'=', b'>', _) | (b':', b'=', _) => sign + 2,
        (b'=' | b':', _, _) => sign + 1,
        (b'%', b'3', b'D' | b'd') => sign + 3,
        _ => return without_sign(value, start, key),
    };
    let colon = at(value, sign) == b':' && behind == sign + 1;
    Some(at_value(value, behind, colon))
}

/// SQL's `PASSWORD '…'`, and `--password …`.
fn without_sign(value: &[u8], start: usize, key: usize) -> Option<Assigned> {
    let after = short_run(value, key, GAP, |byte| byte == b' ' || byte == b'\t');
    if after == key {
        return None;
    }
    let is_flag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let flag = run_back(value, start, KEY_REST, is_flag);
    let dashes = at(value, flag) == b'-' && at(value, flag + 1) == b'-';
    let sql = at(value, after) == b'\'';
    (dashes || sql).then(|| at_value(value, after, false))
}

/// Behind spaces, and a quote with or without its escape.
fn at_value(value: &[u8], from: usize, colon: bool) -> Assigned {
    let start = short_run(value, from, GAP, |byte| byte == b' ' || byte == b'\t');
    let quote = short_run(value, start, GAP, |byte| byte == b'\\');
    match at(value, quote) {
        found @ (b'"' | b'\'' | b'`') => Assigned {
            start: quote + 1,
            quote: Some((found, quote > start)),
            colon,
        },
        _ => Assigned {
            start,
            quote: None,
            colon,
        },
    }
}

fn quoted_end(value: &[u8], start: usize, quote: u8, escaped: bool) -> Option<usize> {
    let mut index = start;
    loop {
        index = short_run(value, index, QUOTED, |byte| {
            byte != quote && !matches!(byte, b'\\' | b'\n' | b'\r')
        });
        if index - start >= QUOTED {
            return None;
        }
        match at(value, index) {
            b'\\' if escaped => {
                let slashes = run(value, index, |byte| byte == b'\\');
                if at(value, slashes) == quote {
                    return Some(index);
                }
                index = slashes;
            }
            b'\\' => index += 2,
            byte if byte == quote && index < value.len() => return Some(index),
            _ => return None,
        }
    }
}

/// Whether a value without quotes ends before this byte.
pub(super) const fn ends_bare(byte: u8) -> bool {
    byte <= b' '
        || matches!(
            byte,
            b'"' | b'\''
                | b'`'
                | b','
                | b';'
                | b'&'
                | b'<'
                | b'>'
                | b')'
                | b'}'
                | b']'
                | b'|'
                | b'\\'
                | 0x7f
        )
}

/// `password: hunter2` or a line's last word; `password: must be set` is prose.
fn is_no_prose(value: &[u8], range: &Range<usize>) -> bool {
    let word = value.get(range.clone()).unwrap_or_default();
    let rest = run(value, range.end, |byte| byte == b' ' || byte == b'\t');
    let last = rest >= value.len() || matches!(at(value, rest), b'\n' | b'\r' | b'\\');
    word.len() >= 4
        && (last
            || word
                .iter()
                .any(|byte| !byte.is_ascii_alphabetic() && *byte != b'.'))
}

/// Whether it is a value at all, and none that stands for one.
fn is_secret(value: &[u8]) -> bool {
    let Some(first) = value.first() else {
        return false;
    };
    // So that a run of what stands for one is not gone through from each.
    if value.len() > PLACEHOLDER {
        return true;
    }
    let nothing = NOTHING
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    let one_letter = value.iter().all(|byte| byte == first)
        && matches!(first, b'*' | b'x' | b'X' | b'.' | b'-' | b'?');
    // `$2b$12$…` is a hash.
    let variable = match value {
        [b'$', rest @ ..] => !rest.contains(&b'$'),
        [b'%', ..] => value.len() <= 3 || value.ends_with(b"%"),
        [b'<', ..] | [b'{', b'{', ..] => true,
        _ => value.starts_with(b"[redacted") || value.starts_with(b"[hash:"),
    };
    !nothing && !one_letter && !variable
}

/// Passwords of URLs: `scheme://user:PASSWORD@host`.
pub(super) fn url_passwords(value: &[u8], into: &mut Vec<Range<usize>>) {
    for scheme in memmem::find_iter(value, b"://") {
        let start = scheme + 3;
        let end = short_run(value, start, USER_INFO, |byte| !ends_authority(byte));
        let Some(authority) = value.get(start..end) else {
            continue;
        };
        let Some(at_sign) = memchr::memrchr(b'@', authority) else {
            continue;
        };
        let user_info = authority.get(..at_sign).unwrap_or_default();
        let Some(colon) = memchr::memchr(b':', user_info) else {
            continue;
        };
        let password = start + colon + 1..start + at_sign;
        let named = before(value, scheme, 1).is_ascii_alphanumeric();
        if named && value.get(password.clone()).is_some_and(is_secret) {
            into.push(password);
        }
    }
}

const fn ends_authority(byte: u8) -> bool {
    byte <= b' '
        || matches!(
            byte,
            b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'`' | b'\\'
        )
}

/// Whether the `@` at `mark` could be of such a URL.
pub(super) fn may_be_url(chunk: &[u8], mark: usize) -> bool {
    // A second `@` was asked before this one.
    let start = run_back(chunk, mark, USER_INFO, |byte| {
        !ends_authority(byte) && byte != b'@'
    });
    before(chunk, start, 1) == b'/'
        && before(chunk, start, 2) == b'/'
        && before(chunk, start, 3) == b':'
}

//! Secrets that are told by the word beside them: passwords, keys without a form
//! of their own, bearer tokens.
//!
//! The table says which words, and what each announces; how much of what follows
//! is hidden depends on how sure the announcement is. A password may be anything
//! and is believed where it is assigned; a secret by its letters has to look
//! drawn at random.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Detector::{self, AwsKey, BearerToken, HighEntropySecret, KeyValuePassword};
use super::bytes::{Class, before, run, short_run};
use super::{drawn, password};

/// A word, and the detectors that look behind it.
#[derive(Debug)]
pub(super) struct Keyword {
    /// At least four bytes. Words are named without their first letter where
    /// that is the only one to change its case.
    pub(super) text: &'static str,
    pub(super) announces: &'static [Detector],
}

const fn word(text: &'static str, announces: &'static [Detector]) -> Keyword {
    Keyword { text, announces }
}

const PASSWORD: &[Detector] = &[KeyValuePassword, HighEntropySecret];
const SECRET: &[Detector] = &[AwsKey, HighEntropySecret];
const DRAWN: &[Detector] = &[HighEntropySecret];
const BEARER: &[Detector] = &[BearerToken];

/// Of `Basic`, which announces a password in base64.
const BASIC_WORD: &str = "asic ";

/// Every word; none is the beginning of another.
#[rustfmt::skip]
pub(super) const KEYWORDS: &[Keyword] = &[
    word("assword",      PASSWORD),
    word("ASSWORD",      PASSWORD),
    word("asswd",        PASSWORD),
    word("ASSWD",        PASSWORD),
    word("assphrase",    PASSWORD),
    word("ASSPHRASE",    PASSWORD),
    // `PWD=` is the shell's working directory.
    word("pwd=",         PASSWORD),
    word("pwd:",         PASSWORD),
    word("pwd\"",        PASSWORD),
    word("Pwd=",         PASSWORD),
    word("ecret",        SECRET),
    word("ECRET",        SECRET),
    word("oken",         DRAWN),
    word("OKEN",         DRAWN),
    word("pi_key",       DRAWN),
    word("pi-key",       DRAWN),
    word("pi-Key",       DRAWN),
    word("piKey",        DRAWN),
    word("pikey",        DRAWN),
    word("PI_KEY",       DRAWN),
    word("PIKEY",        DRAWN),
    word("ccess_key",    DRAWN),
    word("ccessKey",     DRAWN),
    word("CCESS_KEY",    DRAWN),
    word("rivate_key",   DRAWN),
    word("rivateKey",    DRAWN),
    word("RIVATE_KEY",   DRAWN),
    word("ncryption_key", DRAWN),
    word("NCRYPTION_KEY", DRAWN),
    word("redential",    DRAWN),
    word("REDENTIAL",    DRAWN),
    word("earer",        BEARER),
    word("EARER",        BEARER),
    word(BASIC_WORD,     BEARER),
];

/// How far behind a word its secret may begin.
pub(super) const REACH: usize = 48;
/// Length of an AWS secret key.
const AWS_SECRET: usize = 40;
/// Letters of a bearer's token: fewest, and from how many on it needs no digit.
const BEARER_LEN: Range<usize> = 16..40;
/// Fewest letters of a name and password in base64.
const BASIC: usize = 8;
/// Longest name and password that is decoded.
const BASIC_LIMIT: usize = 1024;

/// Hands to `hit` what `detector` finds behind the word at `start`. What begins
/// before `done` was found before.
pub(super) fn find(
    detector: Detector,
    word: &Keyword,
    value: &[u8],
    start: usize,
    done: usize,
    hit: &mut dyn FnMut(Range<usize>),
) {
    let from = start + word.text.len();
    match detector {
        AwsKey => runs_behind(value, from, is_aws, AWS_SECRET + 1)
            .filter(|run| run.len() == AWS_SECRET)
            .for_each(hit),
        HighEntropySecret => runs_behind(value, from, drawn::is_letter, drawn::WEIGHED)
            .filter(|run| run.start >= done)
            .filter_map(|run| drawn(value, run))
            .for_each(hit),
        // A run of beginnings must not be gone through from each.
        _ if start < done => {}
        KeyValuePassword => password::find(value, start, word.text)
            .into_iter()
            .for_each(hit),
        BearerToken if word.text == BASIC_WORD => {
            basic(value, start, from).into_iter().for_each(hit);
        }
        BearerToken => bearer(value, start, from).into_iter().for_each(hit),
        _ => {}
    }
}

/// Whether `detector` could find something there in a value of any extent.
pub(super) fn may_find(detector: Detector, word: &Keyword, chunk: &[u8], start: usize) -> bool {
    let from = start + word.text.len();
    match detector {
        AwsKey => runs_behind(chunk, from, is_aws, AWS_SECRET).any(|run| run.len() == AWS_SECRET),
        HighEntropySecret => runs_behind(chunk, from, drawn::is_letter, drawn::MIN)
            .any(|run| run.len() == drawn::MIN),
        KeyValuePassword => password::may_be(chunk, start, word.text),
        BearerToken => {
            let from = from - usize::from(word.text == BASIC_WORD);
            behind_space(chunk, from).is_some_and(|token| {
                let end = short_run(chunk, token, BASIC, |byte| Class::Bearer.has(byte));
                end - token == BASIC
            })
        }
        _ => false,
    }
}

/// The runs that begin soon behind a word, cut at `most`. They may be on the
/// next line: `name: API_TOKEN`, `value: …`.
fn runs_behind(
    value: &[u8],
    from: usize,
    is: fn(u8) -> bool,
    most: usize,
) -> impl Iterator<Item = Range<usize>> {
    let last = from + REACH;
    let mut next = from;
    std::iter::from_fn(move || {
        let gap = (last + 1).saturating_sub(next);
        let start = short_run(value, next, gap, |byte| !is(byte));
        if start > last || start >= value.len() {
            return None;
        }
        let end = short_run(value, start, most, is);
        next = end;
        Some(start..end)
    })
}

const fn is_aws(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'+'
}

/// A run whole, where it looks drawn at random.
fn drawn(value: &[u8], found: Range<usize>) -> Option<Range<usize>> {
    let text = value.get(found.clone())?;
    let lead = text
        .iter()
        .take_while(|byte| !byte.is_ascii_alphanumeric())
        .count();
    drawn::looks_drawn(text.get(lead..)?).then(|| {
        let end = run(value, found.end, drawn::is_letter);
        found.start + lead..short_run(value, end, 2, |byte| byte == b'=')
    })
}

const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Where what is behind the space at `from` begins, as it is or as in a URL.
fn behind_space(value: &[u8], from: usize) -> Option<usize> {
    let rest = value.get(from..)?;
    match rest.strip_prefix(b"%20") {
        Some(_) => Some(from + 3),
        None => Some(run(value, from, is_space)).filter(|start| *start > from),
    }
}

/// RFC 6750, section 2.1. Prose about bearer tokens has neither their length
/// nor their digits.
fn bearer(value: &[u8], word: usize, from: usize) -> Option<Range<usize>> {
    let start = behind_space(value, from)?;
    let end = run(value, start, |byte| Class::Bearer.has(byte));
    let token = value.get(start..end)?;
    let drawn = token.len() >= BEARER_LEN.end || token.iter().any(u8::is_ascii_digit);
    let first = before(value, word, 1) | 0x20;
    (first == b'b' && token.len() >= BEARER_LEN.start && drawn).then_some(start..end)
}

/// RFC 7617: a name and a password in base64.
fn basic(value: &[u8], word: usize, from: usize) -> Option<Range<usize>> {
    let start = run(value, from, is_space);
    let end = short_run(value, start, BASIC_LIMIT, |byte| Class::Base64.has(byte));
    let encoded = value.get(start..end).filter(|text| text.len() >= BASIC)?;
    let text = STANDARD.decode(encoded).ok()?;
    let text = std::str::from_utf8(&text).ok()?;
    let pair = text.contains(':') && !text.chars().any(char::is_control);
    (before(value, word, 1) | 0x20 == b'b' && pair).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_hides_another() {
        for (index, word) in KEYWORDS.iter().enumerate() {
            assert!(word.text.len() >= 4, "{}", word.text);
            for other in KEYWORDS.iter().skip(index + 1) {
                let (a, b) = (word.text, other.text);
                assert!(!a.starts_with(b) && !b.starts_with(a), "{a} {b}");
            }
        }
    }
}

//! International bank account numbers (ISO 13616), with their check digits.

use std::ops::Range;

use super::bytes::{at, before, begins, ends};

/// Longest of all, without spaces.
const LONGEST: usize = 34;
/// Shortest of all.
const SHORTEST: usize = 15;

/// Countries of the registry, with the length of their numbers.
#[rustfmt::skip]
const COUNTRIES: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16),
    (b"BG", 22), (b"BH", 22), (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22),
    (b"CY", 28), (b"CZ", 24), (b"DE", 22), (b"DJ", 27), (b"DK", 18), (b"DO", 28), (b"EE", 20),
    (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FK", 18), (b"FO", 18), (b"FR", 27), (b"GB", 22),
    (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28), (b"HN", 28), (b"HR", 21),
    (b"HU", 28), (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30),
    (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20),
    (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MN", 20),
    (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22),
    (b"RU", 33), (b"SA", 24), (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24),
    (b"SM", 27), (b"SO", 23), (b"ST", 25), (b"SV", 28), (b"TL", 23), (b"TN", 24), (b"TR", 26),
    (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20), (b"YE", 30),
];

const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

/// Numbers in one piece, or in groups of four with single spaces between.
pub(super) fn ibans(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut index = 0;
    while index < value.len() {
        match iban_at(value, index) {
            Some(end) => {
                into.push(index..end);
                index = end;
            }
            None => index += 1,
        }
    }
}

fn iban_at(value: &[u8], start: usize) -> Option<usize> {
    let country = [at(value, start), at(value, start + 1)];
    if !country.iter().all(u8::is_ascii_uppercase) || !at(value, start + 2).is_ascii_digit() {
        return None;
    }
    let (_, len) = COUNTRIES.iter().find(|(code, _)| **code == country)?;
    let spaced = at(value, start + 4) == b' ';
    let mut letters = [0_u8; LONGEST];
    let mut index = start;
    for (count, letter) in letters.iter_mut().take(*len).enumerate() {
        if spaced && count > 0 && count % 4 == 0 {
            if at(value, index) != b' ' {
                return None;
            }
            index += 1;
        }
        *letter = at(value, index);
        if !is_letter(*letter) {
            return None;
        }
        index += 1;
    }
    let alone = begins(value, start) && before(value, start, 1) != b'_' && ends(value, index);
    (alone && checks(letters.get(..*len)?)).then_some(index)
}

/// ISO 7064, modulus 97-10: the first four letters go behind the others.
fn checks(letters: &[u8]) -> bool {
    let Some((head, body)) = letters.split_at_checked(4) else {
        return false;
    };
    let rest = body
        .iter()
        .chain(head)
        .fold(0_u32, |rest, letter| match letter.checked_sub(b'A') {
            Some(place) => (rest * 100 + u32::from(place) + 10) % 97,
            None => (rest * 10 + u32::from(letter - b'0')) % 97,
        });
    rest == 1
}

/// Whether one could begin at `start`.
pub(super) fn may_be(chunk: &[u8], start: usize) -> bool {
    let country = [at(chunk, start), at(chunk, start + 1)];
    let known = COUNTRIES.iter().any(|(code, _)| **code == country);
    let letters = chunk.iter().skip(start).take(SHORTEST);
    known
        && letters.clone().count() == SHORTEST
        && letters.clone().all(|b| is_letter(*b) || *b == b' ')
}

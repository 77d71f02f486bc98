//! Where in a chunk something stands that no address, number or URL can do
//! without: `@`, `+` or `(` before digits, dots or colons between them.
//!
//! The chunk is gone through once, in blocks; what is asked of a block are
//! comparisons of whole bytes without a branch, which a compiler makes into
//! vector instructions. Only a block that has a mark is looked at byte by byte.

use super::Detector::{AzureKey, Email, Iban, Ipv4, Ipv6, Phone, UrlPassword};
use super::Set;
use super::{address, email, iban, password, phone, tokens};

/// Bytes of a block. Two blocks hold every IPv6 address's colons, so three of
/// six are in one.
const BLOCK: usize = 32;
/// Bytes behind a block that decide about its last.
const AHEAD: usize = 5;
/// Colons in one block that may be an address's.
const COLONS: u8 = 3;

/// `@`.
const AT: u8 = 1;
/// `+` or `(` before two digits.
const NUMBER: u8 = 2;
/// Two capitals before two digits.
const IBAN: u8 = 4;
/// `::` beside what may be hexadecimal.
const DOUBLE: u8 = 8;
/// `Q~`.
const AZURE: u8 = 16;
/// A dot between digits, and another soon.
const DOTS: u8 = 32;
/// [`COLONS`] between what may be hexadecimal.
const MANY: u8 = 64;

/// The detectors of `on` that may find something in `chunk`; the first of them
/// alone where `enough` is one.
pub(super) fn seen(chunk: &[u8], on: Set, enough: bool) -> Set {
    let wanted = wanted(on);
    if wanted == 0 {
        return Set::default();
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions that the function is
        // compiled for.
        return unsafe { seen_avx2(chunk, on, wanted, enough) };
    }
    seen_by(chunk, on, wanted, enough)
}

/// The same code in vectors of twice the length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn seen_avx2(chunk: &[u8], on: Set, wanted: u8, enough: bool) -> Set {
    seen_by(chunk, on, wanted, enough)
}

#[inline(always)]
fn seen_by(chunk: &[u8], on: Set, wanted: u8, enough: bool) -> Set {
    let mut seen = Set::default();
    let mut start = 0;
    while start < chunk.len() {
        let rest = chunk.get(start..).unwrap_or_default();
        let marks = match rest.first_chunk::<{ BLOCK + AHEAD }>() {
            Some(window) => look(window),
            None => {
                let mut window = [0; BLOCK + AHEAD];
                for (to, from) in window.iter_mut().zip(rest) {
                    *to = *from;
                }
                look(&window)
            }
        };
        // What is before a block decides about its first two bytes, and nothing
        // is before the chunk.
        let marks = match rest {
            [b':', b':', ..] if start == 0 => marks | DOUBLE,
            _ => marks,
        };
        if marks & wanted != 0 {
            look_closely(chunk, start, marks, on, &mut seen);
            if enough && !seen.is_empty() {
                return seen;
            }
        }
        start += BLOCK;
    }
    seen
}

/// The marks that anybody asks for.
fn wanted(on: Set) -> u8 {
    let mut wanted = 0;
    for (detectors, marks) in [
        (&[Email, UrlPassword][..], AT),
        (&[Phone], NUMBER),
        (&[Iban], IBAN),
        (&[Ipv6], DOUBLE | MANY),
        (&[AzureKey], AZURE),
        (&[Ipv4], DOTS),
    ] {
        if on.has_any(detectors) {
            wanted |= marks;
        }
    }
    wanted
}

const fn is_digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}

const fn is_capital(byte: u8) -> bool {
    byte.wrapping_sub(b'A') < 26
}

/// Hexadecimal, or some other byte between `0` and `f`: one comparison.
const fn is_hex_or_so(byte: u8) -> bool {
    byte.wrapping_sub(b'0') <= b'f' - b'0'
}

/// The marks of a block.
#[expect(
    clippy::indexing_slicing,
    reason = "the compiler sees that no index is out of the array, and makes vectors of the loop"
)]
#[inline(always)]
fn look(window: &[u8; BLOCK + AHEAD]) -> u8 {
    let (mut marks, mut colons) = (0_u8, 0_u8);
    let mark = |is: bool, mark: u8| if is { mark } else { 0 };
    for index in 0..BLOCK {
        let [a, b, c] = [window[index], window[index + 1], window[index + 2]];
        let [d, e, f] = [window[index + 3], window[index + 4], window[index + 5]];
        let number = ((a == b'+') | (a == b'(')) & is_digit(b) & is_digit(c);
        let iban = is_capital(a) & is_capital(b) & is_digit(c) & is_digit(d);
        // `std::vec` is no address.
        let double = (b == b':') & (c == b':') & (is_hex_or_so(a) | is_hex_or_so(d));
        let dot = is_digit(a) & (b == b'.') & is_digit(c);
        let dots = dot & ((d == b'.') | (e == b'.') | (f == b'.'));
        marks |= mark(a == b'@', AT)
            | mark(number, NUMBER)
            | mark(iban, IBAN)
            | mark(double, DOUBLE)
            | mark((a == b'Q') & (b == b'~'), AZURE)
            | mark(dots, DOTS);
        colons += u8::from(is_hex_or_so(a) & (b == b':') & is_hex_or_so(c));
    }
    marks | mark(colons >= COLONS, MANY)
}

/// Asks the detectors at every mark of a block.
#[inline(never)]
fn look_closely(chunk: &[u8], start: usize, marks: u8, on: Set, seen: &mut Set) {
    let mut ask = |detector, may: &dyn Fn() -> bool| {
        if on.has(detector) && !seen.has(detector) && may() {
            seen.insert(detector);
        }
    };
    let end = chunk.len().min(start + BLOCK + AHEAD);
    let block = chunk.get(start..end).unwrap_or_default();
    if marks & AT != 0 {
        for at in memchr::memchr_iter(b'@', block).map(|at| start + at) {
            ask(Email, &|| email::may_be(chunk, at));
            ask(UrlPassword, &|| password::may_be_url(chunk, at));
        }
    }
    if marks & NUMBER != 0 {
        for at in memchr::memchr2_iter(b'+', b'(', block).map(|at| start + at) {
            ask(Phone, &|| phone::may_be_international(chunk, at));
            ask(Phone, &|| phone::may_be_in_brackets(chunk, at));
        }
    }
    if marks & DOTS != 0 {
        for at in memchr::memchr_iter(b'.', block).map(|at| start + at) {
            ask(Ipv4, &|| address::may_be_ipv4(chunk, at));
        }
    }
    if marks & (DOUBLE | MANY) != 0 {
        // The first of an address's colons may be in the block before.
        let back = if marks & MANY != 0 { BLOCK } else { 0 };
        let from = start.saturating_sub(back);
        let block = chunk.get(from..end).unwrap_or_default();
        for at in memchr::memchr_iter(b':', block).map(|at| from + at) {
            ask(Ipv6, &|| address::may_be_ipv6(chunk, at));
        }
    }
    if marks & AZURE != 0 {
        for at in memchr::memchr_iter(b'Q', block).map(|at| start + at) {
            ask(AzureKey, &|| tokens::may_be_azure_client(chunk, at));
        }
    }
    if marks & IBAN != 0 {
        for at in start..end {
            ask(Iban, &|| iban::may_be(chunk, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_seen_wherever_it_lies_in_a_chunk() {
        let marks = [
            (Email, "a@b"),
            (UrlPassword, "x://u:p@h"),
            (Phone, "+12125551234"),
            (Phone, "(212) 555-1234"),
            (Ipv4, "1.2.3.4"),
            (Ipv4, "100.200.100.200"),
            (Ipv6, "fe80::1"),
            (Ipv6, "2001:db80:abcd:ef01:2345:6789:abcd:ef01"),
            (Ipv6, "0:0:0:0:0:ffff:10.0.0.1"),
            (Iban, "QA58DOHB00001234567890ABCDEFG"),
            (AzureKey, "abc8Q~defghijklmnopqrstuvwxyz0123456789AB"),
        ];
        for (detector, text) in marks {
            let mut on = Set::default();
            on.insert(detector);
            for offset in 0..3 * BLOCK {
                for filler in ["\0", "x", "-"] {
                    let chunk = [&filler.repeat(offset), text, &filler.repeat(2)].concat();
                    assert!(
                        seen(chunk.as_bytes(), on, true).has(detector),
                        "{text} at {offset}"
                    );
                    let end = [&filler.repeat(offset), text].concat();
                    assert!(
                        seen(end.as_bytes(), on, true).has(detector),
                        "{text} at {offset}"
                    );
                }
            }
        }
    }
}

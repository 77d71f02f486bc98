//! Where in a chunk something stands that no address, number or URL can do
//! without: `@`, `+` or `(` before digits, dots or colons between them.
//!
//! The chunk is gone through once, in blocks; what is asked of a block are
//! comparisons of whole bytes without a branch, which a compiler makes into
//! vector instructions. Only a block that has a mark is looked at byte by byte.

use super::Detector::{AzureKey, Email, Iban, Ipv4, Ipv6, Phone, UrlPassword};
use super::Set;
use super::{address, email, iban, password, phone, tokens};

/// Bytes of a block. Two blocks hold every IP address's dots or colons, so the
/// greater half of them is in one.
const BLOCK: usize = 32;
/// Bytes behind a block that decide about its last.
const AHEAD: usize = 3;
/// Dots and colons in one block that may be an address's.
const DOTS: u8 = 2;
const COLONS: u8 = 3;

/// What a block has.
struct Block {
    /// A mark by itself.
    any: bool,
    dots: bool,
    colons: bool,
}

/// The detectors of `on` that may find something in `chunk`; the first of them
/// alone where `enough` is one.
pub(super) fn seen(chunk: &[u8], on: Set, enough: bool) -> Set {
    let mut seen = Set::default();
    if !on.has_any(&[AzureKey, Email, Iban, Ipv4, Ipv6, Phone, UrlPassword]) {
        return seen;
    }
    let mut start = 0;
    while start < chunk.len() {
        let rest = chunk.get(start..).unwrap_or_default();
        let block = match rest.first_chunk::<{ BLOCK + AHEAD }>() {
            Some(window) => look(window),
            None => {
                let mut window = [0; BLOCK + AHEAD];
                for (to, from) in window.iter_mut().zip(rest) {
                    *to = *from;
                }
                look(&window)
            }
        };
        if block.any || block.dots || block.colons {
            look_closely(chunk, start, &block, on, &mut seen);
            if enough && !seen.is_empty() {
                return seen;
            }
        }
        start += BLOCK;
    }
    seen
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

#[inline(always)]
fn look(window: &[u8; BLOCK + AHEAD]) -> Block {
    let (mut any, mut dots, mut colons) = (0_u8, 0_u8, 0_u8);
    // Four views of the same bytes, so that no index is checked.
    let views = window
        .iter()
        .zip(window.iter().skip(1))
        .zip(window.iter().skip(2).zip(window.iter().skip(3)));
    for ((&a, &b), (&c, &d)) in views {
        let at = a == b'@';
        let number = ((a == b'+') | (a == b'(')) & is_digit(b) & is_digit(c);
        let iban = is_capital(a) & is_capital(b) & is_digit(c) & is_digit(d);
        let double = (a == b':') & (b == b':');
        let azure = (a == b'Q') & (b == b'~');
        any |= u8::from(at | number | iban | double | azure);
        dots += u8::from(is_digit(a) & (b == b'.') & is_digit(c));
        colons += u8::from(is_hex_or_so(a) & (b == b':') & is_hex_or_so(c));
    }
    Block {
        any: any != 0,
        dots: dots >= DOTS,
        colons: colons >= COLONS,
    }
}

fn look_closely(chunk: &[u8], start: usize, block: &Block, on: Set, seen: &mut Set) {
    let mut ask = |detector, may: &dyn Fn() -> bool| {
        if on.has(detector) && !seen.has(detector) && may() {
            seen.insert(detector);
        }
    };
    // The first of an address's dots and colons may be in the block before.
    let from = if block.dots || block.colons {
        start.saturating_sub(BLOCK)
    } else {
        start
    };
    let bytes = chunk
        .iter()
        .enumerate()
        .skip(from)
        .take(start + BLOCK + AHEAD - from);
    for (index, byte) in bytes {
        match byte {
            b'@' => {
                ask(Email, &|| email::may_be(chunk, index));
                ask(UrlPassword, &|| password::may_be_url(chunk, index));
            }
            b'+' => ask(Phone, &|| phone::may_be_international(chunk, index)),
            b'(' => ask(Phone, &|| phone::may_be_in_brackets(chunk, index)),
            b'.' if block.dots => ask(Ipv4, &|| address::may_be_ipv4(chunk, index)),
            b':' => ask(Ipv6, &|| address::may_be_ipv6(chunk, index)),
            b'Q' => ask(AzureKey, &|| tokens::may_be_azure_client(chunk, index)),
            b'A'..=b'Z' => ask(Iban, &|| iban::may_be(chunk, index)),
            _ => {}
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

//! Values made of digits: card numbers, social security numbers.

use std::ops::Range;

use super::bytes::{at, before, begins, ends, in_uuid};
use super::phone;

/// Digits of the shortest and of the longest card number.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// Fewest digits of one group, where a card number is written in groups. Keeps
/// dates and lists of small numbers out.
const GROUP: usize = 3;
/// Half of the shortest number of all, less one.
const HALF: usize = (phone::SHORTEST - 1) / 2;
/// Length of `ddd-dd-dddd`, the shortest of all matches here.
const SSN_LEN: usize = 11;

/// Card brands: the range of the first six digits, and the lengths in use.
#[rustfmt::skip]
const BRANDS: &[(u32, u32, &[usize])] = &[
    (400_000, 499_999, &[13, 16, 19]),                  // Visa
    (510_000, 559_999, &[16]),                          // Mastercard
    (222_100, 272_099, &[16]),                          // Mastercard, second range
    (340_000, 349_999, &[15]),                          // American Express
    (370_000, 379_999, &[15]),                          // American Express
    (300_000, 305_999, &[14, 16, 17, 18, 19]),          // Diners Club
    (309_500, 309_599, &[14, 16, 17, 18, 19]),          // Diners Club
    (360_000, 369_999, &[14, 16, 17, 18, 19]),          // Diners Club
    (380_000, 399_999, &[14, 16, 17, 18, 19]),          // Diners Club
    (352_800, 358_999, &[16, 17, 18, 19]),              // JCB
    (601_100, 601_199, &[16, 17, 18, 19]),              // Discover
    (644_000, 659_999, &[16, 17, 18, 19]),              // Discover
    (620_000, 629_999, &[16, 17, 18, 19]),              // UnionPay
    (810_000, 817_199, &[16, 17, 18, 19]),              // UnionPay
    (220_000, 220_499, &[16, 17, 18, 19]),              // Mir
    (500_000, 509_999, &[13, 14, 15, 16, 17, 18, 19]),  // Maestro
    (560_000, 589_999, &[13, 14, 15, 16, 17, 18, 19]),  // Maestro
    (600_000, 699_999, &[13, 14, 15, 16, 17, 18, 19]),  // Maestro, RuPay
];

const fn is_separator(byte: u8) -> bool {
    byte == b' ' || byte == b'-'
}

/// Card numbers: whole groups of digits, joined by single spaces or dashes,
/// which are no part of a decimal fraction.
pub(super) fn credit_cards(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut index = 0;
    while index < value.len() {
        if !at(value, index).is_ascii_digit() {
            index += 1;
            continue;
        }
        index = match card_at(value, index).filter(|end| is_alone(value, index..*end)) {
            Some(end) => {
                into.push(index..end);
                end
            }
            None => group_end(value, index),
        };
    }
}

/// Digits of a digest, of a UUID or of a name are no card's.
fn is_alone(value: &[u8], range: Range<usize>) -> bool {
    begins(value, range.start) && ends(value, range.end) && !in_uuid(value, &range)
}

fn group_end(value: &[u8], start: usize) -> usize {
    let digits = value.get(start..).unwrap_or_default();
    let len = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    start + len
}

/// The end of the longest card number that starts with the group at `start`.
fn card_at(value: &[u8], start: usize) -> Option<usize> {
    if before(value, start, 1) == b'.' && before(value, start, 2).is_ascii_digit() {
        return None;
    }
    let mut digits = [0_u8; *CARD_DIGITS.end()];
    let mut count = 0;
    let mut group = 0;
    let mut groups = 1;
    let mut found = None;
    let mut index = start;
    loop {
        let byte = at(value, index);
        if byte.is_ascii_digit() {
            *digits.get_mut(count)? = byte - b'0';
            count += 1;
            group += 1;
            index += 1;
            if count == digits.len() || !at(value, index).is_ascii_digit() {
                // A group ends here, or is too long to belong.
                let whole = !at(value, index).is_ascii_digit();
                let fraction = at(value, index) == b'.' && at(value, index + 1).is_ascii_digit();
                let long_enough = groups == 1 || group >= GROUP;
                if whole && long_enough && !fraction && is_card(digits.get(..count)?) {
                    found = Some(index);
                }
                let joined =
                    is_separator(at(value, index)) && at(value, index + 1).is_ascii_digit();
                if !whole || !joined || group < GROUP || count == digits.len() {
                    return found;
                }
                index += 1;
                group = 0;
                groups += 1;
            }
        } else {
            return found;
        }
    }
}

fn is_card(digits: &[u8]) -> bool {
    if !CARD_DIGITS.contains(&digits.len()) {
        return false;
    }
    let first = digits
        .iter()
        .take(6)
        .fold(0, |sum, digit| sum * 10 + u32::from(*digit));
    let brand = BRANDS.iter().any(|(from, to, lengths)| {
        (*from..=*to).contains(&first) && lengths.contains(&digits.len())
    });
    brand && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(*digit);
            match place % 2 {
                0 => digit,
                _ if digit > 4 => digit * 2 - 9,
                _ => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Social security numbers, with the same separator twice.
pub(super) fn us_ssns(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut from = 0;
    for separator in memchr::memchr2_iter(b'-', b' ', value) {
        let Some(start) = separator.checked_sub(3).filter(|start| *start >= from) else {
            continue;
        };
        if is_ssn_shape(value, start) && is_ssn(value, start) {
            into.push(start..start + SSN_LEN);
            from = start + SSN_LEN;
        }
    }
}

/// `ddd-dd-dddd`, whatever is beside it.
fn is_ssn_shape(value: &[u8], start: usize) -> bool {
    let Some(shape) = value.get(start..start + SSN_LEN) else {
        return false;
    };
    let separator = at(shape, 3);
    is_separator(separator)
        && shape.iter().enumerate().all(|(index, byte)| match index {
            3 | 6 => *byte == separator,
            _ => byte.is_ascii_digit(),
        })
}

/// Whether a shape is a number that can have been given out, and is not part of
/// a longer one.
fn is_ssn(value: &[u8], start: usize) -> bool {
    let end = start + SSN_LEN;
    let separator = at(value, start + 3);
    let longer_before = before(value, start, 1).is_ascii_digit()
        || (before(value, start, 1) == separator && before(value, start, 2).is_ascii_digit());
    let longer_after = at(value, end).is_ascii_digit()
        || (at(value, end) == separator && at(value, end + 1).is_ascii_digit());
    let part = |range: Range<usize>| value.get(range).unwrap_or_default();
    let area = part(start..start + 3);
    let given_out = area != b"000"
        && area != b"666"
        && at(area, 0) != b'9'
        && part(start + 4..start + 6) != b"00"
        && part(start + 7..end) != b"0000";
    let alone = begins(value, start) && ends(value, end);
    given_out && alone && !longer_before && !longer_after
}

/// Which numbers are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) cards: bool,
    pub(super) ssns: bool,
    /// National ones.
    pub(super) phones: bool,
}

impl Wanted {
    /// Shortest of all matches.
    const fn shortest(self) -> usize {
        if self.phones {
            phone::SHORTEST
        } else {
            SSN_LEN
        }
    }

    const fn is_none(self) -> bool {
        !(self.cards || self.ssns || self.phones)
    }
}

/// Whether a chunk holds a run of digits and single separators in which a
/// number could be. Every match is made of such bytes alone and has a shortest
/// length, so looking at every tenth byte or so finds one.
pub(super) fn may_hit(chunk: &[u8], wanted: Wanted) -> bool {
    if wanted.is_none() {
        return false;
    }
    let shortest = wanted.shortest();
    let mut probe = shortest - 1;
    while let Some(byte) = chunk.get(probe) {
        let is = |byte: &u8| byte.is_ascii_digit() || joins(*byte, wanted.phones);
        // Of a number around the probe, more than half is before it or behind.
        let near = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| bytes.iter().all(is));
        let within = is(byte)
            && (near(chunk.get(probe..=probe + HALF)) || near(chunk.get(probe - HALF..=probe)))
            && (byte.is_ascii_digit() || is_between(chunk, probe));
        if within {
            match run_around(chunk, probe, wanted) {
                Some(end) => probe = end,
                None => return true,
            }
        }
        probe += shortest;
    }
    false
}

fn is_between(chunk: &[u8], index: usize) -> bool {
    before(chunk, index, 1).is_ascii_digit() && at(chunk, index + 1).is_ascii_digit()
}

const fn joins(byte: u8, wide: bool) -> bool {
    is_separator(byte) || (wide && matches!(byte, b'.' | b'/'))
}

/// Where the run around a byte within it begins.
#[inline]
fn run_start(chunk: &[u8], index: usize, wide: bool) -> usize {
    // A separator within a run has a digit before it.
    let mut start = index + usize::from(at(chunk, index).is_ascii_digit());
    loop {
        let back = chunk.get(..start).unwrap_or_default().iter().rev();
        start -= back.take_while(|byte| byte.is_ascii_digit()).count();
        let joined =
            joins(before(chunk, start, 1), wide) && before(chunk, start, 2).is_ascii_digit();
        if !joined {
            return start;
        }
        start -= 1;
    }
}

/// The end of the run around a byte within it; `None` where a number could be
/// in it. Neighbours of a value in the chunk (a length byte that happens to be
/// a digit's) can lengthen its first and last group, and so say nothing here.
#[inline]
fn run_around(chunk: &[u8], index: usize, wanted: Wanted) -> Option<usize> {
    let start = run_start(chunk, index, wanted.phones);
    // Most runs are dates, times and figures, told by nothing but lengths: no
    // number is without a later group of three, but for a card's in one piece
    // and pairs.
    let (mut groups, mut len, mut first, mut later) = (0, 0, 0, 0);
    let mut end = chunk.len();
    let mut rest = chunk.get(start..).unwrap_or_default().iter();
    while let Some(byte) = rest.next() {
        if byte.is_ascii_digit() {
            len += 1;
            continue;
        }
        let next_is_digit = rest.as_slice().first().is_some_and(u8::is_ascii_digit);
        if !(next_is_digit && joins(*byte, wanted.phones)) {
            end -= rest.as_slice().len() + 1;
            break;
        }
        if groups == 0 {
            first = len;
        } else {
            later = later.max(len);
        }
        groups += 1;
        len = 0;
    }
    let last_len = if groups == 0 { 0 } else { len };
    let first = if groups == 0 { len } else { first };
    let told = first >= *CARD_DIGITS.start() || later.max(last_len) >= GROUP || groups >= 4;
    let long = end - start >= wanted.shortest();
    if told && long && run_may_hit(chunk, start, wanted) {
        return None;
    }
    Some(end)
}

/// Whether a number could be in the run that starts at `start`.
#[inline(never)]
fn run_may_hit(chunk: &[u8], start: usize, wanted: Wanted) -> bool {
    let mut group = start..group_end(chunk, start);
    let mut before_it = start..start;
    let mut digits = 0;
    loop {
        digits += group.len();
        if wanted.cards && digits >= *CARD_DIGITS.start() {
            return true;
        }
        // No card number has a group of fewer.
        if group.len() < GROUP {
            digits = 0;
        }
        let joined =
            joins(at(chunk, group.end), wanted.phones) && at(chunk, group.end + 1).is_ascii_digit();
        if !joined {
            return false;
        }
        let next = group.end + 1..group_end(chunk, group.end + 1);
        if wanted.ssns && may_be_ssn(&before_it, &group, &next)
            || wanted.phones && phone::may_begin(chunk, &group, &next)
        {
            return true;
        }
        (before_it, group) = (group, next);
    }
}

/// Whether a social security number could end in the third of three groups.
fn may_be_ssn(area: &Range<usize>, group: &Range<usize>, serial: &Range<usize>) -> bool {
    area.len() >= 3 && group.len() == 2 && serial.len() >= 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(find: fn(&[u8], &mut Vec<Range<usize>>), text: &str) -> Vec<&str> {
        let mut ranges = Vec::new();
        find(text.as_bytes(), &mut ranges);
        ranges
            .into_iter()
            .map(|range| text.get(range).unwrap())
            .collect()
    }

    fn wanted(cards: bool, ssns: bool) -> Wanted {
        Wanted {
            cards,
            ssns,
            phones: true,
        }
    }

    #[test]
    fn card_numbers_of_every_brand_are_found() {
        for card in [
            "4111111111111111",
            "4222222222222",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "30569309025904",
            "3530111333300000",
            "6011111111111117",
            "6200000000000005",
            "6759649826438453",
        ] {
            assert_eq!(found(credit_cards, card), [card]);
        }
    }

    #[test]
    fn card_numbers_are_found_in_groups_and_amid_text() {
        for card in [
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "3782 822463 10005",
        ] {
            assert_eq!(found(credit_cards, card), [card]);
            assert_eq!(found(credit_cards, &format!("pay {card}.")), [card]);
            assert_eq!(found(credit_cards, &format!("{card} 123")), [card]);
            assert_eq!(found(credit_cards, &format!("2024 {card}")), [card]);
            assert_eq!(
                found(credit_cards, &format!("{{\"n\":\"{card}\"}}")),
                [card]
            );
        }
        assert_eq!(
            found(credit_cards, "4111111111111111 5555555555554444"),
            ["4111111111111111", "5555555555554444"]
        );
    }

    #[test]
    fn what_only_resembles_a_card_number_is_not_one() {
        for near in [
            "4111111111111112",        // Luhn
            "411111111111",            // too short
            "41111111111111111111111", // inside a longer run
            "1234567812345670",        // Luhn, but no brand
            "4111  1111  1111  1111",  // two spaces
            "4111.1111.1111.1111",
            "0.4111111111111111", // a fraction
            "4111111111111111.5",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", // numbers of one digit
            "30-01-2024 31-01-2024",           // dates
            "2024-01-15 10:11:12.123456",
            "1732428519123456", // microseconds
        ] {
            assert_eq!(found(credit_cards, near), [""; 0], "{near}");
        }
    }

    #[test]
    fn social_security_numbers_are_found_with_dashes_or_spaces() {
        for ssn in ["123-45-6789", "123 45 6789", "899-01-0001"] {
            assert_eq!(found(us_ssns, ssn), [ssn]);
            assert_eq!(found(us_ssns, &format!("ssn:{ssn};")), [ssn]);
        }
        assert_eq!(found(us_ssns, "123-45-6789,234-56-7890").len(), 2);
    }

    #[test]
    fn what_only_resembles_a_social_security_number_is_not_one() {
        for near in [
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-6789",
            "123-45-0000",
            "123456789",
            "123-45 6789",
            "123-456-789",
            "1123-45-6789",
            "123-45-67890",
            "1-123-45-6789",
            "123-45-6789-1",
            "123-45-678",
        ] {
            assert_eq!(found(us_ssns, near), [""; 0], "{near}");
        }
    }

    #[test]
    fn a_number_is_seen_wherever_it_lies_in_a_chunk() {
        for offset in 0..64 {
            for (number, cards, ssns) in
                [("123-45-6789", false, true), ("4222222222222", true, false)]
            {
                for filler in ["x", "\0", " ", "-"] {
                    let chunk =
                        [filler.repeat(offset), number.to_owned(), filler.repeat(3)].concat();
                    assert!(
                        may_hit(chunk.as_bytes(), wanted(cards, ssns)),
                        "{number} at {offset}"
                    );
                    let end = [filler.repeat(offset), number.to_owned()].concat();
                    assert!(
                        may_hit(end.as_bytes(), wanted(cards, ssns)),
                        "{number} at {offset}"
                    );
                }
            }
        }
    }

    #[test]
    fn long_runs_take_time_in_proportion() {
        // Quadratic, each of these would take minutes.
        for text in [
            "1".repeat(1 << 20),
            "1 ".repeat(1 << 19),
            "123 ".repeat(1 << 18),
        ] {
            assert_eq!(found(credit_cards, &text), [""; 0]);
            assert_eq!(found(us_ssns, &text), [""; 0]);
            let _ = may_hit(text.as_bytes(), wanted(true, true));
        }
    }
}

//! Telephone numbers: international, and the national forms that cannot be
//! taken for anything else.
//!
//! A run of digits is never a number by itself, and three groups of them may be
//! a date, a version or a column of figures. What is found is `+` and a country
//! (ITU-T E.164); North American numbers in brackets, dashes or dots; numbers
//! with the trunk prefix `0` in groups that no date has.

use std::ops::Range;

use super::bytes::{at, before, begins, in_uuid, run, short_run};

/// Digits of an international number, and most groups they stand in.
const INTERNATIONAL: std::ops::RangeInclusive<usize> = 9..=15;
const GROUPS: usize = 8;
/// Digits of a national number with its `0`.
const NATIONAL: std::ops::RangeInclusive<usize> = 9..=12;
/// Fewest bytes of a national number without brackets.
pub(super) const SHORTEST: usize = 10;

/// Country codes of one and two digits; with another beginning they have three.
#[rustfmt::skip]
const COUNTRIES: &[&[u8]] = &[
    b"1", b"7", b"20", b"27", b"30", b"31", b"32", b"33", b"34", b"36", b"39", b"40", b"41",
    b"43", b"44", b"45", b"46", b"47", b"48", b"49", b"51", b"52", b"53", b"54", b"55", b"56",
    b"57", b"58", b"60", b"61", b"62", b"63", b"64", b"65", b"66", b"81", b"82", b"84", b"86",
    b"90", b"91", b"92", b"93", b"94", b"95", b"98",
];
/// First two digits of country codes of three.
#[rustfmt::skip]
const REGIONS: &[&[u8]] = &[
    b"21", b"22", b"23", b"24", b"25", b"26", b"29", b"35", b"37", b"38", b"42", b"50", b"59",
    b"67", b"68", b"69", b"80", b"85", b"87", b"88", b"96", b"97", b"99",
];

/// Groups of digits, as they stand.
#[derive(Clone, Copy, Default)]
struct Groups {
    digits: [u8; 20],
    lens: [usize; GROUPS],
    /// What is behind each group.
    behind: [u8; GROUPS],
    ends: [usize; GROUPS],
    groups: usize,
}

impl Groups {
    /// The groups from `start` on, joined by one of `separators` each, as many
    /// as a number can have.
    fn read(value: &[u8], start: usize, separators: &[u8]) -> Self {
        let mut read = Self::default();
        let mut index = start;
        let mut count = 0;
        while read.groups < GROUPS {
            let end = short_run(value, index, read.digits.len() + 1, |b| b.is_ascii_digit());
            let group = value.get(index..end).unwrap_or_default();
            let Some(digits) = read.digits.get_mut(count..count + group.len()) else {
                break;
            };
            digits.copy_from_slice(group);
            count += group.len();
            let joined =
                separators.contains(&at(value, end)) && at(value, end + 1).is_ascii_digit();
            let facts = (
                read.lens.get_mut(read.groups),
                read.behind.get_mut(read.groups),
                read.ends.get_mut(read.groups),
            );
            if let (Some(len), Some(behind), Some(place)) = facts {
                (*len, *behind, *place) = (group.len(), at(value, end), end);
            }
            read.groups += 1;
            if !joined {
                break;
            }
            index = end + 1;
        }
        read
    }

    /// All groups, and fewer where a space is behind them that joins nothing:
    /// figures may follow a number.
    fn prefixes(self) -> impl Iterator<Item = Self> {
        (1..=self.groups).rev().filter_map(move |groups| {
            let shorter = self.first(groups);
            let spaced = shorter.separators().contains(&b' ');
            let parted = shorter.behind.get(groups - 1) == Some(&b' ');
            (groups == self.groups || (parted && !spaced)).then_some(shorter)
        })
    }

    /// The first `groups` of them.
    const fn first(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    fn count(&self) -> usize {
        self.lens().iter().sum()
    }

    fn digits(&self) -> &[u8] {
        self.digits.get(..self.count()).unwrap_or_default()
    }

    fn lens(&self) -> &[usize] {
        self.lens.get(..self.groups).unwrap_or_default()
    }

    fn separators(&self) -> &[u8] {
        self.behind
            .get(..self.groups.saturating_sub(1))
            .unwrap_or_default()
    }

    fn end(&self) -> usize {
        let last = self.groups.saturating_sub(1);
        self.ends.get(last).copied().unwrap_or(0)
    }

    /// Whether all separators are the same one of `bytes`.
    fn joined_by(&self, bytes: &[u8]) -> bool {
        let first = self.separators().first();
        first.is_none_or(|first| bytes.contains(first))
            && self.separators().iter().all(|byte| Some(byte) == first)
    }
}

/// Every number, by the beginning it has.
pub(super) fn phones(value: &[u8], into: &mut Vec<Range<usize>>) {
    let mut index = 0;
    while index < value.len() {
        let byte = at(value, index);
        let end = match byte {
            b'+' => international(value, index),
            b'(' => in_brackets(value, index),
            b'0'..=b'9' => national(value, index),
            _ => None,
        };
        match end {
            Some(end) if !in_uuid(value, &(index..end)) => {
                into.push(index..end);
                index = end;
            }
            // A number never begins within digits.
            _ if byte.is_ascii_digit() => index = digits_end(value, index),
            _ => index += 1,
        }
    }
}

fn digits_end(value: &[u8], start: usize) -> usize {
    run(value, start, |byte| byte.is_ascii_digit())
}

/// Whether what is behind a number belongs to it: then it is not one.
fn goes_on(value: &[u8], end: usize) -> bool {
    let next = at(value, end);
    next.is_ascii_alphanumeric()
        || next == b'_'
        || (matches!(next, b'-' | b'.' | b'/') && at(value, end + 1).is_ascii_digit())
}

/// The same of what is before it.
fn is_joined(value: &[u8], start: usize) -> bool {
    let (last, one_before) = (before(value, start, 1), before(value, start, 2));
    !begins(value, start)
        || last == b'_'
        || (matches!(last, b'-' | b'.' | b'/' | b'+') && one_before.is_ascii_alphanumeric())
        || (last == b':' && one_before.is_ascii_digit())
}

/// `+`, a country, and up to 15 digits in all.
fn international(value: &[u8], plus: usize) -> Option<usize> {
    if !begins(value, plus) || !may_be_international(value, plus) {
        return None;
    }
    let written = Written::read(value, plus + 1);
    let read = Groups::read(written.text(), 0, b" -.");
    let known = COUNTRIES
        .iter()
        .chain(REGIONS)
        .any(|code| read.digits().starts_with(code));
    if !known {
        return None;
    }
    (1..=read.groups).rev().find_map(|groups| {
        let read = read.first(groups);
        let parted = groups == GROUPS || matches!(read.behind.get(groups - 1), Some(b' ' | 0));
        // `+33 1 23 45 67 89`.
        let small = read.lens().iter().skip(2).any(|len| *len < 2);
        let fits = match read.digits() {
            [b'1', rest @ ..] => {
                let (area, local) = rest.split_at_checked(3)?;
                local.len() == 7 && is_area(area) && is_exchange(local)
            }
            digits => INTERNATIONAL.contains(&digits.len()),
        };
        let end = written.place(read.end().checked_sub(1)?)? + 1;
        (fits && !small && (parted || !goes_on(value, end))).then_some(end)
    })
}

/// What stands behind a `+`, without brackets: `49 (0)30 1234567`.
struct Written {
    text: [u8; 32],
    places: [usize; 32],
    len: usize,
}

impl Written {
    fn read(value: &[u8], start: usize) -> Self {
        let mut written = Self {
            text: [0; 32],
            places: [0; 32],
            len: 0,
        };
        let mut index = start;
        loop {
            let byte = at(value, index);
            let put = match byte {
                b'0'..=b'9' | b' ' | b'-' | b'.' => byte,
                b'/' => b'-',
                // The trunk prefix, which is not dialled from abroad.
                b'(' if (at(value, index + 1), at(value, index + 2)) == (b'0', b')') => {
                    index += 3;
                    // One of the spaces around it.
                    let spaced = written.text().last() == Some(&b' ');
                    index += usize::from(spaced && at(value, index) == b' ');
                    continue;
                }
                b'(' | b')' if written.len > 0 => {
                    index += 1;
                    continue;
                }
                _ => return written,
            };
            let slots = (
                written.text.get_mut(written.len),
                written.places.get_mut(written.len),
            );
            let (Some(text), Some(place)) = slots else {
                return written;
            };
            (*text, *place) = (put, index);
            written.len += 1;
            index += 1;
        }
    }

    fn text(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }

    /// Where in the value the byte at `index` stands.
    fn place(&self, index: usize) -> Option<usize> {
        self.places.get(..self.len)?.get(index).copied()
    }
}

/// `(212) 555-1234`, `(030) 1234567`.
fn in_brackets(value: &[u8], open: usize) -> Option<usize> {
    if !begins(value, open) {
        return None;
    }
    let close = short_run(value, open + 1, 6, |byte| byte.is_ascii_digit());
    let area = value.get(open + 1..close)?;
    if at(value, close) != b')' {
        return None;
    }
    let space = usize::from(at(value, close + 1) == b' ');
    let read = Groups::read(value, close + 1 + space, b" -.");
    read.prefixes().find_map(|read| {
        let fits = match area {
            [b'0', b'1'..=b'9', ..] => {
                NATIONAL.contains(&(area.len() + read.count()))
                    && read.lens().first().is_some_and(|len| *len >= 3)
                    && read.lens().iter().all(|len| *len >= 2)
                    && read.groups <= 4
            }
            _ => is_area(area) && read.lens() == [3, 4] && is_exchange(read.digits()),
        };
        (fits && !goes_on(value, read.end())).then_some(read.end())
    })
}

/// Numbering plan of North America: neither begins with 0 or 1, and areas do
/// not end in `11`.
fn is_area(area: &[u8]) -> bool {
    matches!(area, [b'2'..=b'9', b, c] if !(*b == b'1' && *c == b'1'))
}

fn is_exchange(digits: &[u8]) -> bool {
    matches!(digits, [b'2'..=b'9', ..])
}

/// `212-555-1234`, `1-212-555-1234`, `020 7946 0958`, `01 23 45 67 89`.
fn national(value: &[u8], start: usize) -> Option<usize> {
    if is_joined(value, start) {
        return None;
    }
    let listed = before(value, start, 1) == b' ' && before(value, start, 2).is_ascii_digit();
    Groups::read(value, start, b" -./")
        .prefixes()
        .find(|read| is_national(read) && !goes_on(value, read.end()))
        // Five of a longer list of figures.
        .filter(|read| !(listed && read.lens() == [2; 5]))
        .map(|read| read.end())
}

fn is_national(read: &Groups) -> bool {
    let digits = read.digits();
    match (read.lens(), digits) {
        ([1, 3, 3, 4], [b'1', rest @ ..]) | ([3, 3, 4], rest @ [b'2'..=b'9', ..]) => {
            let (area, local) = rest.split_at_checked(3).unwrap_or_default();
            is_area(area) && is_exchange(local) && read.joined_by(b"-.")
        }
        // France, and others that write in pairs.
        ([2, 2, 2, 2, 2], [b'0', b'1'..=b'9', ..]) => read.joined_by(b" .-"),
        ([area, local @ ..], [b'0', b'1'..=b'9', ..]) => {
            let [first, rest @ ..] = local else {
                return false;
            };
            let dots = read.separators().contains(&b'.');
            let slash_later = read.separators().iter().skip(1).any(|byte| *byte == b'/');
            NATIONAL.contains(&digits.len())
                && (2..=5).contains(area)
                && *first >= 3
                && rest.len() <= 3
                && rest.iter().all(|len| (2..=4).contains(len))
                // An area of two digits, and dots, need more to be told by.
                && (!rest.is_empty() || (*area > 2 && !dots))
                && !slash_later
        }
        _ => false,
    }
}

/// Whether the `+` at `plus` could begin a number.
pub(super) fn may_be_international(chunk: &[u8], plus: usize) -> bool {
    if at(chunk, plus) != b'+' {
        return false;
    }
    let behind = chunk.get(plus + 1..).unwrap_or_default();
    let written = behind.iter().take(INTERNATIONAL.start() + GROUPS);
    let digits = written
        .take_while(|byte| byte.is_ascii_digit() || b" -./()".contains(byte))
        .filter(|byte| byte.is_ascii_digit());
    matches!(behind.first(), Some(b'1'..=b'9')) && digits.count() >= *INTERNATIONAL.start()
}

/// Whether the `(` at `open` could.
pub(super) fn may_be_in_brackets(chunk: &[u8], open: usize) -> bool {
    if at(chunk, open) != b'(' {
        return false;
    }
    let close = short_run(chunk, open + 1, 6, |byte| byte.is_ascii_digit());
    let space = usize::from(at(chunk, close + 1) == b' ');
    let digits = short_run(chunk, close + 1 + space, 3, |byte| byte.is_ascii_digit());
    (3..=6).contains(&(close - open)) && at(chunk, close) == b')' && digits == close + 4 + space
}

/// Whether a national number could begin in the group of digits `group`, the
/// next one at `next`: the shapes of [`is_national`]. The first digits of `group` may
/// be another value's, which ends where the number's begins.
pub(super) fn may_begin(chunk: &[u8], group: &Range<usize>, next: &Range<usize>) -> bool {
    // Where a group of `len` digits begins that ends here.
    let begin = |len: usize| (group.len() >= len).then(|| group.end.saturating_sub(len));
    let group_end = |start| run(chunk, start, |byte| byte.is_ascii_digit());
    let third = || group_end(next.end + 1).saturating_sub(next.end + 1);
    match next.len() {
        2 => begin(2).is_some_and(|start| {
            let pair = |start: usize| {
                group_end(start) == start + 2 && at(chunk, start + 2) == at(chunk, group.end)
            };
            at(chunk, start) == b'0'
                && (0..4).all(|place| pair(start + 3 * place))
                && group_end(start + 12) >= start + 14
        }),
        3.. => {
            let america = next.len() == 3
                && ((begin(3).is_some_and(|start| at(chunk, start) > b'1') && third() >= 4)
                    || (begin(1).is_some_and(|start| at(chunk, start) == b'1') && third() == 3));
            let trunk = |len| {
                begin(len).is_some_and(|start| {
                    let written = chunk.iter().skip(start).take(2 * NATIONAL.start());
                    let digits = written
                        .take_while(|byte| byte.is_ascii_digit() || b" -./".contains(byte))
                        .filter(|byte| byte.is_ascii_digit());
                    at(chunk, start) == b'0' && digits.count() >= *NATIONAL.start()
                })
            };
            america || (2..=5).any(trunk)
        }
        _ => false,
    }
}

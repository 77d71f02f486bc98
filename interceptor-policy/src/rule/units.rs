//! Time spans and sizes, as they are written.

use std::time::Duration;

use super::reader::Reader;
use super::yaml::{Node, Value};

/// Longest time span; what is meant to last longer is meant to be for ever.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const SPANS: &[(&str, u64)] = &[
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("ms", 1),
    ("m", 60 * 1000),
    ("s", 1000),
];
const SIZES: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// `30s`, `1h30m`, `7d`, `250ms`; each unit once.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis = 0_u64;
    let mut used = Vec::new();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, behind) = leading_number(rest)?;
        let (unit, factor) = SPANS.iter().find(|(unit, _)| behind.starts_with(unit))?;
        if used.contains(unit) {
            return None;
        }
        used.push(*unit);
        millis = millis.checked_add(number.checked_mul(*factor)?)?;
        rest = behind.strip_prefix(unit)?;
    }
    Some(Duration::from_millis(millis))
}

/// `10MiB`, `10 MB`, `512`.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text.trim())?;
    let unit = unit.trim();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZES.iter().find(|(known, _)| *known == unit)?;
    number.checked_mul(*factor)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

/// A time span as a person writes it.
pub(crate) fn spoken(span: Duration) -> String {
    let mut left = span.as_millis();
    let mut said = String::new();
    let mut units = SPANS.to_vec();
    units.sort_by_key(|(_, factor)| std::cmp::Reverse(*factor));
    for (unit, factor) in units {
        let count = left / u128::from(factor);
        left %= u128::from(factor);
        if count > 0 {
            said.push_str(&format!("{count}{unit}"));
        }
    }
    if said.is_empty() {
        said.push_str("0s");
    }
    said
}

impl<'a> Reader<'a> {
    /// A time span of a millisecond to a year.
    pub(super) fn span(&mut self, node: &'a Node, what: &str) -> Option<Duration> {
        const HELP: &str = "write it as in 30s, 5m, 1h30m, 7d or 250ms";
        let read = match &node.value {
            Value::Text(text) => span(text),
            _ => None,
        };
        match read {
            Some(span) if !span.is_zero() && span <= LONGEST => Some(span),
            Some(_) => {
                self.error(
                    node.at,
                    format!("{what} must be between a millisecond and a year"),
                );
                None
            }
            None => {
                self.report.error(
                    node.at,
                    format!("{what} is no time span"),
                    Some(HELP.to_owned()),
                );
                None
            }
        }
    }

    /// A number of bytes.
    pub(super) fn size(&mut self, node: &'a Node, what: &str) -> Option<u64> {
        let read = match &node.value {
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::Text(text) => size(text),
            _ => None,
        };
        if read.is_none() {
            self.report.error(
                node.at,
                format!("{what} is no number of bytes"),
                Some("write it as in 4096, 64KiB or 10MiB".to_owned()),
            );
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_adds_its_parts_and_takes_each_unit_once() {
        let millis = |text| span(text).map(|span| span.as_millis());
        for (text, is) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("250ms", 250),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(millis(text), Some(is), "{text}");
            assert_eq!(spoken(span(text).unwrap()), text);
        }
        for bad in [
            "",
            "5",
            "m",
            "5x",
            "5m5m",
            "-5m",
            "1.5h",
            "5 m",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_size_has_binary_and_decimal_units() {
        for (text, is) in [
            ("4096", 4096),
            ("64KiB", 65_536),
            ("10 MB", 10_000_000),
            ("10MiB", 10_485_760),
            ("0B", 0),
        ] {
            assert_eq!(size(text), Some(is), "{text}");
        }
        for bad in ["", "MiB", "10mib", "10 M", "99999999999TiB", "-1"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}

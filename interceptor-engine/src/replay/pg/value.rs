//! A value's bytes as text, for the types that PostgreSQL brings along.
//!
//! Text format is text already. Binary format is decoded for the common types, in
//! the notation that the server itself would use with its default settings
//! (`DateStyle` ISO, `IntervalStyle` postgres, time zone UTC); what is not known is
//! left as bytes, never guessed.
//!
//! Format: PostgreSQL's sources, the `*_send` functions of each type; object ids
//! from `pg_type.dat`.

use std::net::{Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use super::Column;

/// A value that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As text.
    Text(String),
    /// No text is known for it.
    Bytes(Vec<u8>),
}

/// Object ids of types.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const CHAR: u32 = 18;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const OID: u32 = 26;
    pub(super) const JSON: u32 = 114;
    pub(super) const XML: u32 = 142;
    pub(super) const CIDR: u32 = 650;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const UNKNOWN: u32 = 705;
    pub(super) const MONEY: u32 = 790;
    pub(super) const INET: u32 = 869;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIME: u32 = 1083;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const INTERVAL: u32 = 1186;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const UUID: u32 = 2950;
    pub(super) const JSONB: u32 = 3802;
}

/// Whether the type's values are numbers, which stand at the right of a column.
#[must_use]
pub fn is_number(type_oid: u32) -> bool {
    matches!(
        type_oid,
        oid::INT2
            | oid::INT4
            | oid::INT8
            | oid::OID
            | oid::FLOAT4
            | oid::FLOAT8
            | oid::NUMERIC
            | oid::MONEY
    )
}

/// Decodes a value of `column`. Where nobody said the format, text is believed when
/// it can be text: no character of it is a control other than white space.
#[must_use]
pub fn show(column: &Column, bytes: &[u8]) -> Shown {
    let text = std::str::from_utf8(bytes).ok();
    let plain = |text: &&str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    let decoded = match column.binary {
        Some(true) => binary(column.type_oid, bytes),
        Some(false) => text.map(str::to_owned),
        None => text
            .filter(plain)
            .map(str::to_owned)
            .or_else(|| binary(column.type_oid, bytes)),
    };
    decoded.map_or_else(|| Shown::Bytes(bytes.to_vec()), Shown::Text)
}

fn binary(type_oid: u32, bytes: &[u8]) -> Option<String> {
    Some(match type_oid {
        oid::BOOL => match bytes {
            [0] => "f".to_owned(),
            [1] => "t".to_owned(),
            _ => return None,
        },
        oid::INT2 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::INT4 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::INT8 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::OID => u32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::FLOAT4 => float(f32::from_be_bytes(bytes.try_into().ok()?)),
        oid::FLOAT8 => float(f64::from_be_bytes(bytes.try_into().ok()?)),
        oid::CHAR
        | oid::NAME
        | oid::TEXT
        | oid::JSON
        | oid::XML
        | oid::UNKNOWN
        | oid::BPCHAR
        | oid::VARCHAR => std::str::from_utf8(bytes).ok()?.to_owned(),
        oid::JSONB => {
            let (version, text) = bytes.split_first()?;
            if *version != 1 {
                return None;
            }
            std::str::from_utf8(text).ok()?.to_owned()
        }
        oid::BYTEA => format!("\\x{}", hex::encode(bytes)),
        oid::UUID => Uuid::from_slice(bytes).ok()?.to_string(),
        oid::DATE => {
            let days = i32::from_be_bytes(bytes.try_into().ok()?);
            match days {
                i32::MAX => "infinity".to_owned(),
                i32::MIN => "-infinity".to_owned(),
                days => date(i64::from(days)),
            }
        }
        oid::TIME => time(i64::from_be_bytes(bytes.try_into().ok()?)),
        oid::TIMESTAMP => timestamp(i64::from_be_bytes(bytes.try_into().ok()?), ""),
        oid::TIMESTAMPTZ => timestamp(i64::from_be_bytes(bytes.try_into().ok()?), "+00"),
        oid::INTERVAL => interval(bytes)?,
        oid::NUMERIC => numeric(bytes)?,
        oid::INET | oid::CIDR => inet(bytes)?,
        _ => array(element_of(type_oid)?, bytes)?,
    })
}

/// The element's type of an array type.
fn element_of(array: u32) -> Option<u32> {
    Some(match array {
        1000 => oid::BOOL,
        1001 => oid::BYTEA,
        1002 => oid::CHAR,
        1003 => oid::NAME,
        1005 => oid::INT2,
        1007 => oid::INT4,
        1009 => oid::TEXT,
        1014 => oid::BPCHAR,
        1015 => oid::VARCHAR,
        1016 => oid::INT8,
        1021 => oid::FLOAT4,
        1022 => oid::FLOAT8,
        1028 => oid::OID,
        1041 => oid::INET,
        1115 => oid::TIMESTAMP,
        1182 => oid::DATE,
        1183 => oid::TIME,
        1185 => oid::TIMESTAMPTZ,
        1187 => oid::INTERVAL,
        1231 => oid::NUMERIC,
        199 => oid::JSON,
        2951 => oid::UUID,
        3807 => oid::JSONB,
        _ => return None,
    })
}

fn float<F: std::fmt::Display + std::fmt::LowerExp + Into<f64> + Copy>(value: F) -> String {
    let wide: f64 = value.into();
    if wide.is_nan() {
        "NaN".to_owned()
    } else if wide.is_infinite() {
        if wide > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if wide != 0.0 && !(1e-4..1e15).contains(&wide.abs()) {
        // Rust writes `1e20` and `-1e-5`; the server `1e+20` and `-1e-05`.
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        format!("{mantissa}e{sign}{digits:0>2}")
    } else {
        value.to_string()
    }
}

/// A day by its distance from 2000-01-01, in the Gregorian calendar.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(days: i64) -> String {
    // Days from 0000-03-01, in eras of 400 years.
    let days = days + 730_425;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A time of day, in microseconds.
fn time(micros: i64) -> String {
    let seconds = micros.div_euclid(SECOND);
    let fraction = fraction(micros.rem_euclid(SECOND));
    format!(
        "{:02}:{:02}:{:02}{fraction}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// `.25`, or nothing.
fn fraction(micros: i64) -> String {
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

/// A moment by its distance from 2000-01-01, in microseconds.
fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => return "infinity".to_owned(),
        i64::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let day = date(micros.div_euclid(DAY));
    let time = time(micros.rem_euclid(DAY));
    match day.strip_suffix(" BC") {
        Some(day) => format!("{day} {time}{zone} BC"),
        None => format!("{day} {time}{zone}"),
    }
}

fn interval(bytes: &[u8]) -> Option<String> {
    let (micros, rest) = bytes.split_first_chunk()?;
    let (days, months) = rest.split_first_chunk()?;
    let micros = i64::from_be_bytes(*micros);
    let days = i32::from_be_bytes(*days);
    let months = i32::from_be_bytes(months.try_into().ok()?);
    let mut parts = Vec::new();
    // A positive part after a negative one says so.
    let mut after_negative = false;
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let sign = if after_negative && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{sign}{count} {unit}{plural}"));
            after_negative = count < 0;
        }
    }
    if micros != 0 || parts.is_empty() {
        let sign = match (micros < 0, after_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let magnitude = i64::try_from(micros.unsigned_abs()).ok()?;
        parts.push(format!("{sign}{}", time(magnitude)));
    }
    Some(parts.join(" "))
}

/// `numeric`: digits in base 10000, the weight of the first, a sign, and how many
/// decimal digits to show.
fn numeric(bytes: &[u8]) -> Option<String> {
    const NEGATIVE: u16 = 0x4000;
    let words: Vec<u16> = bytes
        .chunks(2)
        .map(|word| Some(u16::from_be_bytes(word.try_into().ok()?)))
        .collect::<Option<_>>()?;
    let &[count, weight, sign, scale, ref digits @ ..] = words.as_slice() else {
        return None;
    };
    match sign {
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        0 | NEGATIVE => {}
        _ => return None,
    }
    if usize::from(count) != digits.len() || digits.iter().any(|digit| *digit > 9999) {
        return None;
    }
    let weight = i32::from(weight.cast_signed());
    let digit = |place: i32| {
        let index = usize::try_from(weight - place).ok();
        index
            .and_then(|index| digits.get(index))
            .copied()
            .unwrap_or(0)
    };
    let mut out = String::new();
    if sign == NEGATIVE {
        out.push('-');
    }
    if weight < 0 {
        out.push('0');
    }
    for place in (0..=weight).rev() {
        if place == weight {
            out.push_str(&digit(place).to_string());
        } else {
            out.push_str(&format!("{:04}", digit(place)));
        }
    }
    if scale > 0 {
        let places = i32::from(scale).div_euclid(4) + 1;
        let mut decimals = String::new();
        for place in 1..=places {
            decimals.push_str(&format!("{:04}", digit(-place)));
        }
        decimals.truncate(usize::from(scale));
        out.push('.');
        out.push_str(&decimals);
    }
    Some(out)
}

/// `inet` and `cidr`: family, mask bits, whether it is a `cidr`, length, address.
fn inet(bytes: &[u8]) -> Option<String> {
    let (&[_, bits, is_cidr, _], address) = bytes.split_first_chunk()?;
    let (address, all) = if let Ok(four) = <[u8; 4]>::try_from(address) {
        (Ipv4Addr::from(four).to_string(), 32)
    } else {
        let sixteen = <[u8; 16]>::try_from(address).ok()?;
        (Ipv6Addr::from(sixteen).to_string(), 128)
    };
    Some(if bits == all && is_cidr == 0 {
        address
    } else {
        format!("{address}/{bits}")
    })
}

/// An array of one dimension; others are left as bytes.
fn array(element: u32, bytes: &[u8]) -> Option<String> {
    let (dimensions, rest) = bytes.split_first_chunk()?;
    match i32::from_be_bytes(*dimensions) {
        0 => return Some("{}".to_owned()),
        1 => {}
        _ => return None,
    }
    // Whether there are NULLs, the element's type; then size and lower bound.
    let (_, rest) = rest.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk()?;
    let (_, mut rest) = rest.split_first_chunk::<4>()?;
    let mut out = String::from("{");
    for index in 0..i32::from_be_bytes(*count) {
        if index > 0 {
            out.push(',');
        }
        let (length, after) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            out.push_str("NULL");
            rest = after;
        } else {
            let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
            out.push_str(&quoted(&binary(element, value)?));
            rest = after;
        }
    }
    out.push('}');
    Some(out)
}

/// An element as it stands between the braces.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace());
    if plain {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(type_oid: u32, bytes: &[u8]) -> String {
        let column = Column {
            name: String::new(),
            type_oid,
            binary: Some(true),
        };
        match show(&column, bytes) {
            Shown::Text(text) => text,
            Shown::Bytes(bytes) => format!("bytes {}", hex::encode(bytes)),
        }
    }

    /// Bytes and texts are PostgreSQL 15's own: `COPY (SELECT …) TO STDOUT (FORMAT
    /// binary)` beside what `psql` shows.
    #[test]
    fn binary_values_read_as_postgres_shows_them() {
        for (type_oid, bytes, text) in [
            (16, "01", "t"),
            (21, "fffe", "-2"),
            (23, "0000002a", "42"),
            (20, "8000000000000000", "-9223372036854775808"),
            (700, "3fc00000", "1.5"),
            (701, "3fb999999999999a", "0.1"),
            (701, "7ff0000000000000", "Infinity"),
            (701, "4415af1d78b58c40", "1e+20"),
            (701, "bee4f8b588e368f1", "-1e-05"),
            (25, "5a6fc3ab", "Zoë"),
            (17, "00ff", r"\x00ff"),
            (
                2950,
                "0199a000000070008000000000000001",
                "0199a000-0000-7000-8000-000000000001",
            ),
            (3802, "017b7d", "{}"),
            (1082, "00000000", "2000-01-01"),
            (1082, "0000003b", "2000-02-29"),
            (1082, "ffffd533", "1970-01-01"),
            (1082, "000023ab", "2024-12-31"),
            (1082, "fff49d7b", "0044-03-15 BC"),
            (1082, "7fffffff", "infinity"),
            (1083, "00000001d9d3be60", "02:12:29.5"),
            (1114, "fffcdc5bdcefe000", "1972-01-01 00:00:00"),
            (1114, "ffffffffffffffff", "1999-12-31 23:59:59.999999"),
            (1114, "ff1af9e8fb46d000", "0044-03-15 12:00:00 BC"),
            (1184, "0002ea5dbb151340", "2026-01-02 03:04:05+00"),
            (
                1186,
                "000000036c966ee0fffffffd0000000e",
                "1 year 2 mons -3 days +04:05:06.7",
            ),
            (1186, "ffffffff296c5c000000000000000000", "-01:00:00"),
            (1186, "00000000000000000000000000000000", "00:00:00"),
            (1700, "0000000000000000", "0"),
            (1700, "0000000000000002", "0.00"),
            (1700, "000300010000000204d2162e2328", "12345678.90"),
            (1700, "0002ffff40000005000107d0", "-0.00012"),
            (1700, "00010001000000000001", "10000"),
            (1700, "00040002000000040001000000000001", "100000000.0001"),
            (1700, "00000000c0000000", "NaN"),
            (1700, "0001fffd0000000a0064", "0.0000000001"),
            (869, "022000047f000001", "127.0.0.1"),
            (869, "0340001000000000000000000000000000000001", "::1/64"),
            (650, "020801040a000000", "10.0.0.0/8"),
            (
                1007,
                "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
                "{1,NULL,3}",
            ),
            (
                1009,
                "00000001000000010000001900000005000000010000000361206200000000ffffffff000000044e554c4c00000004635c5c64",
                r#"{"a b","",NULL,"NULL","c\\\\d"}"#,
            ),
            (1007, "000000000000000000000017", "{}"),
        ] {
            let bytes = hex::decode(bytes).unwrap();
            assert_eq!(shown(type_oid, &bytes), text);
        }
    }

    #[test]
    fn what_is_not_known_stays_bytes() {
        assert_eq!(shown(600, &[1, 2]), "bytes 0102");
        assert_eq!(shown(oid::INT4, &[1, 2]), "bytes 0102");
        assert_eq!(shown(oid::TEXT, &[0xff]), "bytes ff");
    }

    #[test]
    fn without_a_format_text_is_believed_only_when_it_can_be_text() {
        let column = Column {
            type_oid: oid::INT4,
            ..Column::default()
        };
        assert_eq!(show(&column, b"1234"), Shown::Text("1234".into()));
        assert_eq!(show(&column, &[0, 0, 0, 7]), Shown::Text("7".into()));
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_value_never_panic(
            type_oid in prop::sample::select(vec![16, 20, 21, 23, 114, 650, 700, 701, 869, 1007, 1082, 1083, 1114, 1184, 1186, 1231, 1700, 2950, 3802]),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            shown(type_oid, &bytes);
        }
    }
}

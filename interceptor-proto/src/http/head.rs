//! The head of a message: its first line and its fields.
//!
//! Reads a whole head, up to and with the empty line behind it, and uses it up
//! or refuses it. Where RFC 9112 lets a recipient be lenient, this is not:
//! every leniency is a second reading, and who forwards must have one.
//!
//! Spec: RFC 9112, sections 2 to 5; RFC 9110, section 5.

use nom::bytes::complete::{tag, take_till, take_while1};
use nom::character::complete::{char, satisfy};
use nom::combinator::recognize;
use nom::{IResult, Parser as _};

use super::error::{HttpError, Part};

/// Bytes of a head, its empty line included.
pub const HEAD_LIMIT: usize = 64 << 10;
/// Fields of a head.
pub const FIELD_LIMIT: usize = 256;
/// Bytes of the trailers.
pub const TRAILERS_LIMIT: usize = 16 << 10;

/// A version that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// As it was sent; names have no case.
    pub name: &'a [u8],
    /// Without the white space around it.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether this is its name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// A token.
    pub method: &'a [u8],
    /// Visible ASCII characters.
    pub target: &'a [u8],
    /// The version.
    pub version: Version,
    /// In order.
    pub fields: Vec<Field<'a>>,
}

/// A response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The version.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    /// In order.
    pub fields: Vec<Field<'a>>,
}

/// RFC 9110, section 5.6.2.
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'z' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z')
}

/// What a field's value may have: visible characters, spaces, tabs, and bytes
/// above ASCII.
pub(super) const fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

fn token(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(is_token)(input)
}

/// `HTTP/` with two digits; which of them are spoken is asked behind.
fn version(input: &[u8]) -> Parsed<'_, (u8, u8)> {
    let digit = || satisfy(|c| c.is_ascii_digit());
    let (rest, (_, major, _, minor)) = (tag("HTTP/"), digit(), char('.'), digit()).parse(input)?;
    let number = |c: char| u8::try_from(c.to_digit(10).unwrap_or_default()).unwrap_or_default();
    Ok((rest, (number(major), number(minor))))
}

fn spoken((major, minor): (u8, u8)) -> Result<Version, HttpError> {
    match (major, minor) {
        (1, 0) => Ok(Version::Http10),
        (1, 1) => Ok(Version::Http11),
        _ => Err(HttpError::Version { major, minor }),
    }
}

/// Method, target and version.
type RequestLine<'a> = (&'a [u8], &'a [u8], (u8, u8));

fn request_line(input: &[u8]) -> Parsed<'_, RequestLine<'_>> {
    let target = take_while1(|byte: u8| byte.is_ascii_graphic());
    let (rest, (method, _, target, _, version)) =
        (token, char(' '), target, char(' '), version).parse(input)?;
    Ok((rest, (method, target, version)))
}

/// The space before an empty reason is left out by some servers.
fn status_line(input: &[u8]) -> Parsed<'_, ((u8, u8), u16)> {
    let digit = || satisfy(|c| c.is_ascii_digit());
    let digits = recognize((satisfy(|c| matches!(c, '1'..='9')), digit(), digit()));
    let (rest, (version, _, status)) = (version, char(' '), digits).parse(input)?;
    let status = status
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let reason: &[u8] = match rest {
        [] => &[],
        [b' ', reason @ ..] => reason,
        _ => return Err(nom::Err::Error(())),
    };
    if !reason.iter().copied().all(is_value) {
        return Err(nom::Err::Error(()));
    }
    Ok((&[], (version, status)))
}

/// One line without its end, and what is behind it. The cutter saw to it that
/// CR and LF come in pairs.
fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let found: Parsed<'_, _> = (take_till(|byte| byte == b'\r'), tag("\r\n")).parse(input);
    let (rest, (line, _)) = found.ok()?;
    Some((line, rest))
}

/// Fields up to the empty line, which must be the last.
pub(super) fn fields(
    mut input: &[u8],
    part: Part,
    limit: usize,
) -> Result<Vec<Field<'_>>, HttpError> {
    let mut fields = Vec::new();
    loop {
        let (one, rest) = line(input).ok_or(HttpError::Cut { part })?;
        input = rest;
        if one.is_empty() {
            return if rest.is_empty() {
                Ok(fields)
            } else {
                Err(HttpError::Cut { part })
            };
        }
        if fields.len() >= limit {
            return Err(HttpError::TooManyFields { part, limit });
        }
        fields.push(field(one, part, fields.len() + 1)?);
    }
}

fn field(line: &[u8], part: Part, index: usize) -> Result<Field<'_>, HttpError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HttpError::Folded { part });
    }
    let named: Parsed<'_, _> = (token, char(':')).parse(line);
    let (value, (name, _)) = named.map_err(|_| HttpError::FieldName { part, index })?;
    if !value.iter().copied().all(is_value) {
        return Err(HttpError::FieldValue { part, index });
    }
    let value = trim(value);
    Ok(Field { name, value })
}

/// Without optional white space (RFC 9110, section 5.6.3), which is not all that
/// ASCII calls so.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

impl<'a> RequestHead<'a> {
    /// Reads a whole head.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(input: &'a [u8]) -> Result<Self, HttpError> {
        let (first, rest) = line(input).ok_or(HttpError::RequestLine)?;
        let read = request_line(first).map_err(|_| HttpError::RequestLine)?;
        let (left, (method, target, version)) = read;
        if !left.is_empty() {
            return Err(HttpError::RequestLine);
        }
        Ok(Self {
            method,
            target,
            version: spoken(version)?,
            fields: fields(rest, Part::Head, FIELD_LIMIT)?,
        })
    }
}

impl<'a> ResponseHead<'a> {
    /// Reads a whole head.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(input: &'a [u8]) -> Result<Self, HttpError> {
        let (first, rest) = line(input).ok_or(HttpError::StatusLine)?;
        let (_, (version, status)) = status_line(first).map_err(|_| HttpError::StatusLine)?;
        Ok(Self {
            version: spoken(version)?,
            status,
            fields: fields(rest, Part::Head, FIELD_LIMIT)?,
        })
    }
}

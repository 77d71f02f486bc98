//! The line that begins a chunk.
//!
//! Spec: RFC 9112, section 7.1. Stricter than it: no white space around a size
//! or before an extension, which readers take differently.

use nom::IResult;
use nom::bytes::complete::take_while_m_n;

use super::error::HttpError;
use super::head::is_value;

/// Bytes of one chunk's line, its end included.
pub const CHUNK_LINE_LIMIT: usize = 512;
/// Bytes of all extensions of one body: a body of nothing else is no body.
pub const EXTENSIONS_LIMIT: usize = 16 << 10;

/// Most digits of a size: as many as a signed 64-bit number has, and room for
/// what programs pad with.
const DIGITS: usize = 16;

/// A chunk's size, and how many bytes of extensions stand behind it. `line` is
/// without its end.
pub(super) fn chunk_line(line: &[u8]) -> Result<(u64, usize), HttpError> {
    let digits: IResult<&[u8], &[u8], ()> =
        take_while_m_n(1, DIGITS, |byte: u8| byte.is_ascii_hexdigit())(line);
    let (rest, digits) = digits.map_err(|_| HttpError::ChunkSize)?;
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| i64::from_str_radix(text, 16).ok())
        .and_then(|size| u64::try_from(size).ok())
        .ok_or(HttpError::ChunkSize)?;
    match rest {
        [] => Ok((size, 0)),
        [b';', extension @ ..] if extension.iter().copied().all(is_value) => Ok((size, rest.len())),
        [b';', ..] => Err(HttpError::ChunkExtension),
        _ => Err(HttpError::ChunkSize),
    }
}

//! Messages written to the end of a buffer.
//!
//! A message that cannot be written leaves the buffer as it was: half a frame
//! would make the peer read the next one as the rest of it.

use super::{PgError, frame::LENGTH_MAX};

/// Writes one message: `body` appends its fields.
pub(crate) fn message(
    out: &mut Vec<u8>,
    name: &'static str,
    tag: u8,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), PgError>,
) -> Result<(), PgError> {
    let start = out.len();
    out.push(tag);
    let written = lengthed(out, name, body);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Writes a length that counts itself, and what it counts.
pub(crate) fn lengthed(
    out: &mut Vec<u8>,
    name: &'static str,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), PgError>,
) -> Result<(), PgError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut writer = Writer { name, out };
    let result = body(&mut writer).and_then(|()| patch(out, name, start));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Puts the number of bytes since `at` where four bytes were left for it.
pub(crate) fn patch(out: &mut [u8], message: &'static str, at: usize) -> Result<(), PgError> {
    let length = out.len().saturating_sub(at);
    let declared = u32::try_from(length)
        .ok()
        .filter(|declared| *declared <= LENGTH_MAX)
        .ok_or(PgError::TooLong { message, length })?;
    if let Some(field) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = declared.to_be_bytes();
    }
    Ok(())
}

/// Appends fields, and refuses those that would not read back.
pub(crate) struct Writer<'o> {
    name: &'static str,
    out: &'o mut Vec<u8>,
}

impl Writer<'_> {
    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A string and its zero byte.
    pub(crate) fn cstr(&mut self, string: &[u8]) -> Result<(), PgError> {
        if memchr::memchr(0, string).is_some() {
            return Err(PgError::ZeroInString { message: self.name });
        }
        self.bytes(string);
        self.u8(0);
        Ok(())
    }

    /// A 16-bit count.
    pub(crate) fn count(&mut self, count: usize) -> Result<(), PgError> {
        let short = u16::try_from(count).map_err(|_| self.too_long(count))?;
        self.bytes(&short.to_be_bytes());
        Ok(())
    }

    /// A length and that many bytes, or the length of NULL.
    pub(crate) fn value(&mut self, value: Option<&[u8]>) -> Result<(), PgError> {
        let Some(value) = value else {
            self.i32(-1);
            return Ok(());
        };
        self.i32(i32::try_from(value.len()).map_err(|_| self.too_long(value.len()))?);
        self.bytes(value);
        Ok(())
    }

    fn too_long(&self, length: usize) -> PgError {
        PgError::TooLong {
            message: self.name,
            length,
        }
    }
}

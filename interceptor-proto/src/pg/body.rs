//! A message's fields, read one after the other.
//!
//! A short read here is the peer's error and never a request for more bytes:
//! the frame was whole. Lists of values are checked once and then walked
//! without copying or allocating.
//!
//! Format: PostgreSQL manual, page `protocol-message-types`; leniency as in
//! PostgreSQL's `pqformat.c`.

use memchr::memchr;
use nom::{
    Parser,
    number::complete::{be_i16, be_i32, be_u8, be_u16, be_u32},
};

use super::{PgError, TEXT};

/// A message's body, and what of it is still unread.
pub(crate) struct Body<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    pub(crate) fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self {
            message,
            rest: body,
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, PgError> {
        self.read(1, be_u8)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, PgError> {
        self.read(2, be_u16)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, PgError> {
        self.read(2, be_i16)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, PgError> {
        self.read(4, be_u32)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, PgError> {
        self.read(4, be_i32)
    }

    /// A string without its zero byte.
    pub(crate) fn cstr(&mut self) -> Result<&'a [u8], PgError> {
        let unterminated = PgError::UnterminatedString {
            message: self.message,
        };
        let end = memchr(0, self.rest).ok_or_else(|| unterminated.clone())?;
        let (string, rest) = self.rest.split_at_checked(end).ok_or(unterminated)?;
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(string)
    }

    pub(crate) fn bytes(&mut self, wanted: usize) -> Result<&'a [u8], PgError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(wanted)
            .ok_or(PgError::Truncated {
                message: self.message,
                wanted,
                left: self.rest.len(),
            })?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A length and that many bytes, or `None` for the length of NULL.
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>, PgError> {
        match self.i32()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.bytes(length).map(Some),
                Err(_) => Err(PgError::NegativeLength {
                    message: self.message,
                    length,
                }),
            },
        }
    }

    /// A count and that many format codes.
    pub(crate) fn formats(&mut self) -> Result<Formats<'a>, PgError> {
        let count = usize::from(self.u16()?);
        Ok(Formats {
            bytes: self.bytes(count * 2)?,
        })
    }

    /// A count and that many values, each checked to lie inside.
    pub(crate) fn values(&mut self) -> Result<Values<'a>, PgError> {
        let count = self.u16()?;
        let start = self.rest;
        for _ in 0..count {
            self.value()?;
        }
        let used = start.len() - self.rest.len();
        Ok(Values {
            left: count,
            bytes: start.get(..used).unwrap_or_default(),
        })
    }

    /// All that is left.
    pub(crate) fn remainder(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Refuses what is left.
    pub(crate) fn finish(self) -> Result<(), PgError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(PgError::TrailingBytes {
                message: self.message,
                extra,
            }),
        }
    }

    fn read<O>(
        &mut self,
        wanted: usize,
        mut field: impl Parser<&'a [u8], Output = O, Error = ()>,
    ) -> Result<O, PgError> {
        let (rest, value) = field.parse(self.rest).map_err(|_| PgError::Truncated {
            message: self.message,
            wanted,
            left: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(value)
    }
}

/// Format codes, one a value or one for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats<'a> {
    /// Two bytes an entry; always an even number.
    bytes: &'a [u8],
}

impl<'a> Formats<'a> {
    /// How many codes were sent; not how many values they are for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / 2
    }

    /// Whether none was sent, which means text throughout.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The codes as they were sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i16> + Clone + use<'a> {
        self.bytes
            .as_chunks::<2>()
            .0
            .iter()
            .copied()
            .map(i16::from_be_bytes)
    }

    /// The code for value `index`: none means text, one is for all. `None` when
    /// several were sent and `index` is past them.
    #[must_use]
    pub fn of(&self, index: usize) -> Option<i16> {
        match self.len() {
            0 => Some(TEXT),
            1 => self.iter().next(),
            _ => self.iter().nth(index),
        }
    }
}

/// Values, each bytes or NULL, already checked to lie inside the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values<'a> {
    left: u16,
    bytes: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.bytes.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.bytes = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.bytes = rest;
        Some(Some(value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for Values<'_> {}

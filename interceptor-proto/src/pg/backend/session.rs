//! The session's state, completion of statements, COPY, and what the server
//! says unasked.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

use super::{Body, PgError, tag, write};
use crate::pg::{Formats, frontend::extended::Types};

/// Where the session stands between exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// In no transaction.
    Idle,
    /// In a transaction.
    InTransaction,
    /// In a transaction that has failed.
    Failed,
}

impl TransactionStatus {
    /// The letter of the protocol.
    #[must_use]
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// The next exchange may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyForQuery {
    /// Where the session stands.
    pub status: TransactionStatus,
}

impl ReadyForQuery {
    const NAME: &'static str = "ReadyForQuery";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly one of the three letters.
    pub fn parse(body: &[u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let status = match body.u8()? {
            b'I' => TransactionStatus::Idle,
            b'T' => TransactionStatus::InTransaction,
            b'E' => TransactionStatus::Failed,
            kind => {
                return Err(PgError::UnknownKind {
                    message: Self::NAME,
                    kind,
                });
            }
        };
        body.finish()?;
        Ok(Self { status })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[tag::READY_FOR_QUERY, 0, 0, 0, 5, self.status.as_byte()]);
    }
}

/// A setting's value, at the start and whenever it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// The setting.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    const NAME: &'static str = "ParameterStatus";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly two strings.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let status = Self {
            name: body.cstr()?,
            value: body.cstr()?,
        };
        body.finish()?;
        Ok(status)
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A string with a zero byte in it, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::PARAMETER_STATUS, |w| {
            w.cstr(self.name)?;
            w.cstr(self.value)
        })
    }
}

/// A statement is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandComplete<'a> {
    /// Which command, and how many rows: `SELECT 5`, `INSERT 0 1`.
    pub tag: &'a [u8],
}

impl<'a> CommandComplete<'a> {
    const NAME: &'static str = "CommandComplete";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly a string.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let tag = body.cstr()?;
        body.finish()?;
        Ok(Self { tag })
    }

    /// The number of rows, for commands that count them: the last word.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        let count = self.tag.rsplit(|byte| *byte == b' ').next()?;
        if count.len() == self.tag.len() {
            return None;
        }
        core::str::from_utf8(count).ok()?.parse().ok()
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A zero byte in the tag, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::COMMAND_COMPLETE, |w| w.cstr(self.tag))
    }
}

/// The types of a prepared statement's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterDescription<'a> {
    /// Their OIDs.
    pub types: Types<'a>,
}

impl<'a> ParameterDescription<'a> {
    const NAME: &'static str = "ParameterDescription";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly the announced number of OIDs.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let count = usize::from(body.u16()?);
        let types = Types {
            bytes: body.bytes(count * 4)?,
        };
        body.finish()?;
        Ok(Self { types })
    }
}

/// A COPY begins: `CopyInResponse`, `CopyOutResponse` or `CopyBothResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyResponse<'a> {
    /// Format of the whole: 0 is lines of text, 1 is binary.
    pub format: u8,
    /// Formats of the columns.
    pub column_formats: Formats<'a>,
}

impl<'a> CopyResponse<'a> {
    const NAME: &'static str = "CopyResponse";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly a format and the announced number of formats.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let response = Self {
            format: body.u8()?,
            column_formats: body.formats()?,
        };
        body.finish()?;
        Ok(response)
    }
}

/// Another session's `NOTIFY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The notifying backend's process.
    pub process_id: u32,
    /// The channel.
    pub channel: &'a [u8],
    /// What was said.
    pub payload: &'a [u8],
}

impl<'a> Notification<'a> {
    const NAME: &'static str = "NotificationResponse";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly a number and two strings.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let notification = Self {
            process_id: body.u32()?,
            channel: body.cstr()?,
            payload: body.cstr()?,
        };
        body.finish()?;
        Ok(notification)
    }
}

/// A function's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCallResponse<'a> {
    /// The value; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

impl<'a> FunctionCallResponse<'a> {
    const NAME: &'static str = "FunctionCallResponse";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly a value.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let value = body.value()?;
        body.finish()?;
        Ok(Self { value })
    }
}

/// The server speaks less than it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The newest version that the server speaks. PostgreSQL sends the whole
    /// version (major in the upper half), though the manual once said minor.
    pub version: u32,
    count: u32,
    /// Names of the options that the server does not know, already checked.
    bytes: &'a [u8],
}

impl<'a> NegotiateProtocolVersion<'a> {
    const NAME: &'static str = "NegotiateProtocolVersion";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A negative number of names, or not as many as announced.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let version = body.u32()?;
        let count = body.i32()?;
        let count = u32::try_from(count).map_err(|_| PgError::NegativeCount {
            message: Self::NAME,
            count,
        })?;
        let bytes = body.remainder();
        let mut names = Body::new(Self::NAME, bytes);
        // Each name takes a byte at least, so the body bounds the loop, not
        // the count.
        for _ in 0..count {
            names.cstr()?;
        }
        names.finish()?;
        Ok(Self {
            version,
            count,
            bytes,
        })
    }

    /// The newest minor version, whichever way the server says it.
    #[must_use]
    pub fn minor(&self) -> u16 {
        let [_, _, a, b] = self.version.to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    /// The options that the server does not know.
    pub fn unknown_options(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut names = Body::new(Self::NAME, self.bytes);
        (0..self.count).map_while(move |_| names.cstr().ok())
    }

    /// Appends a message with these options.
    ///
    /// # Errors
    ///
    /// A name with a zero byte in it, or too many.
    pub fn encode(
        version: u32,
        unknown_options: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::NEGOTIATE_PROTOCOL_VERSION, |w| {
            let count = unknown_options.len();
            w.u32(version);
            w.i32(i32::try_from(count).map_err(|_| PgError::TooLong {
                message: Self::NAME,
                length: count,
            })?);
            unknown_options.iter().try_for_each(|name| w.cstr(name))
        })
    }
}

//! The extended query: `Parse`, `Bind`, `Describe`, `Execute`, `Close`.
//!
//! Counts are read without a sign, as PostgreSQL reads them, so up to 65 535
//! parameters; they are walked in place. Whether the number of formats fits the
//! number of values, and of values the statement's parameters, PostgreSQL
//! answers itself, within the protocol.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

use super::{Body, PgError, tag, write};
use crate::pg::{Formats, Values};

/// Prepares a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one, which the next replaces.
    pub statement: &'a [u8],
    /// The text, in the client's encoding.
    pub sql: &'a [u8],
    /// The types that the client fixes.
    pub parameter_types: Types<'a>,
}

/// OIDs, one a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Types<'a> {
    /// Four bytes an entry; always a multiple of four.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Types<'a> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / 4
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The OIDs; 0 leaves the choice to the server.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + Clone + use<'a> {
        self.bytes
            .as_chunks::<4>()
            .0
            .iter()
            .copied()
            .map(u32::from_be_bytes)
    }
}

impl<'a> Parse<'a> {
    const NAME: &'static str = "Parse";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly a name, a text and types.
    #[expect(
        clippy::self_named_constructors,
        reason = "every message is read by `parse`, and this one is called Parse"
    )]
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let statement = body.cstr()?;
        let sql = body.cstr()?;
        let count = usize::from(body.u16()?);
        let parameter_types = Types {
            bytes: body.bytes(count * 4)?,
        };
        body.finish()?;
        Ok(Self {
            statement,
            sql,
            parameter_types,
        })
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A string with a zero byte in it, or too many bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::PARSE, |w| {
            w.cstr(self.statement)?;
            w.cstr(self.sql)?;
            w.count(self.parameter_types.len())?;
            w.bytes(self.parameter_types.bytes);
            Ok(())
        })
    }
}

/// Makes a portal of a prepared statement and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// Formats of the parameters.
    pub parameter_formats: Formats<'a>,
    /// The parameters.
    pub parameters: Values<'a>,
    /// Formats wanted of the result's columns.
    pub result_formats: Formats<'a>,
}

impl<'a> Bind<'a> {
    const NAME: &'static str = "Bind";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly names, formats, values and formats.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let bind = Self {
            portal: body.cstr()?,
            statement: body.cstr()?,
            parameter_formats: body.formats()?,
            parameters: body.values()?,
            result_formats: body.formats()?,
        };
        body.finish()?;
        Ok(bind)
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A name with a zero byte in it, or too many bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::BIND, |w| {
            w.cstr(self.portal)?;
            w.cstr(self.statement)?;
            w.count(self.parameter_formats.len())?;
            self.parameter_formats.iter().for_each(|f| w.i16(f));
            w.count(self.parameters.len())?;
            self.parameters.clone().try_for_each(|v| w.value(v))?;
            w.count(self.result_formats.len())?;
            self.result_formats.iter().for_each(|f| w.i16(f));
            Ok(())
        })
    }
}

/// What a `Describe` or `Close` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A prepared statement's name.
    Statement(&'a [u8]),
    /// A portal's name.
    Portal(&'a [u8]),
}

impl<'a> Subject<'a> {
    fn parse(message: &'static str, body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(message, body);
        let kind = body.u8()?;
        let name = body.cstr()?;
        body.finish()?;
        match kind {
            b'S' => Ok(Self::Statement(name)),
            b'P' => Ok(Self::Portal(name)),
            kind => Err(PgError::UnknownKind { message, kind }),
        }
    }

    fn encode(self, out: &mut Vec<u8>, message: &'static str, tag: u8) -> Result<(), PgError> {
        let (kind, name) = match self {
            Self::Statement(name) => (b'S', name),
            Self::Portal(name) => (b'P', name),
        };
        write::message(out, message, tag, |w| {
            w.u8(kind);
            w.cstr(name)
        })
    }
}

/// Asks for the shape of a statement or portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe<'a> {
    /// Of which.
    pub subject: Subject<'a>,
}

impl<'a> Describe<'a> {
    const NAME: &'static str = "Describe";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A kind that is neither, and a name that does not end the frame.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let subject = Subject::parse(Self::NAME, body)?;
        Ok(Self { subject })
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A name with a zero byte in it, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        self.subject.encode(out, Self::NAME, tag::DESCRIBE)
    }
}

/// Closes a statement or portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// Which.
    pub subject: Subject<'a>,
}

impl<'a> Close<'a> {
    const NAME: &'static str = "Close";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A kind that is neither, and a name that does not end the frame.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let subject = Subject::parse(Self::NAME, body)?;
        Ok(Self { subject })
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A name with a zero byte in it, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        self.subject.encode(out, Self::NAME, tag::CLOSE)
    }
}

/// Runs a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// How many rows before it is suspended; PostgreSQL takes 0 and below as
    /// no limit.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    const NAME: &'static str = "Execute";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly a name and a number.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let execute = Self {
            portal: body.cstr()?,
            max_rows: body.i32()?,
        };
        body.finish()?;
        Ok(execute)
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A name with a zero byte in it, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::EXECUTE, |w| {
            w.cstr(self.portal)?;
            w.i32(self.max_rows);
            Ok(())
        })
    }
}

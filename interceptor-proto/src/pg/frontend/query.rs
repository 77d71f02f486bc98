//! `Query` and `FunctionCall`: one message, the whole of an exchange.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

use super::{Body, PgError, tag, write};
use crate::pg::{Formats, Values};

/// A simple query: any number of statements in one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The text, in the client's encoding.
    pub sql: &'a [u8],
}

impl<'a> Query<'a> {
    const NAME: &'static str = "Query";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A text that does not end, or ends before the frame does.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let sql = body.cstr()?;
        body.finish()?;
        Ok(Self { sql })
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A text with a zero byte in it, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::QUERY, |w| w.cstr(self.sql))
    }
}

/// A call of a function by its OID: old, undocumented for new uses, and a way
/// round every rule that only looks at statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// OID of the function.
    pub function: u32,
    /// Formats of the arguments.
    pub argument_formats: Formats<'a>,
    /// The arguments.
    pub arguments: Values<'a>,
    /// Format of the result.
    pub result_format: i16,
}

impl<'a> FunctionCall<'a> {
    const NAME: &'static str = "FunctionCall";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly such a call.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let call = Self {
            function: body.u32()?,
            argument_formats: body.formats()?,
            arguments: body.values()?,
            result_format: body.i16()?,
        };
        body.finish()?;
        Ok(call)
    }
}

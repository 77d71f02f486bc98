//! `CopyFail`. `CopyData` is its bytes, and `CopyDone` is nothing.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

use super::{Body, PgError, tag, write};

/// The client gives a COPY up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFail<'a> {
    /// Why, in the client's words; the server's error quotes it.
    pub reason: &'a [u8],
}

impl<'a> CopyFail<'a> {
    const NAME: &'static str = "CopyFail";

    /// Reads the body of a frame. PostgreSQL reads the string and does not look
    /// whether something follows; neither does this.
    ///
    /// # Errors
    ///
    /// A reason that does not end.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let reason = Body::new(Self::NAME, body).cstr()?;
        Ok(Self { reason })
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A reason with a zero byte in it, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::COPY_FAIL, |w| w.cstr(self.reason))
    }
}

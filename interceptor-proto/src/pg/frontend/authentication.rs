//! The meanings of tag `p`. Which one it is, only the authentication request
//! before it can tell, so each has its own reader.
//!
//! `Debug` is withheld from what holds a secret.
//!
//! Format: PostgreSQL manual, pages `protocol-message-formats` and
//! `sasl-authentication`.

use core::fmt;

use super::{Body, PgError, tag, write};

/// A password, in clear or hashed for md5.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password<'a> {
    /// The password.
    pub password: &'a [u8],
}

impl<'a> Password<'a> {
    const NAME: &'static str = "PasswordMessage";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A password that does not end, or ends before the frame does.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let password = body.cstr()?;
        body.finish()?;
        Ok(Self { password })
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A password with a zero byte in it, or too long for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::PASSWORD, |w| w.cstr(self.password))
    }
}

impl fmt::Debug for Password<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").finish_non_exhaustive()
    }
}

/// The choice of a SASL mechanism, with the client's first words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism's name.
    pub mechanism: &'a [u8],
    /// The mechanism's first message; `None` when there is none.
    pub data: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    const NAME: &'static str = "SASLInitialResponse";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly a name and a value.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let response = Self {
            mechanism: body.cstr()?,
            data: body.value()?,
        };
        body.finish()?;
        Ok(response)
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A name with a zero byte in it, or too many bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::PASSWORD, |w| {
            w.cstr(self.mechanism)?;
            w.value(self.data)
        })
    }
}

impl fmt::Debug for SaslInitialResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslInitialResponse")
            .field("mechanism", &String::from_utf8_lossy(self.mechanism))
            .finish_non_exhaustive()
    }
}

/// Any later message of a SASL or GSSAPI exchange: the mechanism's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslResponse<'a> {
    /// The mechanism's message.
    pub data: &'a [u8],
}

impl<'a> SaslResponse<'a> {
    const NAME: &'static str = "SASLResponse";

    /// Reads the body of a frame; every body is one.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Self {
        Self { data: body }
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// Too many bytes for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        write::message(out, Self::NAME, tag::PASSWORD, |w| {
            w.bytes(self.data);
            Ok(())
        })
    }
}

impl fmt::Debug for SaslResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslResponse").finish_non_exhaustive()
    }
}

//! Authentication requests, and the key for cancelling.
//!
//! A request of an unknown code is kept as it is: which ones to let through is
//! for the engine to say.
//!
//! Format: PostgreSQL manual, pages `protocol-message-formats` and
//! `sasl-authentication`.

use core::fmt;

use super::{Body, PgError, tag, write};
use crate::pg::startup::checked_key;

/// What the server wants before it lets the client in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing more.
    Ok,
    /// Kerberos V5, long gone.
    KerberosV5,
    /// The password in clear.
    CleartextPassword,
    /// The password hashed with this salt.
    Md5Password {
        /// The salt.
        salt: [u8; 4],
    },
    /// GSSAPI.
    Gss,
    /// More GSSAPI or SSPI data.
    GssContinue(&'a [u8]),
    /// SSPI.
    Sspi,
    /// One of these SASL mechanisms.
    Sasl(Mechanisms<'a>),
    /// More SASL data.
    SaslContinue(&'a [u8]),
    /// The last SASL data.
    SaslFinal(&'a [u8]),
    /// A code that is not known here.
    Unknown {
        /// The code.
        code: u32,
        /// What came with it.
        data: &'a [u8],
    },
}

impl<'a> Authentication<'a> {
    const NAME: &'static str = "Authentication";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A body that is not exactly what its code promises.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let request = match body.u32()? {
            0 => Self::Ok,
            2 => Self::KerberosV5,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password {
                salt: body.u32()?.to_be_bytes(),
            },
            7 => Self::Gss,
            8 => Self::GssContinue(body.remainder()),
            9 => Self::Sspi,
            10 => Self::Sasl(Mechanisms::read(&mut body)?),
            11 => Self::SaslContinue(body.remainder()),
            12 => Self::SaslFinal(body.remainder()),
            code => Self::Unknown {
                code,
                data: body.remainder(),
            },
        };
        body.finish()?;
        Ok(request)
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// Too many bytes for a message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        let salt;
        let (code, data): (u32, &[u8]) = match self {
            Self::Ok => (0, &[]),
            Self::KerberosV5 => (2, &[]),
            Self::CleartextPassword => (3, &[]),
            Self::Md5Password { salt: given } => {
                salt = *given;
                (5, &salt)
            }
            Self::Gss => (7, &[]),
            Self::GssContinue(data) => (8, data),
            Self::Sspi => (9, &[]),
            Self::Sasl(mechanisms) => (10, mechanisms.bytes),
            Self::SaslContinue(data) => (11, data),
            Self::SaslFinal(data) => (12, data),
            Self::Unknown { code, data } => (*code, data),
        };
        write::message(out, Self::NAME, tag::AUTHENTICATION, |w| {
            w.u32(code);
            w.bytes(data);
            Ok(())
        })
    }
}

/// Names of SASL mechanisms, the server's favourite first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms<'a> {
    /// Strings that end with a zero byte each, and an empty one.
    bytes: &'a [u8],
}

impl<'a> Mechanisms<'a> {
    /// `SCRAM-SHA-256`, and nothing else.
    pub const SCRAM_SHA_256: Mechanisms<'static> = Mechanisms {
        bytes: b"SCRAM-SHA-256\0\0",
    };

    fn read(body: &mut Body<'a>) -> Result<Self, PgError> {
        let bytes = body.remainder();
        let mut names = Body::new(Authentication::NAME, bytes);
        while !names.cstr()?.is_empty() {}
        names.finish()?;
        Ok(Self { bytes })
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes
            .split(|byte| *byte == 0)
            .take_while(|name| !name.is_empty())
    }

    /// Whether `name` is offered.
    #[must_use]
    pub fn offers(&self, name: &[u8]) -> bool {
        self.iter().any(|offered| offered == name)
    }
}

/// What a `CancelRequest` for this session must carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// The backend's process.
    pub process_id: u32,
    /// The secret: 4 bytes in 3.0, up to 256 in 3.2.
    pub key: &'a [u8],
}

impl<'a> BackendKeyData<'a> {
    const NAME: &'static str = "BackendKeyData";

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// A key outside of 4 to 256 bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, PgError> {
        let mut body = Body::new(Self::NAME, body);
        let process_id = body.u32()?;
        let key = checked_key(Self::NAME, body.remainder())?;
        Ok(Self { process_id, key })
    }

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// A key outside of 4 to 256 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        checked_key(Self::NAME, self.key)?;
        write::message(out, Self::NAME, tag::BACKEND_KEY_DATA, |w| {
            w.u32(self.process_id);
            w.bytes(self.key);
            Ok(())
        })
    }
}

impl fmt::Debug for BackendKeyData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendKeyData")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

//! What a client sends before the first tag: the startup packet, or one of the
//! requests for encryption or cancelling that may stand in its place.
//!
//! Read as PostgreSQL's `ProcessStartupPacket` reads it: a packet of up to
//! 10 000 bytes after its length, parameters until an empty name that must be
//! the last byte, and of a name that is given twice the last value counts. Three
//! deviations, all stricter: the encryption requests must be exactly as long as
//! they are defined, a cancel key must have the documented 4 to 256 bytes, and
//! the last byte must be the terminator (PostgreSQL's loop also takes any other
//! byte in its place, as a name whose value is missing). Whether `user` is
//! there, and which minor version or `_pq_.` option is understood, is the
//! caller's business.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

use nom::{
    Err, IResult, Parser, bytes::streaming::take, combinator::consumed, number::streaming::be_u32,
};

use super::{PgError, body::Body, write};

/// The longest packet that PostgreSQL accepts, its length field included.
pub const LENGTH_MAX: u32 = 10_000 + LENGTH_FIELD;

/// The shortest: length and version.
const LENGTH_MIN: u32 = 8;
const LENGTH_FIELD: u32 = 4;

/// The code of `SSLRequest`.
pub const SSL_CODE: u32 = (1234 << 16) | 5679;
/// The code of `GSSENCRequest`.
pub const GSSENC_CODE: u32 = (1234 << 16) | 5680;
/// The code of `CancelRequest`.
pub const CANCEL_CODE: u32 = (1234 << 16) | 5678;
/// The one major version that is spoken.
pub const MAJOR: u16 = 3;

/// The answer that the server will now speak TLS.
pub const SSL_ACCEPTED: u8 = b'S';
/// The answer that the server will now speak GSSAPI encryption.
pub const GSSENC_ACCEPTED: u8 = b'G';
/// The answer that the server will not encrypt.
pub const ENCRYPTION_REFUSED: u8 = b'N';

/// The prefix of protocol options among the parameters.
pub const PROTOCOL_OPTION: &[u8] = b"_pq_.";

/// One packet of the startup phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// Asks for TLS; answered with one byte.
    Ssl,
    /// Asks for GSSAPI encryption; answered with one byte.
    GssEnc,
    /// Asks to cancel what another connection does; never answered.
    Cancel(CancelRequest<'a>),
    /// Begins the session.
    Startup(Startup<'a>),
}

impl StartupPacket<'_> {
    const NAME: &'static str = "StartupMessage";
}

/// Cuts one packet off; `Incomplete` until its last byte is there.
///
/// # Errors
///
/// `Failure` for a length outside of 8 to the smaller of `limit` and PostgreSQL's own limit,
/// for a major version other than 3, and for a layout that PostgreSQL refuses.
pub fn packet(input: &[u8], limit: u32) -> IResult<&[u8], StartupPacket<'_>, PgError> {
    let limit = limit.min(LENGTH_MAX);
    let (rest, (raw, body)) = consumed(|i| {
        let (i, declared) = be_u32(i)?;
        if !(LENGTH_MIN..=limit).contains(&declared) {
            return Err(Err::Failure(PgError::StartupLength { declared, limit }));
        }
        take(declared - LENGTH_FIELD)(i)
    })
    .parse(input)?;
    let packet = read(body, raw).map_err(Err::Failure)?;
    Ok((rest, packet))
}

fn read<'a>(packet: &'a [u8], raw: &'a [u8]) -> Result<StartupPacket<'a>, PgError> {
    let mut body = Body::new(StartupPacket::NAME, packet);
    match body.u32()? {
        SSL_CODE => {
            body.finish()?;
            Ok(StartupPacket::Ssl)
        }
        GSSENC_CODE => {
            body.finish()?;
            Ok(StartupPacket::GssEnc)
        }
        CANCEL_CODE => {
            let process_id = body.u32()?;
            let key = checked_key(CancelRequest::NAME, body.remainder())?;
            Ok(StartupPacket::Cancel(CancelRequest { process_id, key }))
        }
        version => {
            let [a, b, c, d] = version.to_be_bytes();
            let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            if major != MAJOR {
                return Err(PgError::UnsupportedProtocol { major, minor });
            }
            Ok(StartupPacket::Startup(Startup {
                major,
                minor,
                parameters: parameters(body)?,
                raw,
            }))
        }
    }
}

/// Names and values until an empty name, which must be the packet's last byte.
fn parameters(mut body: Body<'_>) -> Result<Parameters<'_>, PgError> {
    let mut parameters = Vec::new();
    loop {
        match body.cstr() {
            Ok(b"") => break,
            Ok(name) => {
                let value = body.cstr().map_err(|_| PgError::StartupLayout)?;
                parameters.push((name, value));
            }
            Err(_) => return Err(PgError::StartupLayout),
        }
    }
    body.finish().map_err(|_| PgError::StartupLayout)?;
    Ok(parameters)
}

/// Refuses a cancel key of a length that the protocol does not have.
pub(crate) fn checked_key<'a>(message: &'static str, key: &'a [u8]) -> Result<&'a [u8], PgError> {
    match key.len() {
        4..=256 => Ok(key),
        length => Err(PgError::KeyLength { message, length }),
    }
}

/// Asks the server to cancel what another connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelRequest<'a> {
    /// The backend's process, as its `BackendKeyData` said.
    pub process_id: u32,
    /// The secret, as its `BackendKeyData` said: 4 bytes in 3.0, up to 256 in
    /// 3.2.
    pub key: &'a [u8],
}

impl CancelRequest<'_> {
    const NAME: &'static str = "CancelRequest";

    /// Appends the packet.
    ///
    /// # Errors
    ///
    /// A key outside of 4 to 256 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        checked_key(Self::NAME, self.key)?;
        write::lengthed(out, Self::NAME, |w| {
            w.u32(CANCEL_CODE);
            w.u32(self.process_id);
            w.bytes(self.key);
            Ok(())
        })
    }
}

/// Names and values.
pub type Parameters<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Begins a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup<'a> {
    /// Always 3.
    pub major: u16,
    /// 0, 2, or one that the server will negotiate down.
    pub minor: u16,
    /// Names and values in the order in which they came, duplicates kept.
    pub parameters: Parameters<'a>,
    /// The very bytes.
    pub raw: &'a [u8],
}

impl<'a> Startup<'a> {
    /// The value that counts: PostgreSQL overwrites an earlier one.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.parameters
            .iter()
            .rev()
            .find(|(given, _)| *given == name)
            .map(|(_, value)| *value)
    }

    /// The role that the client wants to be.
    #[must_use]
    pub fn user(&self) -> Option<&'a [u8]> {
        self.get(b"user").filter(|user| !user.is_empty())
    }

    /// The database; the user's name when none, or an empty one, was given.
    #[must_use]
    pub fn database(&self) -> Option<&'a [u8]> {
        self.get(b"database")
            .filter(|database| !database.is_empty())
            .or_else(|| self.user())
    }

    /// Whether a replication connection is asked for, and so the replication
    /// grammar is spoken. Any value that PostgreSQL does not read as false
    /// counts, so that an odd one is not mistaken for an ordinary session.
    #[must_use]
    pub fn is_replication(&self) -> bool {
        self.get(b"replication").is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            let is_false = match value.as_slice() {
                b"" | b"o" => false,
                b"0" | b"of" | b"off" => true,
                prefix => b"false".starts_with(prefix) || b"no".starts_with(prefix),
            };
            !is_false
        })
    }

    /// Names of the protocol options, `_pq_.` included.
    pub fn protocol_options(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.parameters
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| name.starts_with(PROTOCOL_OPTION))
    }

    /// A packet like this one, to be changed and written.
    #[must_use]
    pub fn to_builder(&self) -> StartupBuilder {
        StartupBuilder {
            minor: self.minor,
            parameters: self
                .parameters
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
        }
    }
}

/// Appends `SSLRequest`.
pub fn encode_ssl_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&LENGTH_MIN.to_be_bytes());
    out.extend_from_slice(&SSL_CODE.to_be_bytes());
}

/// A startup packet to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartupBuilder {
    minor: u16,
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl StartupBuilder {
    const NAME: &'static str = StartupPacket::NAME;

    /// Version 3.`minor`, no parameters.
    #[must_use]
    pub fn new(minor: u16) -> Self {
        Self {
            minor,
            parameters: Vec::new(),
        }
    }

    /// Sets a parameter in place of every earlier one of that name.
    #[must_use]
    pub fn set(mut self, name: &[u8], value: &[u8]) -> Self {
        let first = self.parameters.iter().position(|(given, _)| given == name);
        self = self.remove(name);
        let at = first.unwrap_or(self.parameters.len());
        self.parameters.insert(
            at.min(self.parameters.len()),
            (name.to_vec(), value.to_vec()),
        );
        self
    }

    /// Takes out every parameter of that name.
    #[must_use]
    pub fn remove(mut self, name: &[u8]) -> Self {
        self.parameters.retain(|(given, _)| given != name);
        self
    }

    /// Appends the packet.
    ///
    /// # Errors
    ///
    /// An empty name or a zero byte in a name or value, which would read back
    /// as something else, and more bytes than PostgreSQL takes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), PgError> {
        let start = out.len();
        let result = write::lengthed(out, Self::NAME, |w| {
            w.u32((u32::from(MAJOR) << 16) | u32::from(self.minor));
            for (name, value) in &self.parameters {
                if name.is_empty() {
                    return Err(PgError::StartupLayout);
                }
                w.cstr(name)?;
                w.cstr(value)?;
            }
            w.u8(0);
            Ok(())
        });
        let length = out.len() - start;
        if result.is_ok() && length > LENGTH_MAX as usize {
            out.truncate(start);
            return Err(PgError::TooLong {
                message: Self::NAME,
                length,
            });
        }
        result
    }
}

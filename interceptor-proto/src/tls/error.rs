//! What can be wrong with bytes that claim to be a ClientHello.

use nom::error::{ErrorKind, ParseError};

/// Why a run of bytes is not a ClientHello.
///
/// Variants hold sizes and names, never payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A record that is not a handshake's.
    #[error("record of type {content_type} where a handshake was expected")]
    NotHandshake {
        /// The record's type.
        content_type: u8,
    },
    /// A record of no TLS version.
    #[error("record of major version {major} is not TLS")]
    NotTls {
        /// The record's major version; every TLS has 3.
        major: u8,
    },
    /// A record that is empty or longer than 2^14 bytes.
    #[error("record length {length} is outside of 1 to 16384")]
    RecordLength {
        /// The record's length.
        length: u16,
    },
    /// A handshake that starts with another message.
    #[error("handshake message of type {kind} where a ClientHello was expected")]
    NotClientHello {
        /// The message's type.
        kind: u8,
    },
    /// More than is kept for one message.
    #[error("a ClientHello of more than {limit} bytes")]
    TooLarge {
        /// The most that is accepted, record headers included.
        limit: usize,
    },
    /// Bytes where nothing should follow.
    #[error("{field}: {extra} bytes too many")]
    TrailingBytes {
        /// Where.
        field: &'static str,
        /// How many.
        extra: usize,
    },
    /// A field that reaches past the end of what holds it, or is shorter or
    /// longer than it may be.
    #[error("{field}: wrong length")]
    Length {
        /// Which.
        field: &'static str,
    },
    /// An extension that is there twice.
    #[error("extension {kind} is there twice")]
    DuplicateExtension {
        /// The extension's number.
        kind: u16,
    },
    /// A server name that is no host name.
    #[error("the server name is not a host name")]
    ServerName,
    /// What nom itself found wrong; no parser here ends in it by design.
    #[error("malformed input ({kind:?})")]
    Malformed {
        /// nom's word for it.
        kind: ErrorKind,
    },
}

impl<I> ParseError<I> for TlsError {
    fn from_error_kind(_: I, kind: ErrorKind) -> Self {
        Self::Malformed { kind }
    }

    fn append(_: I, _: ErrorKind, other: Self) -> Self {
        other
    }
}

//! What can be wrong with bytes that claim to be PostgreSQL's.

use nom::error::{ErrorKind, ParseError};

/// Why a run of bytes is not the PostgreSQL message it claims to be, or why a
/// message cannot be written.
///
/// Variants hold sizes and names, never payload: errors reach logs, and the
/// payload may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PgError {
    /// The length field counts itself, so nothing below 4 can be framed.
    #[error("frame length {declared} is below the minimum of 4")]
    LengthTooShort {
        /// The length the peer sent.
        declared: u32,
    },
    /// PostgreSQL reads the length as a signed number.
    #[error("frame length {declared} is negative as PostgreSQL reads it")]
    LengthNegative {
        /// The length the peer sent, read without a sign.
        declared: u32,
    },
    /// More than the caller is willing to buffer.
    #[error("frame length {declared} is over the limit of {limit}")]
    FrameTooLarge {
        /// The length the peer sent.
        declared: u32,
        /// The most that the caller accepts.
        limit: u32,
    },
    /// A tag that the protocol does not know from this side.
    #[error("unknown message tag 0x{tag:02x} from the {sender}")]
    UnknownTag {
        /// The tag.
        tag: u8,
        /// `frontend` or `backend`.
        sender: &'static str,
    },
    /// A field reaches past the end of its message.
    #[error("{message}: a field wants {wanted} bytes and {left} are left")]
    Truncated {
        /// The message's name.
        message: &'static str,
        /// What the field needs.
        wanted: usize,
        /// What the message still holds.
        left: usize,
    },
    /// A string without its terminating zero byte.
    #[error("{message}: unterminated string")]
    UnterminatedString {
        /// The message's name.
        message: &'static str,
    },
    /// Bytes after the last field.
    #[error("{message}: {extra} bytes after the last field")]
    TrailingBytes {
        /// The message's name.
        message: &'static str,
        /// How many.
        extra: usize,
    },
    /// A negative length other than -1, which stands for NULL.
    #[error("{message}: value length {length} is negative and not NULL's -1")]
    NegativeLength {
        /// The message's name.
        message: &'static str,
        /// The length.
        length: i32,
    },
    /// A negative number of entries.
    #[error("{message}: negative count {count}")]
    NegativeCount {
        /// The message's name.
        message: &'static str,
        /// The count.
        count: i32,
    },
    /// A byte that selects between forms and selects none.
    #[error("{message}: unknown kind 0x{kind:02x}")]
    UnknownKind {
        /// The message's name.
        message: &'static str,
        /// The byte.
        kind: u8,
    },
    /// A cancel key outside of 4 to 256 bytes.
    #[error("{message}: a cancel key of {length} bytes, not 4 to 256")]
    KeyLength {
        /// The message's name.
        message: &'static str,
        /// Its length.
        length: usize,
    },
    /// A startup packet shorter than its version or longer than PostgreSQL
    /// takes.
    #[error("startup packet length {declared} is outside of 8 to {limit}")]
    StartupLength {
        /// The length the peer sent, itself included.
        declared: u32,
        /// The most that is accepted.
        limit: u32,
    },
    /// The parameters do not end with a zero byte that is also the last one.
    #[error("startup packet layout: expected the terminator as last byte")]
    StartupLayout,
    /// A major version other than 3.
    #[error("protocol version {major}.{minor} is not spoken here")]
    UnsupportedProtocol {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// A string to be written holds the byte that would end it.
    #[error("{message}: a zero byte inside a string")]
    ZeroInString {
        /// The message's name.
        message: &'static str,
    },
    /// A message to be written is longer than its length field can say.
    #[error("{message}: {length} bytes or entries are too many to be written")]
    TooLong {
        /// The message's name.
        message: &'static str,
        /// Bytes, or entries of a list.
        length: usize,
    },
    /// What nom itself found wrong; no parser here ends in it by design.
    #[error("malformed input ({kind:?})")]
    Malformed {
        /// nom's word for it.
        kind: ErrorKind,
    },
}

impl<I> ParseError<I> for PgError {
    fn from_error_kind(_: I, kind: ErrorKind) -> Self {
        Self::Malformed { kind }
    }

    fn append(_: I, _: ErrorKind, other: Self) -> Self {
        other
    }
}

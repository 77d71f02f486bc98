//! Why bytes are not SSH.

use nom::error::{ErrorKind, ParseError};

/// Why a run of bytes is not what it claims to be. Holds sizes and numbers, never
/// payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// A line that must begin with `SSH-` does not.
    #[error("the first line is no SSH identification")]
    NotIdentification,
    /// A line is longer than the protocol lets it be.
    #[error("an identification line is longer than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// Too much comes before the identification.
    #[error("more than {limit} lines come before the identification")]
    TooManyLines {
        /// The limit.
        limit: usize,
    },
    /// Something that is not to be in a line is in it.
    #[error("the identification has a byte in it that is not printable ASCII")]
    Unprintable,
    /// Only version 2 is spoken here.
    #[error("the peer speaks another version of SSH than 2.0")]
    Version,
    /// A packet's length cannot be.
    #[error(
        "a packet length of {length} is not between 5 and {limit}, or not a multiple of 8 with itself"
    )]
    Length {
        /// The length that the peer sent.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// A packet's padding cannot be.
    #[error("{padding} bytes of padding do not fit a packet of {length}")]
    Padding {
        /// The padding's length.
        padding: u8,
        /// The packet's.
        length: u32,
    },
    /// A message is not as its type says.
    #[error("a message of type {kind} is not as its type says")]
    Malformed {
        /// The type's number.
        kind: u8,
    },
    /// A message has more than its type says.
    #[error("a message of type {kind} has {extra} bytes too many")]
    Trailing {
        /// The type's number.
        kind: u8,
        /// How many.
        extra: usize,
    },
    /// No message has this number.
    #[error("there is no message of type {kind}")]
    Unknown {
        /// The number.
        kind: u8,
    },
    /// Something ended too early.
    #[error("the bytes end too early ({0:?})")]
    Short(ErrorKind),
}

impl<I> ParseError<I> for SshError {
    fn from_error_kind(_: I, kind: ErrorKind) -> Self {
        Self::Short(kind)
    }

    fn append(_: I, _: ErrorKind, other: Self) -> Self {
        other
    }
}

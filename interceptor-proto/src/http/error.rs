//! What can be wrong with bytes that claim to be HTTP/1's.

/// Why a run of bytes is not the HTTP/1 message it claims to be, or is one that
/// two readers could read differently.
///
/// Variants hold sizes and names, never payload: errors reach logs, and the
/// payload may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// A line that ends in LF alone.
    #[error("{part}: a line feed without a carriage return before it")]
    BareLf {
        /// What was read.
        part: Part,
    },
    /// A carriage return with no LF behind it.
    #[error("{part}: a carriage return without a line feed behind it")]
    BareCr {
        /// What was read.
        part: Part,
    },
    /// More bytes than are waited for.
    #[error("{part} of more than {limit} bytes")]
    TooLong {
        /// What was read.
        part: Part,
        /// The most that is accepted.
        limit: usize,
    },
    /// More fields than are accepted.
    #[error("{part} of more than {limit} fields")]
    TooManyFields {
        /// What was read.
        part: Part,
        /// The most that is accepted.
        limit: usize,
    },
    /// A request line that is not method, target and version with one space
    /// between them.
    #[error("the request line is not a method, a target and a version")]
    RequestLine,
    /// A status line that is not version, three digits and reason.
    #[error("the status line is not a version, three digits and a reason")]
    StatusLine,
    /// A version other than 1.0 and 1.1.
    #[error("HTTP/{major}.{minor} is not spoken here")]
    Version {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// A target in a form that does not fit the method, or with bytes that no
    /// target has.
    #[error("the request's target is not one that this method can have")]
    Target,
    /// A field that goes on in the next line, which no one may send any more.
    #[error("{part}: a field is folded over two lines")]
    Folded {
        /// What was read.
        part: Part,
    },
    /// A name that is empty, no token, or has white space before its colon.
    #[error("{part}: field {index} has no proper name")]
    FieldName {
        /// What was read.
        part: Part,
        /// Which field, from 1.
        index: usize,
    },
    /// A control character in a value.
    #[error("{part}: field {index} has a control character in its value")]
    FieldValue {
        /// What was read.
        part: Part,
        /// Which field, from 1.
        index: usize,
    },
    /// A field that may be there once.
    #[error("{count} fields {name}")]
    Repeated {
        /// The field's name.
        name: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A field that this message must not have.
    #[error("a field {name} where there must be none")]
    Forbidden {
        /// The field's name.
        name: &'static str,
    },
    /// A field that must be there.
    #[error("no field {name}")]
    Missing {
        /// The field's name.
        name: &'static str,
    },
    /// A length that is not a plain number, or too big a one.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// A length and a transfer coding: two readers may each take another.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoFramings,
    /// A transfer coding other than `chunked` alone.
    #[error("a transfer coding other than chunked")]
    TransferCoding,
    /// HTTP/1.0 knows no transfer codings.
    #[error("Transfer-Encoding in HTTP/1.0")]
    OldTransferCoding,
    /// `Host` is no host with an optional port.
    #[error("Host is not a host and an optional port")]
    Host,
    /// The target names another authority than `Host`.
    #[error("the target's authority is not that of Host")]
    HostMismatch,
    /// A chunk's size is not a plain hexadecimal number.
    #[error("a chunk's size is not a plain hexadecimal number")]
    ChunkSize,
    /// A chunk's data is longer than its size said.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// A control character in a chunk's extensions.
    #[error("a chunk's extension has bytes that none has")]
    ChunkExtension,
    /// All extensions of a body together are too long.
    #[error("chunk extensions of more than {limit} bytes in one body")]
    ChunkExtensions {
        /// The most that is accepted.
        limit: usize,
    },
    /// A field in the trailers that belongs into the head.
    #[error("trailer {index} is a field that only a head can have")]
    Trailer {
        /// Which trailer, from 1.
        index: usize,
    },
    /// A response that nobody asked for.
    #[error("a response without a request")]
    Unasked,
    /// The bytes ended in the middle of a message.
    #[error("the connection ended inside {part}")]
    Cut {
        /// What was read.
        part: Part,
    },
    /// More came before the other side had agreed to change the protocol.
    #[error("more than {limit} bytes before the change of protocol was agreed")]
    Impatient {
        /// The most that is kept.
        limit: usize,
    },
    /// Nothing is read behind an error.
    #[error("bytes behind a message that was refused")]
    Over,
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Request line or status line, and fields.
    Head,
    /// The line that has a chunk's size.
    ChunkLine,
    /// The fields behind a chunked body.
    Trailers,
    /// The body.
    Body,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "the head",
            Self::ChunkLine => "a chunk's first line",
            Self::Trailers => "the trailers",
            Self::Body => "the body",
        })
    }
}

impl HttpError {
    /// The status that answers it, where a client sent it (RFC 9110, section 15).
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooLong {
                part: Part::Head | Part::Trailers,
                ..
            }
            | Self::TooManyFields { .. } => 431,
            Self::TransferCoding => 501,
            Self::Version { .. } => 505,
            _ => 400,
        }
    }

    /// Its name in the corpus and in records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BareLf { .. } => "bare_lf",
            Self::BareCr { .. } => "bare_cr",
            Self::TooLong { .. } => "too_long",
            Self::TooManyFields { .. } => "too_many_fields",
            Self::RequestLine => "request_line",
            Self::StatusLine => "status_line",
            Self::Version { .. } => "version",
            Self::Target => "target",
            Self::Folded { .. } => "folded",
            Self::FieldName { .. } => "field_name",
            Self::FieldValue { .. } => "field_value",
            Self::Repeated { .. } => "repeated",
            Self::Forbidden { .. } => "forbidden",
            Self::Missing { .. } => "missing",
            Self::ContentLength => "content_length",
            Self::TwoFramings => "two_framings",
            Self::TransferCoding => "transfer_coding",
            Self::OldTransferCoding => "old_transfer_coding",
            Self::Host => "host",
            Self::HostMismatch => "host_mismatch",
            Self::ChunkSize => "chunk_size",
            Self::ChunkEnd => "chunk_end",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkExtensions { .. } => "chunk_extensions",
            Self::Trailer { .. } => "trailer",
            Self::Unasked => "unasked",
            Self::Cut { .. } => "cut",
            Self::Impatient { .. } => "impatient",
            Self::Over => "over",
        }
    }
}

//! Version 3 of the file transfer protocol.
//!
//! A packet is `uint32 length, byte type, …`; every request but the first has an
//! id, which its answer repeats. [`packet`] cuts one off, [`Request::parse`] and
//! [`Answer::parse`] read it, and use it up or refuse.
//!
//! Spec: draft-ietf-secsh-filexfer-02.

use nom::bytes::streaming::take;
use nom::combinator::consumed;
use nom::number::complete::{be_u32 as whole_u32, be_u64};
use nom::number::streaming::{be_u8, be_u32};
use nom::{Err, IResult, Parser as _};

use super::{SshError, string};

/// The longest packet that OpenSSH takes.
pub const LIMIT: u32 = 256 << 10;

/// `SSH_FXF_READ`.
pub const READ: u32 = 1;
/// `SSH_FXF_WRITE`.
pub const WRITE: u32 = 2;
/// `SSH_FXF_APPEND`, `SSH_FXF_CREAT`, `SSH_FXF_TRUNC`: it changes the file.
pub const CHANGES: u32 = WRITE | 0x4 | 0x8 | 0x10;

/// `SSH_FX_OK`.
pub const OK: u32 = 0;
/// `SSH_FX_EOF`.
pub const EOF: u32 = 1;
/// `SSH_FX_PERMISSION_DENIED`.
pub const PERMISSION_DENIED: u32 = 3;

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// One packet, unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type's number.
    pub kind: u8,
    /// What follows it.
    pub body: &'a [u8],
    /// All of it, its length included.
    pub raw: &'a [u8],
}

/// Cuts one packet off the front.
///
/// # Errors
/// `Incomplete` while it is not whole; a failure when it is too long or empty.
pub fn packet(input: &[u8]) -> IResult<&[u8], Frame<'_>, SshError> {
    let (rest, (raw, (kind, body))) = consumed(|input| {
        let (rest, length) = be_u32(input)?;
        if !(1..=LIMIT).contains(&length) {
            let limit = LIMIT;
            return Err(Err::Failure(SshError::Length { length, limit }));
        }
        let (rest, kind) = be_u8(rest)?;
        let (rest, body) = take(length - 1)(rest)?;
        Ok((rest, (kind, body)))
    })
    .parse(input)?;
    Ok((rest, Frame { kind, body, raw }))
}

/// What a client asks for. `id` is of the answer; paths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the specification's own")]
pub enum Request<'a> {
    Init {
        version: u32,
    },
    Open {
        id: u32,
        path: &'a [u8],
        flags: u32,
    },
    Close {
        id: u32,
        handle: &'a [u8],
    },
    Read {
        id: u32,
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    Write {
        id: u32,
        handle: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Lstat {
        id: u32,
        path: &'a [u8],
    },
    Fstat {
        id: u32,
        handle: &'a [u8],
    },
    Setstat {
        id: u32,
        path: &'a [u8],
    },
    Fsetstat {
        id: u32,
        handle: &'a [u8],
    },
    Opendir {
        id: u32,
        path: &'a [u8],
    },
    Readdir {
        id: u32,
        handle: &'a [u8],
    },
    Remove {
        id: u32,
        path: &'a [u8],
    },
    Mkdir {
        id: u32,
        path: &'a [u8],
    },
    Rmdir {
        id: u32,
        path: &'a [u8],
    },
    Realpath {
        id: u32,
        path: &'a [u8],
    },
    Stat {
        id: u32,
        path: &'a [u8],
    },
    Rename {
        id: u32,
        from: &'a [u8],
        to: &'a [u8],
    },
    Readlink {
        id: u32,
        path: &'a [u8],
    },
    /// OpenSSH has the two the other way round than the draft: first what the
    /// link points at.
    Symlink {
        id: u32,
        target: &'a [u8],
        link: &'a [u8],
    },
    Extended {
        id: u32,
        name: &'a [u8],
        body: &'a [u8],
    },
}

impl<'a> Request<'a> {
    /// Reads a whole packet.
    ///
    /// # Errors
    /// When it is no request, or not as its type says.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, SshError> {
        let kind = frame.kind;
        let malformed = |_| SshError::Malformed { kind };
        let (rest, id) = whole_u32::<_, SshError>(frame.body).map_err(malformed)?;
        let text = |input| string(input).map_err(malformed);
        let attributes = |input| attributes(input).map_err(malformed);
        let (rest, request) = match kind {
            // Pairs of extensions may follow; none is known to ask for anything.
            1 => (&[][..], Self::Init { version: id }),
            3 => {
                let (rest, path) = text(rest)?;
                let (rest, flags) = whole_u32::<_, SshError>(rest).map_err(malformed)?;
                (attributes(rest)?, Self::Open { id, path, flags })
            }
            5 => {
                let (rest, handle) = text(rest)?;
                let (rest, offset) = be_u64::<_, SshError>(rest).map_err(malformed)?;
                let (rest, length) = whole_u32::<_, SshError>(rest).map_err(malformed)?;
                (
                    rest,
                    Self::Read {
                        id,
                        handle,
                        offset,
                        length,
                    },
                )
            }
            6 => {
                let (rest, handle) = text(rest)?;
                let (rest, offset) = be_u64::<_, SshError>(rest).map_err(malformed)?;
                let (rest, data) = text(rest)?;
                (
                    rest,
                    Self::Write {
                        id,
                        handle,
                        offset,
                        data,
                    },
                )
            }
            18 => {
                let (rest, from) = text(rest)?;
                let (rest, to) = text(rest)?;
                (rest, Self::Rename { id, from, to })
            }
            20 => {
                let (rest, target) = text(rest)?;
                let (rest, link) = text(rest)?;
                (rest, Self::Symlink { id, target, link })
            }
            9 => {
                let (rest, path) = text(rest)?;
                (attributes(rest)?, Self::Setstat { id, path })
            }
            10 => {
                let (rest, handle) = text(rest)?;
                (attributes(rest)?, Self::Fsetstat { id, handle })
            }
            14 => {
                let (rest, path) = text(rest)?;
                (attributes(rest)?, Self::Mkdir { id, path })
            }
            200 => {
                let (body, name) = text(rest)?;
                (&[][..], Self::Extended { id, name, body })
            }
            4 | 7 | 8 | 11 | 12 | 13 | 15 | 16 | 17 | 19 => {
                let (rest, path) = text(rest)?;
                let handle = path;
                let request = match kind {
                    4 => Self::Close { id, handle },
                    7 => Self::Lstat { id, path },
                    8 => Self::Fstat { id, handle },
                    11 => Self::Opendir { id, path },
                    12 => Self::Readdir { id, handle },
                    13 => Self::Remove { id, path },
                    15 => Self::Rmdir { id, path },
                    16 => Self::Realpath { id, path },
                    17 => Self::Stat { id, path },
                    _ => Self::Readlink { id, path },
                };
                (rest, request)
            }
            _ => return Err(SshError::Unknown { kind }),
        };
        match rest.len() {
            0 => Ok(request),
            extra => Err(SshError::Trailing { kind, extra }),
        }
    }
}

/// What a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the specification's own")]
pub enum Answer<'a> {
    Version {
        version: u32,
    },
    Status {
        id: u32,
        code: u32,
    },
    Handle {
        id: u32,
        handle: &'a [u8],
    },
    Data {
        id: u32,
        data: &'a [u8],
    },
    /// Names, attributes, or an extension's reply: nothing here reads them.
    Other {
        id: u32,
    },
}

impl<'a> Answer<'a> {
    /// Reads a whole packet.
    ///
    /// # Errors
    /// When it is no answer, or not as its type says.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, SshError> {
        let kind = frame.kind;
        let malformed = |_| SshError::Malformed { kind };
        let (rest, id) = whole_u32::<_, SshError>(frame.body).map_err(malformed)?;
        let all = |rest: &[u8], answer| match rest.len() {
            0 => Ok(answer),
            extra => Err(SshError::Trailing { kind, extra }),
        };
        match kind {
            VERSION => Ok(Self::Version { version: id }),
            STATUS => {
                // The words and their language are left out by some servers.
                let (_, code) = whole_u32::<_, SshError>(rest).map_err(malformed)?;
                Ok(Self::Status { id, code })
            }
            HANDLE => {
                let (rest, handle) = string(rest).map_err(malformed)?;
                all(rest, Self::Handle { id, handle })
            }
            DATA => {
                let (rest, data) = string(rest).map_err(malformed)?;
                all(rest, Self::Data { id, data })
            }
            NAME | ATTRS | EXTENDED_REPLY => Ok(Self::Other { id }),
            _ => Err(SshError::Unknown { kind }),
        }
    }
}

/// Skips a file's attributes.
fn attributes(input: &[u8]) -> Result<&[u8], Err<SshError>> {
    let (mut rest, flags) = whole_u32(input)?;
    for (flag, size) in [(1, 8usize), (2, 8), (4, 4), (8, 8)] {
        if flags & flag != 0 {
            (rest, _) = nom::bytes::complete::take(size)(rest)?;
        }
    }
    if flags & 0x8000_0000 != 0 {
        let (mut after, count) = whole_u32(rest)?;
        for _ in 0..count {
            (after, _) = string(after)?;
            (after, _) = string(after)?;
        }
        rest = after;
    }
    Ok(rest)
}

/// An answer that refuses, for whoever asked under `id`.
#[must_use]
pub fn encode_status(id: u32, code: u32, message: &str) -> Vec<u8> {
    let message = message.as_bytes();
    let message = message.get(..1024).unwrap_or(message);
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut packet = Vec::with_capacity(message.len() + 25);
    packet.extend(length(1 + 4 + 4 + 4 + message.len() + 4 + 2));
    packet.push(STATUS);
    packet.extend(id.to_be_bytes());
    packet.extend(code.to_be_bytes());
    packet.extend(length(message.len()));
    packet.extend(message);
    packet.extend(length(2));
    packet.extend(b"en");
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let length = u32::try_from(body.len() + 1).unwrap();
        [&length.to_be_bytes()[..], &[kind], &body].concat()
    }

    fn text(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [&length.to_be_bytes()[..], text].concat()
    }

    fn read(bytes: &[u8]) -> Result<Request<'_>, SshError> {
        let (rest, frame) = packet(bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!(frame.raw, bytes);
        Request::parse(&frame)
    }

    #[test]
    fn requests_are_read_whole() {
        let id = 7u32.to_be_bytes();
        let none = [0; 4];
        let open = made(3, &[&id, &text(b"/a"), &[0, 0, 0, 1], &none]);
        let path = &b"/a"[..];
        assert_eq!(
            read(&open),
            Ok(Request::Open {
                id: 7,
                path,
                flags: READ
            })
        );
        let attributes = [
            &[0x80, 0, 0, 5][..],
            &[0; 8],
            &[0; 4],
            &[0, 0, 0, 1],
            &text(b"k"),
            &text(b"v"),
        ]
        .concat();
        let mkdir = made(14, &[&id, &text(b"/a"), &attributes]);
        assert_eq!(read(&mkdir), Ok(Request::Mkdir { id: 7, path }));
        let write = made(6, &[&id, &text(b"h"), &9u64.to_be_bytes(), &text(b"data")]);
        let expected = Request::Write {
            id: 7,
            handle: b"h",
            offset: 9,
            data: b"data",
        };
        assert_eq!(read(&write), Ok(expected));
    }

    #[test]
    fn a_request_that_is_not_used_up_is_refused() {
        let long = made(13, &[&[0; 4], &text(b"/a"), b"more"]);
        assert_eq!(read(&long), Err(SshError::Trailing { kind: 13, extra: 4 }));
        let short = made(13, &[&[0; 4], &[0, 0, 0, 9], b"/a"]);
        assert_eq!(read(&short), Err(SshError::Malformed { kind: 13 }));
        assert_eq!(
            read(&made(99, &[&[0; 4]])),
            Err(SshError::Unknown { kind: 99 })
        );
        let endless = made(14, &[&[0; 4], &text(b"/a"), &[0x80, 0, 0, 0], &[0xff; 4]]);
        assert_eq!(read(&endless), Err(SshError::Malformed { kind: 14 }));
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_its_bytes_are_waited_for() {
        for length in [0, LIMIT + 1] {
            assert!(matches!(
                packet(&length.to_be_bytes()),
                Err(Err::Failure(_))
            ));
        }
        assert!(matches!(
            packet(&LIMIT.to_be_bytes()),
            Err(Err::Incomplete(_))
        ));
    }

    #[test]
    fn a_refusal_reads_back() {
        let bytes = encode_status(4, PERMISSION_DENIED, "no");
        let (rest, frame) = packet(&bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            Answer::parse(&frame),
            Ok(Answer::Status {
                id: 4,
                code: PERMISSION_DENIED
            })
        );
    }
}

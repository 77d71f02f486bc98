//! Which protocol the first bytes of a flow speak.
//!
//! Three answers: certain, not yet, and unknown. It never guesses: a protocol
//! is certain only once the bytes can be nothing else that is known here, and
//! unknown as soon as no more bytes could make it certain. What is done with an
//! unknown flow is for the rules; how long to wait is for the caller, and
//! protocols where the server speaks first never get past `NeedMore`.
//!
//! Spec: PostgreSQL manual, page `protocol-message-formats`; RFC 8446 section
//! 5.1; RFC 9112 section 3 (request line); RFC 9113 section 3.4 (preface); RFC
//! 4253 section 4.2 (identification).

use nom::Err;

use crate::{pg::startup, tls::client_hello};

/// The protocol of PostgreSQL in ALPN, for TLS without `SSLRequest`.
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// The longest request line that is waited for.
pub const REQUEST_LINE_LIMIT: usize = 16 << 10;

const METHOD_LIMIT: usize = 32;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SSH_IDENTIFICATION: &[u8] = b"SSH-2.0-";
/// What a server that also speaks SSH 1 says, and some old clients.
const SSH_COMPATIBLE: &[u8] = b"SSH-1.99-";

/// What a flow speaks, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wire {
    /// A startup packet, or a request for encryption or cancelling.
    PostgresStartup,
    /// TLS whose client offers PostgreSQL at once.
    PostgresTls,
    /// TLS with anything else inside.
    Tls,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2 in clear, with prior knowledge.
    Http2,
    /// SSH.
    Ssh,
}

/// What is known after these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detection {
    /// It is this.
    Certain(Wire),
    /// It may still become something known.
    NeedMore,
    /// It is nothing that is known.
    Unknown,
}

/// Judges the first bytes of a flow, from its first byte on.
///
/// Asked again with more bytes, `Certain` and `Unknown` stay what they are.
#[must_use]
pub fn detect(first: &[u8]) -> Detection {
    // The first byte tells the candidates apart, except for `P` and `S`, which
    // may begin a request line as well.
    match first.first() {
        None => Detection::NeedMore,
        Some(0) => postgres(first),
        Some(&client_hello::HANDSHAKE) => tls(first),
        Some(_) => prefix(first, HTTP2_PREFACE, Wire::Http2)
            .or(prefix(first, SSH_IDENTIFICATION, Wire::Ssh))
            .or(prefix(first, SSH_COMPATIBLE, Wire::Ssh))
            .or(request_line(first)),
    }
}

impl Detection {
    /// The more certain of the two.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (certain @ Self::Certain(_), _) | (_, certain @ Self::Certain(_)) => certain,
            (Self::NeedMore, _) | (_, Self::NeedMore) => Self::NeedMore,
            (Self::Unknown, Self::Unknown) => Self::Unknown,
        }
    }
}

/// The bytes against what a protocol always begins with.
fn prefix(first: &[u8], magic: &[u8], wire: Wire) -> Detection {
    if first.starts_with(magic) {
        Detection::Certain(wire)
    } else if magic.starts_with(first) {
        Detection::NeedMore
    } else {
        Detection::Unknown
    }
}

/// A length that fits its code. The first two bytes of any such length are
/// zero, which no other protocol here begins with.
fn postgres(first: &[u8]) -> Detection {
    let Some((length, after)) = first.split_first_chunk::<4>() else {
        // As much of the length as is there, as if zeros followed.
        let mut least = [0; 4];
        least
            .iter_mut()
            .zip(first)
            .for_each(|(to, from)| *to = *from);
        return match u32::from_be_bytes(least) {
            0..=startup::LENGTH_MAX => Detection::NeedMore,
            _ => Detection::Unknown,
        };
    };
    let length = u32::from_be_bytes(*length);
    if !(8..=startup::LENGTH_MAX).contains(&length) {
        return Detection::Unknown;
    }
    let is_code = |code: &[u8; 4]| match u32::from_be_bytes(*code) {
        startup::SSL_CODE | startup::GSSENC_CODE => length == 8,
        startup::CANCEL_CODE => (12 + 4..=12 + 256).contains(&length),
        version => version >> 16 == u32::from(startup::MAJOR) && length > 8,
    };
    match after.first_chunk::<4>() {
        Some(code) if is_code(code) => Detection::Certain(Wire::PostgresStartup),
        Some(_) => Detection::Unknown,
        // Major version 3, or the 1234 of the requests.
        None if [0, 3].starts_with(after.get(..2).unwrap_or(after))
            || [4, 0xd2].starts_with(after.get(..2).unwrap_or(after)) =>
        {
            Detection::NeedMore
        }
        None => Detection::Unknown,
    }
}

fn tls(first: &[u8]) -> Detection {
    match client_hello::client_hello(first) {
        Ok((_, hello)) if hello.offers(ALPN_POSTGRESQL) => Detection::Certain(Wire::PostgresTls),
        Ok(_) => Detection::Certain(Wire::Tls),
        Err(Err::Incomplete(_)) => Detection::NeedMore,
        Err(_) => Detection::Unknown,
    }
}

/// Method, one space, target, one space, `HTTP/1.` and a digit, end of line.
fn request_line(first: &[u8]) -> Detection {
    let (line, whole) = match memchr::memchr(b'\n', first) {
        Some(end) => (first.get(..end).unwrap_or_default(), true),
        None => (first, false),
    };
    if line.len() > REQUEST_LINE_LIMIT {
        return Detection::Unknown;
    }
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    if method.is_empty() || method.len() > METHOD_LIMIT || !method.iter().all(is_method) {
        return Detection::Unknown;
    }
    let (target, version, extra) = (words.next(), words.next(), words.next());
    let target_fits = target.is_none_or(|target| {
        let fits = match (method, version) {
            (b"CONNECT", None) => true,
            (b"CONNECT", Some(_)) => !target.is_empty(),
            (_, done) => is_target(target, done.is_some() || whole),
        };
        fits && target.iter().all(is_visible)
    });
    let version_fits = match version {
        Some(version) => {
            let bare = match version.len() {
                9 => version.strip_suffix(b"\r").unwrap_or(version),
                _ => version,
            };
            [&b"HTTP/1.0"[..], b"HTTP/1.1"].iter().any(|known| {
                if whole {
                    *known == bare
                } else {
                    known.starts_with(bare)
                }
            })
        }
        None => !whole,
    };
    match target_fits && version_fits && extra.is_none() {
        false => Detection::Unknown,
        true if whole => Detection::Certain(Wire::Http1),
        true => Detection::NeedMore,
    }
}

/// Registered methods are capitals, with a hyphen in a few.
fn is_method(byte: &u8) -> bool {
    byte.is_ascii_uppercase() || *byte == b'-'
}

/// Origin form, asterisk form, absolute form; or, unless it is `whole`, as much
/// of one as is there.
fn is_target(target: &[u8], whole: bool) -> bool {
    [&b"/"[..], b"http://", b"https://"].iter().any(|form| {
        let head = target.get(..form.len()).unwrap_or(target);
        let begun = form
            .get(..head.len())
            .is_some_and(|form| form.eq_ignore_ascii_case(head));
        begun && (!whole || head.len() == form.len())
    }) || target == b"*"
}

/// Anything but controls and spaces. Bytes above 127 should be encoded, and
/// common clients send them as they are.
fn is_visible(byte: &u8) -> bool {
    byte.is_ascii_graphic() || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole first messages and what they are.
    fn known() -> Vec<(Vec<u8>, Wire)> {
        let mut startup = Vec::new();
        startup::StartupBuilder::new(2)
            .set(b"user", b"agent")
            .encode(&mut startup)
            .unwrap();
        let mut ssl = Vec::new();
        startup::encode_ssl_request(&mut ssl);
        let mut cancel = Vec::new();
        startup::CancelRequest {
            process_id: 7,
            key: &[1; 32],
        }
        .encode(&mut cancel)
        .unwrap();
        vec![
            (startup, Wire::PostgresStartup),
            (ssl, Wire::PostgresStartup),
            (cancel, Wire::PostgresStartup),
            (
                vec![0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30],
                Wire::PostgresStartup,
            ),
            (hello(&[b"postgresql"]), Wire::PostgresTls),
            (hello(&[b"h2", b"http/1.1"]), Wire::Tls),
            (b"GET /a?b=c HTTP/1.1\r\n".to_vec(), Wire::Http1),
            (b"POST /caf\xc3\xa9 HTTP/1.0\n".to_vec(), Wire::Http1),
            (
                b"PUT http://billing.internal/ HTTP/1.1\r\n".to_vec(),
                Wire::Http1,
            ),
            (b"OPTIONS * HTTP/1.1\r\n".to_vec(), Wire::Http1),
            (
                b"CONNECT billing.internal:443 HTTP/1.1\r\n".to_vec(),
                Wire::Http1,
            ),
            (b"SEARCH / HTTP/1.1\r\n".to_vec(), Wire::Http1),
            (b"PROPFIND / HTTP/1.1\r\n".to_vec(), Wire::Http1),
            (HTTP2_PREFACE.to_vec(), Wire::Http2),
            (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Wire::Ssh),
            (b"SSH-1.99-x\r\n".to_vec(), Wire::Ssh),
        ]
    }

    /// A ClientHello with nothing but ALPN.
    fn hello(protocols: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = protocols
            .iter()
            .flat_map(|p| [&[p.len() as u8], *p].concat())
            .collect();
        let length = list.len() as u8;
        let extension = [&[0, 16, 0, length + 2, 0, length][..], &list].concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0, 0, 2, 0x13, 1, 1, 0, 0, extension.len() as u8],
            &extension,
        ]
        .concat();
        let length = body.len() as u8;
        [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
    }

    #[test]
    fn each_protocol_is_certain_in_time_and_never_taken_for_another_before() {
        for (bytes, wire) in known() {
            assert_eq!(detect(&bytes), Detection::Certain(wire), "{wire:?}");
            let mut certain = false;
            for cut in 0..bytes.len() {
                match detect(&bytes[..cut]) {
                    Detection::NeedMore => assert!(!certain, "{wire:?} cut at {cut}"),
                    Detection::Certain(early) => {
                        assert_eq!(early, wire, "cut at {cut}");
                        certain = true;
                    }
                    Detection::Unknown => panic!("{wire:?} lost at {cut}"),
                }
            }
        }
    }

    #[test]
    fn what_comes_later_does_not_change_an_answer() {
        for (mut bytes, wire) in known() {
            bytes.extend_from_slice(b"\0\xff HTTP/1.1\r\n");
            assert_eq!(detect(&bytes), Detection::Certain(wire));
        }
    }

    #[test]
    fn what_is_nothing_known_is_unknown_at_the_byte_that_says_so() {
        for bytes in [
            &b"\x01"[..],
            b"\0\x01",
            b"\0\0\x28",
            b"\0\0\0\x07",
            b"\0\0\0\x08\0\x02",
            b"\0\0\0\x09\x04\xd2\x16\x2f",
            b"\0\0\0\x0c\x04\xd2\x16\x2e",
            b"\0\0\x27\x15",
            b"\x16\x02",
            b"g",
            b" ",
            b"GET x",
            b"GET  ",
            b"GET / HTTP/2",
            b"GET / HTTP/1.1\rX",
            b"GET / HTTP/1.1 ",
            b"GET /\n",
            b"GET / HTTP/1\n",
            b"GET h ",
            b"CONNECT  ",
            b"GET /\0",
            b"SSH-1.5",
            b"\x80",
        ] {
            assert_eq!(detect(bytes), Detection::Unknown, "{bytes:?}");
            let before = &bytes[..bytes.len() - 1];
            assert_eq!(detect(before), Detection::NeedMore, "{before:?}");
        }
    }

    #[test]
    fn a_request_line_is_not_waited_for_without_end() {
        let mut bytes = b"GET /".to_vec();
        bytes.resize(REQUEST_LINE_LIMIT, b'a');
        assert_eq!(detect(&bytes), Detection::NeedMore);
        bytes.push(b'a');
        assert_eq!(detect(&bytes), Detection::Unknown);
        assert_eq!(detect(&[b'A'; METHOD_LIMIT + 1]), Detection::Unknown);
    }
}

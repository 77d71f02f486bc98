//! The ClientHello, over records and fragments.
//!
//! A client may cut its first message into any number of records, and large
//! key shares do not fit one TCP segment, so the reader puts the fragments
//! together and answers `Incomplete` until the last one is there. It keeps no
//! more than [`LIMIT`] bytes. What it does *not* do: check cipher suites, keys
//! or the order of extensions, or open an encrypted ClientHello; it says that
//! one is there.
//!
//! Spec: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3 (server name), RFC
//! 7301 section 3.1 (ALPN), RFC 7685 (padding, skipped like any other
//! extension).

use std::borrow::Cow;

use nom::{
    Err, IResult, Parser,
    bytes::{complete, streaming},
    multi::length_data,
    number::{
        complete::{be_u8, be_u16},
        streaming as stream,
    },
};

use super::TlsError;

/// The most that is read for one ClientHello, record headers included.
pub const LIMIT: usize = 64 << 10;

/// The content type of a handshake's records, and so a TLS flow's first byte.
pub const HANDSHAKE: u8 = 22;

const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER: usize = 4;
const RECORD_HEADER: usize = 5;
const RECORD_MAX: u16 = 1 << 14;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What a client says before anything is encrypted. None of it is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host that the client wants, in lower case.
    pub server_name: Option<String>,
    /// The protocols that the client offers, its favourite first.
    pub alpn: Vec<Vec<u8>>,
    /// The versions that the client offers; without the extension, the one of
    /// the message itself.
    pub versions: Vec<u16>,
    /// Whether an encrypted ClientHello is inside, so that the name above may
    /// be a front. One that was put there for camouflage looks the same.
    pub has_ech: bool,
}

impl ClientHello {
    /// Whether `protocol` is offered.
    #[must_use]
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| offered == protocol)
    }
}

/// Reads a ClientHello off the front of a flow; the rest is what follows the
/// record that it ends in.
///
/// # Errors
///
/// `Incomplete` while a part is missing. `Failure` as soon as the bytes cannot
/// become a ClientHello, and when it does not end within [`LIMIT`].
pub fn client_hello(input: &[u8]) -> IResult<&[u8], ClientHello, TlsError> {
    let mut rest = input;
    let mut message: Cow<'_, [u8]> = Cow::default();
    loop {
        let (after, fragment) = record(rest).map_err(|error| match error {
            // No more is asked for once the limit is reached.
            Err::Incomplete(_) if input.len() >= LIMIT => too_large(),
            error => error,
        })?;
        if input.len() - after.len() > LIMIT {
            return Err(too_large());
        }
        rest = after;
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        let Some(&[kind, a, b, c]) = message.first_chunk::<MESSAGE_HEADER>() else {
            continue;
        };
        if kind != CLIENT_HELLO {
            return Err(Err::Failure(TlsError::NotClientHello { kind }));
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > LIMIT - MESSAGE_HEADER - RECORD_HEADER {
            return Err(too_large());
        }
        let body = message.get(MESSAGE_HEADER..).unwrap_or_default();
        match body.len().checked_sub(length) {
            None => {}
            Some(0) => return Ok((rest, hello(body).map_err(Err::Failure)?)),
            // The keys change after this message, so nothing may share its
            // last record (RFC 8446 section 5.1).
            Some(extra) => {
                return Err(Err::Failure(TlsError::TrailingBytes {
                    field: "ClientHello",
                    extra,
                }));
            }
        }
    }
}

fn too_large() -> Err<TlsError> {
    Err::Failure(TlsError::TooLarge { limit: LIMIT })
}

/// One record's fragment. Each header field is judged as soon as it is there.
fn record(input: &[u8]) -> IResult<&[u8], &[u8], TlsError> {
    let (rest, content_type) = stream::be_u8(input)?;
    if content_type != HANDSHAKE {
        return Err(Err::Failure(TlsError::NotHandshake { content_type }));
    }
    let (rest, major) = stream::be_u8(rest)?;
    if major != 3 {
        return Err(Err::Failure(TlsError::NotTls { major }));
    }
    let (rest, _minor) = stream::be_u8(rest)?;
    let (rest, length) = stream::be_u16(rest)?;
    if !(1..=RECORD_MAX).contains(&length) {
        return Err(Err::Failure(TlsError::RecordLength { length }));
    }
    streaming::take(length)(rest)
}

fn hello(body: &[u8]) -> Result<ClientHello, TlsError> {
    let mut fields = Fields::new("ClientHello", body);
    let version = fields.u16()?;
    fields.take(32)?;
    fields.sized_u8("session id", 0..=32)?;
    fields.sized_u16("cipher suites", 2)?;
    fields.sized_u8("compression methods", 1..=255)?;
    let mut hello = ClientHello::default();
    // Before TLS 1.3 a ClientHello may end here.
    if !fields.rest.is_empty() {
        let list = fields.sized_u16("extensions", 0)?;
        extensions(&mut hello, list)?;
    }
    fields.finish()?;
    if hello.versions.is_empty() {
        hello.versions.push(version);
    }
    Ok(hello)
}

fn extensions(hello: &mut ClientHello, list: &[u8]) -> Result<(), TlsError> {
    let mut fields = Fields::new("extensions", list);
    let mut seen = Vec::new();
    while !fields.rest.is_empty() {
        let kind = fields.u16()?;
        let data = fields.sized_u16("extension", 0)?;
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ALPN => hello.alpn = alpn(data)?,
            SUPPORTED_VERSIONS => hello.versions = versions(data)?,
            ENCRYPTED_CLIENT_HELLO => hello.has_ech = true,
            _ => {}
        }
    }
    seen.sort_unstable();
    match seen.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => Err(TlsError::DuplicateExtension {
            kind: pair.first().copied().unwrap_or_default(),
        }),
        None => Ok(()),
    }
}

/// Exactly one name of the one kind that was ever defined.
fn server_name(data: &[u8]) -> Result<String, TlsError> {
    const HOST_NAME: u8 = 0;
    let mut outer = Fields::new("server name", data);
    let mut list = Fields::new("server name", outer.sized_u16("server name", 1)?);
    outer.finish()?;
    if list.u8()? != HOST_NAME {
        return Err(TlsError::ServerName);
    }
    let name = list.sized_u16("server name", 1)?;
    list.finish()?;
    let is_host_name = name.len() <= 255
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    match core::str::from_utf8(name) {
        Ok(name) if is_host_name => Ok(name.to_ascii_lowercase()),
        _ => Err(TlsError::ServerName),
    }
}

fn alpn(data: &[u8]) -> Result<Vec<Vec<u8>>, TlsError> {
    let mut outer = Fields::new("ALPN", data);
    let mut list = Fields::new("ALPN", outer.sized_u16("ALPN", 2)?);
    outer.finish()?;
    let mut protocols = Vec::new();
    while !list.rest.is_empty() {
        protocols.push(list.sized_u8("ALPN", 1..=255)?.to_vec());
    }
    Ok(protocols)
}

fn versions(data: &[u8]) -> Result<Vec<u16>, TlsError> {
    let mut outer = Fields::new("supported versions", data);
    let list = outer.sized_u8("supported versions", 2..=254)?;
    outer.finish()?;
    let (pairs, odd) = list.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(TlsError::Length {
            field: "supported versions",
        });
    }
    Ok(pairs.iter().copied().map(u16::from_be_bytes).collect())
}

/// Fields of a whole structure, where a short read is the peer's error.
struct Fields<'a> {
    field: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(field: &'static str, rest: &'a [u8]) -> Self {
        Self { field, rest }
    }

    fn u8(&mut self) -> Result<u8, TlsError> {
        self.read(self.field, be_u8)
    }

    fn u16(&mut self) -> Result<u16, TlsError> {
        self.read(self.field, be_u16)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TlsError> {
        self.read(self.field, complete::take(count))
    }

    /// A byte's worth of length, and as many bytes.
    fn sized_u8(
        &mut self,
        field: &'static str,
        allowed: core::ops::RangeInclusive<usize>,
    ) -> Result<&'a [u8], TlsError> {
        let data: &[u8] = self.read(field, length_data(be_u8))?;
        match allowed.contains(&data.len()) {
            true => Ok(data),
            false => Err(TlsError::Length { field }),
        }
    }

    /// Two bytes' worth of length, and as many bytes.
    fn sized_u16(&mut self, field: &'static str, least: usize) -> Result<&'a [u8], TlsError> {
        let data: &[u8] = self.read(field, length_data(be_u16))?;
        match data.len() >= least {
            true => Ok(data),
            false => Err(TlsError::Length { field }),
        }
    }

    fn finish(self) -> Result<(), TlsError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(TlsError::TrailingBytes {
                field: self.field,
                extra,
            }),
        }
    }

    fn read<O>(
        &mut self,
        field: &'static str,
        mut parser: impl Parser<&'a [u8], Output = O, Error = ()>,
    ) -> Result<O, TlsError> {
        // `length_data` is a streaming parser: to it a short read is a wish for
        // more, which inside a whole structure is an error like the others.
        let (rest, value) = parser
            .parse(self.rest)
            .map_err(|_| TlsError::Length { field })?;
        self.rest = rest;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sized<const N: usize>(data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u32).to_be_bytes();
        [&length[4 - N..], data].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &sized::<2>(data)].concat()
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        let entry = [&[0][..], &sized::<2>(name)].concat();
        extension(SERVER_NAME, &sized::<2>(&entry))
    }

    fn offered(protocols: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = protocols.iter().flat_map(|p| sized::<1>(p)).collect();
        extension(ALPN, &sized::<2>(&list))
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &sized::<1>(&[9; 32]),
            &sized::<2>(&[0x13, 1, 0x13, 2]),
            &sized::<1>(&[0]),
            &sized::<2>(&extensions.concat()),
        ]
        .concat();
        [&[CLIENT_HELLO][..], &sized::<3>(&body)].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|c| [&[HANDSHAKE, 3, 1][..], &sized::<2>(c)].concat())
            .collect()
    }

    fn refused(bytes: &[u8]) -> TlsError {
        match client_hello(bytes) {
            Err(Err::Failure(error)) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn name_protocols_versions_and_an_encrypted_hello_are_found() {
        let bytes = records(
            &message(&[
                sni(b"Orders.Internal"),
                extension(21, &[0; 300]),
                offered(&[b"postgresql", b"h2"]),
                extension(SUPPORTED_VERSIONS, &sized::<1>(&[3, 4, 3, 3])),
                extension(ENCRYPTED_CLIENT_HELLO, &[1]),
            ]),
            1 << 14,
        );
        let (rest, hello) = client_hello(&bytes).unwrap();
        assert_eq!(rest, b"");
        assert_eq!(hello.server_name.as_deref(), Some("orders.internal"));
        assert!(hello.offers(b"postgresql") && hello.offers(b"h2") && !hello.offers(b"h"));
        assert_eq!(hello.versions, [0x0304, 0x0303]);
        assert!(hello.has_ech);
    }

    #[test]
    fn a_hello_without_extensions_speaks_its_own_version() {
        let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 10], &[1, 0]].concat();
        let bytes = records(&[&[1][..], &sized::<3>(&body)].concat(), 1 << 14);
        let (_, hello) = client_hello(&bytes).unwrap();
        assert_eq!(hello.versions, [0x0301]);
        assert_eq!(
            hello,
            ClientHello {
                versions: vec![0x0301],
                ..Default::default()
            }
        );
    }

    #[test]
    fn every_cut_and_every_record_size_reads_the_same() {
        let message = message(&[sni(b"db.internal"), offered(&[b"postgresql"])]);
        let whole = client_hello(&records(&message, 1 << 14)).unwrap().1;
        for size in [1, 2, 3, 4, 5, 17, 100] {
            let bytes = records(&message, size);
            assert_eq!(client_hello(&bytes).unwrap().1, whole, "records of {size}");
            for cut in 0..bytes.len() {
                assert!(
                    matches!(client_hello(&bytes[..cut]), Err(Err::Incomplete(_))),
                    "records of {size}, cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn what_follows_the_last_record_is_left_alone() {
        let mut bytes = records(&message(&[sni(b"a")]), 1 << 14);
        bytes.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
        assert_eq!(client_hello(&bytes).unwrap().0, [20, 3, 3, 0, 1, 1]);
    }

    #[test]
    fn what_shares_the_last_record_is_refused() {
        let mut message = message(&[sni(b"a")]);
        message.push(0);
        assert_eq!(
            refused(&records(&message, 1 << 14)),
            TlsError::TrailingBytes {
                field: "ClientHello",
                extra: 1
            }
        );
    }

    #[test]
    fn a_hello_that_declares_too_much_is_refused_at_its_header() {
        let bytes = records(&[CLIENT_HELLO, 0xff, 0xff, 0xff], 1 << 14);
        assert_eq!(refused(&bytes), TlsError::TooLarge { limit: LIMIT });
    }

    #[test]
    fn a_hello_in_one_byte_records_ends_at_the_limit() {
        let message = message(&[extension(21, &vec![0; LIMIT / 2])]);
        let bytes = records(&message, 1);
        assert!(bytes.len() > LIMIT);
        assert_eq!(refused(&bytes), TlsError::TooLarge { limit: LIMIT });
        assert_eq!(
            refused(&bytes[..LIMIT]),
            TlsError::TooLarge { limit: LIMIT }
        );
        assert!(matches!(
            client_hello(&bytes[..LIMIT - 1]),
            Err(Err::Incomplete(_))
        ));
    }

    #[test]
    fn other_first_bytes_are_refused_at_once() {
        assert_eq!(refused(b"G"), TlsError::NotHandshake { content_type: b'G' });
        assert_eq!(refused(&[22, 2, 0]), TlsError::NotTls { major: 2 });
        assert_eq!(
            refused(&[22, 3, 1, 0, 0]),
            TlsError::RecordLength { length: 0 }
        );
        assert_eq!(
            refused(&[22, 3, 1, 0x40, 1]),
            TlsError::RecordLength { length: 0x4001 }
        );
        assert_eq!(
            refused(&records(&[2, 0, 0, 0], 9)),
            TlsError::NotClientHello { kind: 2 }
        );
    }

    #[test]
    fn an_extension_given_twice_is_refused() {
        let twice = message(&[sni(b"a"), offered(&[b"h2"]), sni(b"b")]);
        assert_eq!(
            refused(&records(&twice, 1 << 14)),
            TlsError::DuplicateExtension { kind: SERVER_NAME }
        );
    }

    #[test]
    fn a_server_name_that_is_no_host_name_is_refused() {
        for name in [&b"a\0b"[..], b"a b", b"\xff", b"a/b", &[b'a'; 256]] {
            assert_eq!(
                refused(&records(&message(&[sni(name)]), 1 << 14)),
                TlsError::ServerName
            );
        }
    }

    proptest! {
        #[test]
        fn corruption_never_panics_and_a_cut_never_succeeds_early(
            at in 0usize..200,
            with: u8,
            size in 1usize..300,
        ) {
            let mut bytes = records(&message(&[sni(b"db.internal"), offered(&[b"h2"])]), size);
            let at = at % bytes.len();
            bytes[at] = with;
            if let Ok((rest, _)) = client_hello(&bytes) {
                let used = bytes.len() - rest.len();
                prop_assert!(matches!(client_hello(&bytes[..used - 1]), Err(Err::Incomplete(_))));
            }
        }
    }
}

//! Content codings, opened as they come.
//!
//! What a body comes to is bounded twice: absolutely, and by how much it may
//! grow, so that a short body cannot keep the machine busy. What is over either
//! is no body but a bomb; the bound is checked before the bytes are kept.
//!
//! Spec: RFC 9110, section 8.4; RFC 1950 to 1952 (and the raw form of deflate,
//! which is what some send under that name), RFC 7932, RFC 8878, RFC 9659.

use std::io::{self, Write};

use ::http::header::{self, HeaderMap, HeaderValue};
use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as Zstd, Operation as _};

/// The codings that are opened, as `Accept-Encoding` has them.
pub const KNOWN: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// Codings of one body, one around the other.
const LAYERS: usize = 2;
/// Input that is opened before the bounds are asked about.
const SLICE: usize = 4 << 10;
/// How many times its size a body may come to.
const GROWTH: u64 = 250;
/// Up to this much it may grow as it likes.
const GROWTH_FREE: u64 = 1 << 20;
/// The largest window of zstd, as of RFC 9659: 8 MiB.
const WINDOW_LOG: u32 = 23;

/// Why a body could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// A coding that is not known.
    #[error("a content coding that is not known")]
    Unknown,
    /// Codings around codings.
    #[error("more than {LAYERS} content codings around each other")]
    TooManyLayers,
    /// It is not what its coding says, or is cut off.
    #[error("a body that is not in the coding that it says")]
    Damaged,
    /// It grows out of all proportion.
    #[error("a body that grows to more than it may")]
    Bomb,
}

impl CodingError {
    /// For [`interceptor_policy::operation::http::HttpBody::Unreadable`].
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Unknown => "its content coding is not known",
            Self::TooManyLayers => "it has too many content codings",
            Self::Damaged => "it is not in the content coding that it says",
            Self::Bomb => "it grows to more than it may",
        }
    }
}

/// Where opened bytes go.
#[derive(Debug, Default)]
struct Sink {
    bytes: Vec<u8>,
    room: u64,
    burst: bool,
}

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.room {
            self.burst = true;
            return Err(io::Error::other("over the bound"));
        }
        self.room -= buf.len() as u64;
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One coding.
enum Layer {
    Gzip(Box<MultiGzDecoder<Sink>>),
    /// Deflate whose first byte has not come: it tells which form it is.
    Deflate(Sink),
    Zlib(Box<ZlibDecoder<Sink>>),
    Raw(Box<DeflateDecoder<Sink>>),
    Brotli(Box<DecompressorWriter<Sink>>),
    Zstd(Box<(Zstd<'static>, Sink, bool)>),
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "gzip",
            Self::Deflate(_) | Self::Zlib(_) | Self::Raw(_) => "deflate",
            Self::Brotli(_) => "br",
            Self::Zstd(_) => "zstd",
        })
    }
}

impl Layer {
    fn new(name: &str) -> Result<Option<Self>, CodingError> {
        let sink = Sink::default();
        Ok(Some(match name {
            "" | "identity" => return Ok(None),
            "gzip" | "x-gzip" => Self::Gzip(Box::new(MultiGzDecoder::new(sink))),
            "deflate" => Self::Deflate(sink),
            "br" => Self::Brotli(Box::new(DecompressorWriter::new(sink, 16 << 10))),
            "zstd" => {
                let mut decoder = Zstd::new().map_err(|_| CodingError::Unknown)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
                    .map_err(|_| CodingError::Unknown)?;
                Self::Zstd(Box::new((decoder, sink, true)))
            }
            _ => return Err(CodingError::Unknown),
        }))
    }

    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(sink) => sink,
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Raw(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(zstd) => &mut zstd.1,
        }
    }

    fn write(&mut self, input: &[u8]) -> io::Result<()> {
        if let (Self::Deflate(sink), Some(first)) = (&mut *self, input.first()) {
            let sink = std::mem::take(sink);
            // RFC 1950: the method is 8, and the window at most 7.
            *self = if first & 0x8f == 0x08 {
                Self::Zlib(Box::new(ZlibDecoder::new(sink)))
            } else {
                Self::Raw(Box::new(DeflateDecoder::new(sink)))
            };
        }
        match self {
            Self::Gzip(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Deflate(_) => Ok(()),
            Self::Zlib(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Raw(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Zstd(zstd) => {
                let (decoder, sink, at_end) = &mut **zstd;
                open_zstd(decoder, sink, at_end, input)
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(_) => Ok(()),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Raw(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.close(),
            Self::Zstd(zstd) if zstd.2 => Ok(()),
            Self::Zstd(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn open_zstd(
    decoder: &mut Zstd<'static>,
    sink: &mut Sink,
    at_end: &mut bool,
    mut input: &[u8],
) -> io::Result<()> {
    if input.is_empty() {
        return Ok(());
    }
    let mut buffer = [0; 16 << 10];
    loop {
        let status = decoder.run_on_buffers(input, &mut buffer)?;
        input = input.get(status.bytes_read..).unwrap_or_default();
        sink.write_all(buffer.get(..status.bytes_written).unwrap_or_default())?;
        // Nothing remains of a frame; another may follow.
        *at_end = status.remaining == 0;
        let full = status.bytes_written == buffer.len();
        if input.is_empty() && !full {
            return Ok(());
        }
        if status.bytes_read == 0 && status.bytes_written == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Opens a body's codings.
#[derive(Debug)]
pub struct Decoder {
    /// The outermost first.
    layers: Vec<Layer>,
    limit: u64,
    taken: u64,
    given: u64,
}

impl Decoder {
    /// For what a head's `Content-Encoding` says; at most `limit` bytes come out.
    ///
    /// # Errors
    /// Where that cannot be opened.
    pub fn new(headers: &HeaderMap, limit: u64) -> Result<Self, CodingError> {
        let mut layers = Vec::new();
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let value = value.to_str().map_err(|_| CodingError::Unknown)?;
            for name in value.split(',') {
                if let Some(layer) = Layer::new(&name.trim().to_ascii_lowercase())? {
                    layers.push(layer);
                }
            }
        }
        if layers.len() > LAYERS {
            return Err(CodingError::TooManyLayers);
        }
        layers.reverse();
        Ok(Self {
            layers,
            limit,
            taken: 0,
            given: 0,
        })
    }

    /// For one coding, by its name.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(in crate::http) fn of(name: &str, limit: u64) -> Result<Self, CodingError> {
        Ok(Self {
            layers: Layer::new(name)?.into_iter().collect(),
            limit,
            taken: 0,
            given: 0,
        })
    }

    /// The most that may come out.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether the body is in no coding.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.layers.is_empty()
    }

    /// Opens the next bytes.
    ///
    /// # Errors
    /// Where they cannot be opened; nothing can be opened behind them.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        if self.layers.is_empty() {
            self.taken += input.len() as u64;
            return self.give(input, out);
        }
        for slice in input.chunks(SLICE) {
            self.taken += slice.len() as u64;
            self.through(slice, out)?;
        }
        Ok(())
    }

    /// How much may still come out.
    fn room(&self) -> u64 {
        let grown = GROWTH_FREE.max(self.taken.saturating_mul(GROWTH));
        grown.min(self.limit).saturating_sub(self.given)
    }

    fn through(&mut self, slice: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        let room = self.room();
        let mut bytes = slice.to_vec();
        for layer in &mut self.layers {
            layer.sink().room = room;
            let done = layer.write(&bytes);
            bytes = opened(layer, done)?;
        }
        self.give(&bytes, out)
    }

    fn give(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        if bytes.len() as u64 > self.room() {
            return Err(CodingError::Bomb);
        }
        self.given += bytes.len() as u64;
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// The body is over.
    ///
    /// # Errors
    /// Where it is cut off.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CodingError> {
        // No body at all is an empty one, in any coding.
        if self.taken == 0 {
            return Ok(());
        }
        let room = self.room();
        let mut bytes = Vec::new();
        for layer in &mut self.layers {
            layer.sink().room = room;
            let done = layer.write(&bytes).and_then(|()| layer.finish());
            bytes = opened(layer, done)?;
        }
        self.give(&bytes, out)
    }
}

fn opened(layer: &mut Layer, done: io::Result<()>) -> Result<Vec<u8>, CodingError> {
    let sink = layer.sink();
    match done {
        _ if sink.burst => Err(CodingError::Bomb),
        Err(_) => Err(CodingError::Damaged),
        Ok(()) => Ok(std::mem::take(&mut sink.bytes)),
    }
}

/// Leaves of `Accept-Encoding` what can be opened here.
pub(in crate::http) fn accept_known(headers: &mut HeaderMap) {
    let mut known = Vec::new();
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        let Ok(value) = value.to_str() else {
            continue;
        };
        known.extend(value.split(',').map(str::trim).filter(|item| {
            let name = item.split(';').next().unwrap_or_default().trim();
            let name = name.to_ascii_lowercase();
            name == "identity" || KNOWN.contains(&name.as_str())
        }));
    }
    let text = if known.is_empty() {
        "identity".to_owned()
    } else {
        known.join(", ")
    };
    // Without the field any coding would do.
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::ACCEPT_ENCODING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    const TEXT: &[u8] = b"The quick brown fox jumps over the lazy dog. ";

    fn headers(coding: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(coding).unwrap();
        headers.insert(header::CONTENT_ENCODING, value);
        headers
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn coded(coding: &str, bytes: &[u8]) -> Vec<u8> {
        match coding {
            "gzip" => gzip(bytes),
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "zstd" => zstd::encode_all(bytes, 3).unwrap(),
            "raw" => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => bytes.to_vec(),
        }
    }

    fn open(coding: &str, body: &[u8], piece: usize) -> Result<Vec<u8>, CodingError> {
        let mut decoder = Decoder::new(&headers(coding), 1 << 30)?;
        let mut out = Vec::new();
        for piece in body.chunks(piece) {
            decoder.push(piece, &mut out)?;
        }
        decoder.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_coding_opens_to_what_was_put_in_however_it_is_cut() {
        let text = TEXT.repeat(500);
        for coding in ["identity", "gzip", "deflate", "zstd"] {
            let body = coded(coding, &text);
            for piece in [1, 7, 1000, usize::MAX] {
                let opened = open(coding, &body, piece);
                assert_eq!(opened.as_deref(), Ok(&text[..]), "{coding} by {piece}");
            }
        }
        let raw = coded("raw", &text);
        assert_eq!(open("deflate", &raw, 10).as_deref(), Ok(&text[..]));
        let both = coded("zstd", &gzip(&text));
        assert_eq!(open("gzip, zstd", &both, 10).as_deref(), Ok(&text[..]));
    }

    #[test]
    fn brotli_opens() {
        // "hello" in an uncompressed meta-block, and the empty last one.
        let body = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(open("br", &body, 1).as_deref(), Ok(&b"hello"[..]));
        assert_eq!(open("br", &body[..6], 1), Err(CodingError::Damaged));
    }

    #[test]
    fn a_second_member_of_gzip_is_opened_too() {
        let body = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(open("gzip", &body, 3).as_deref(), Ok(&b"one two"[..]));
        let zstd = [coded("zstd", b"one "), coded("zstd", b"two")].concat();
        assert_eq!(open("zstd", &zstd, 3).as_deref(), Ok(&b"one two"[..]));
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_told() {
        for coding in ["gzip", "deflate", "zstd"] {
            let body = coded(coding, &TEXT.repeat(50));
            let cut = &body[..body.len() - 1];
            assert_eq!(
                open(coding, cut, 100),
                Err(CodingError::Damaged),
                "{coding}"
            );
            let other = b"this is not it, and never was";
            assert_eq!(open(coding, other, 100), Err(CodingError::Damaged));
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_kept() {
        let zeros = vec![0; 64 << 20];
        for coding in ["gzip", "deflate", "zstd"] {
            let body = coded(coding, &zeros);
            let mut decoder = Decoder::new(&headers(coding), 1 << 30).unwrap();
            let mut out = Vec::new();
            let pushed = body
                .chunks(1000)
                .try_for_each(|piece| decoder.push(piece, &mut out));
            assert_eq!(pushed, Err(CodingError::Bomb), "{coding}");
            assert!(out.len() < 40 << 20, "{coding}: {}", out.len());
        }
        let twice = gzip(&gzip(&zeros));
        assert_eq!(open("gzip, gzip", &twice, 1000), Err(CodingError::Bomb));
    }

    #[test]
    fn a_bomb_of_brotli_is_refused_as_well() {
        // 64 MiB of zeros.
        let body = hex::decode(concat!(
            "cbffff3ff82700e2b14020f7fe8fffff7ff04f00c4611180eefd1fffffffe09f0088c30200ddfb3ffeffffc13f011087",
            "0500baf77ffcffff837f02200e0b0074effff8ffff07ff04401c1600e8defff1ffff0ffe0980382c00d0bdffcbffff3ffc1300715800a07bff07"
        ))
        .unwrap();
        for piece in [1, 10, 106] {
            let mut decoder = Decoder::new(&headers("br"), 1 << 30).unwrap();
            let mut out = Vec::new();
            let pushed = body
                .chunks(piece)
                .try_for_each(|piece| decoder.push(piece, &mut out));
            assert_eq!(pushed, Err(CodingError::Bomb), "by {piece}");
            assert!(out.len() <= 1 << 20, "{}", out.len());
        }
    }

    #[test]
    fn the_absolute_bound_holds_as_well() {
        let mut decoder = Decoder::new(&headers("gzip"), 1000).unwrap();
        let mut out = Vec::new();
        let body = gzip(&TEXT.repeat(100));
        assert_eq!(decoder.push(&body, &mut out), Err(CodingError::Bomb));
        let mut plain = Decoder::new(&HeaderMap::new(), 1000).unwrap();
        assert_eq!(plain.push(&[0; 1001], &mut out), Err(CodingError::Bomb));
    }

    #[test]
    fn what_is_not_known_is_not_opened() {
        for coding in ["compress", "gzip, x", "gzip, gzip, gzip"] {
            assert!(Decoder::new(&headers(coding), 1).is_err(), "{coding}");
        }
    }

    #[test]
    fn only_codings_that_can_be_opened_are_asked_for() {
        for (asked, left) in [
            ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
            ("dcb, gzip;q=0.5, *", "gzip;q=0.5"),
            ("compress", "identity"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(asked));
            accept_known(&mut headers);
            assert_eq!(headers.get(header::ACCEPT_ENCODING).unwrap(), left);
        }
    }
}

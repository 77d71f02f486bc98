//! What must hold for bodies in content codings.
//!
//! The oracles are the libraries' other ends: readers in the place of writers.

use std::io::Read;

use ::http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};

use crate::http::body::coding::{CodingError, Decoder};

/// Most that may come out here.
const LIMIT: u64 = 256 << 10;
const CODINGS: [&str; 6] = ["gzip", "deflate", "br", "zstd", "gzip, br", "zstd, deflate"];

/// Opens a body; its first byte says in which coding.
///
/// What is opened is the same however it is cut, is what another reader makes of it,
/// and is never more than it may be.
pub fn content_coding(input: &[u8]) {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let Some(coding) = CODINGS.get(usize::from(*first) % CODINGS.len()) else {
        return;
    };
    let whole = open(coding, body, usize::MAX);
    for size in [1, 7, 1000] {
        let cut = open(coding, body, size);
        // Which fault is found first depends on what was asked when.
        assert_eq!(cut.as_ref().ok(), whole.as_ref().ok());
    }
    let Ok(opened) = whole else {
        return;
    };
    if body.is_empty() {
        return;
    }
    let raw = body.first().is_some_and(|first| first & 0x8f != 0x08);
    let other = match *coding {
        "gzip" => read(flate2::read::MultiGzDecoder::new(body)),
        "deflate" if raw => read(flate2::read::DeflateDecoder::new(body)),
        "deflate" => read(flate2::read::ZlibDecoder::new(body)),
        "br" => read(brotli_decompressor::Decompressor::new(body, 4096)),
        "zstd" => zstd::stream::read::Decoder::new(body).map_or(None, read),
        _ => return,
    };
    assert_eq!(other, Some(opened));
}

fn open(coding: &str, body: &[u8], size: usize) -> Result<Vec<u8>, CodingError> {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(coding) {
        headers.insert(CONTENT_ENCODING, value);
    }
    let mut decoder = Decoder::new(&headers, LIMIT)?;
    let mut out = Vec::new();
    let mut done = body
        .chunks(size)
        .try_for_each(|piece| decoder.push(piece, &mut out));
    if done.is_ok() {
        done = decoder.finish(&mut out);
    }
    assert!(out.len() as u64 <= LIMIT);
    done.map(|()| out)
}

/// All of it, or nothing where it cannot be read.
fn read(reader: impl Read) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let read = reader.take(LIMIT + 1).read_to_end(&mut out);
    read.is_ok().then_some(out)
}

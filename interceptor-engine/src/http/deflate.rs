//! Compressed messages of a WebSocket: which form is agreed on, and how they are
//! opened and written.
//!
//! The agent's offer goes on with what can be opened here, and without any other
//! extension; what the service agrees to holds for both legs, so that frames in
//! which nothing is changed go on as they are. A side's later messages may refer to
//! its earlier ones ("context takeover"), so every compressed message is opened, in
//! order, whether a rule asks for it or not.
//!
//! A message of ours never refers to another. One towards a reader with a smaller
//! window than 32 KiB is sent uncompressed, which any message may be: the compressor
//! here has no other window.
//!
//! Refused, since readers differ in what they make of it: a message that ends its
//! stream of deflate where later ones may refer to it.
//!
//! Spec: RFC 7692; RFC 1951.

use ::http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

const NAME: &str = "permessage-deflate";
/// What a sender leaves off the end of every message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The window that both libraries have: 32 KiB.
const WINDOW_BITS: u8 = 15;
/// How many times its size a message may come to.
const GROWTH: u64 = 250;
/// Up to this much it may grow as it likes.
const GROWTH_FREE: u64 = 1 << 20;
/// Shorter messages of ours are not worth compressing.
const SHORT: usize = 64;

/// How one side compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Whether its messages may refer to its earlier ones.
    pub(super) takeover: bool,
    /// How far they may refer back, as a power of two.
    window_bits: u8,
}

impl Way {
    /// A message in this form; `None` where it is better sent as it is.
    pub(super) fn deflated(self, payload: &[u8]) -> Option<Vec<u8>> {
        if self.window_bits < WINDOW_BITS || payload.len() < SHORT {
            return None;
        }
        let mut compress = Compress::new(Compression::fast(), false);
        let mut out = Vec::with_capacity(payload.len() / 2 + SHORT);
        loop {
            let used = usize::try_from(compress.total_in()).ok()?;
            let rest = payload.get(used..)?;
            let status = compress.compress_vec(rest, &mut out, FlushCompress::Sync);
            match status {
                Ok(Status::Ok | Status::BufError) if out.len() == out.capacity() => {
                    out.reserve(payload.len() / 2 + SHORT);
                }
                Ok(Status::Ok | Status::BufError)
                    if compress.total_in() == payload.len() as u64 =>
                {
                    break;
                }
                _ => return None,
            }
        }
        let end = out.len().checked_sub(TAIL.len())?;
        (out.get(end..)? == TAIL).then(|| {
            out.truncate(end);
            out
        })
    }
}

/// One offer, or the answer to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parameters {
    agent_fresh: bool,
    service_fresh: bool,
    service_bits: Option<u8>,
    /// Named, and with which value.
    agent_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None` where it is another extension, or has a parameter that is not known,
    /// wrong or there twice.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut read = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(bits(value)?)),
                None => (part, None),
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("client_no_context_takeover", None) if !read.agent_fresh => {
                    read.agent_fresh = true;
                }
                ("server_no_context_takeover", None) if !read.service_fresh => {
                    read.service_fresh = true;
                }
                ("server_max_window_bits", Some(bits)) if read.service_bits.is_none() => {
                    read.service_bits = Some(bits);
                }
                ("client_max_window_bits", value) if read.agent_bits.is_none() => {
                    read.agent_bits = Some(value);
                }
                _ => return None,
            }
        }
        Some(read)
    }

    fn written(self) -> String {
        let mut text = NAME.to_owned();
        if self.agent_fresh {
            text.push_str("; client_no_context_takeover");
        }
        if self.service_fresh {
            text.push_str("; server_no_context_takeover");
        }
        if let Some(bits) = self.service_bits {
            text.push_str(&format!("; server_max_window_bits={bits}"));
        }
        match self.agent_bits {
            Some(Some(bits)) => text.push_str(&format!("; client_max_window_bits={bits}")),
            Some(None) => text.push_str("; client_max_window_bits"),
            None => {}
        }
        text
    }
}

/// 8 to 15, in a string's quotes or not.
fn bits(value: &str) -> Option<u8> {
    let value = value.trim();
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match inner.unwrap_or(value) {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// The elements of the field; `None` where one is not even text.
fn elements(headers: &HeaderMap) -> Option<Vec<&str>> {
    let mut elements = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let value = value.to_str().ok()?;
        let named = value.split(',').map(str::trim);
        elements.extend(named.filter(|one| !one.is_empty()));
    }
    Some(elements)
}

/// Leaves of an offer what can be opened here; whether anything is left.
pub(super) fn keep_known(headers: &mut HeaderMap) -> bool {
    let known: Vec<String> = elements(headers)
        .unwrap_or_default()
        .into_iter()
        .filter_map(Parameters::read)
        .map(Parameters::written)
        .collect();
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    match HeaderValue::from_str(&known.join(", ")) {
        Ok(value) if !known.is_empty() => {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, value);
            true
        }
        _ => false,
    }
}

/// What the service agreed to: how the agent's side compresses, and how its own.
pub(super) fn agreed(headers: &HeaderMap, offered: bool) -> Result<Option<[Way; 2]>, &'static str> {
    let elements = elements(headers).ok_or("an extension of WebSocket that cannot be read")?;
    match elements.as_slice() {
        [] => Ok(None),
        [one] if offered => {
            let read = Parameters::read(one)
                .filter(|read| read.agent_bits != Some(None))
                .ok_or("an extension of WebSocket that cannot be read")?;
            let way = |fresh: bool, bits: Option<u8>| Way {
                takeover: !fresh,
                window_bits: bits.unwrap_or(WINDOW_BITS),
            };
            Ok(Some([
                way(read.agent_fresh, read.agent_bits.flatten()),
                way(read.service_fresh, read.service_bits),
            ]))
        }
        _ => Err("an extension of WebSocket that nobody asked for"),
    }
}

/// Why a compressed message could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeflateError {
    /// It is not in the form that it says.
    #[error("a compressed message that cannot be opened")]
    Damaged,
    /// It grows out of all proportion.
    #[error("a compressed message that grows to more than it may")]
    Bomb,
}

/// Opens one side's messages.
#[derive(Debug)]
pub(super) struct Inflater {
    state: Decompress,
    way: Way,
    /// Of the message under way.
    taken: u64,
    given: u64,
    /// Its stream of deflate is over, and what came behind that.
    over: Option<Vec<u8>>,
}

impl Inflater {
    pub(super) fn new(way: Way) -> Self {
        Self {
            state: Decompress::new(false),
            way,
            taken: 0,
            given: 0,
            over: None,
        }
    }

    /// More of a message. Behind `keep` bytes of `out` nothing more is put there.
    pub(super) fn push(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        keep: usize,
    ) -> Result<(), DeflateError> {
        let mut buffer = [0; 16 << 10];
        self.taken += input.len() as u64;
        loop {
            if let Some(behind) = &mut self.over {
                behind.extend_from_slice(input.get(..8).unwrap_or(input));
                // The one byte that a sender adds there (RFC 7692, section 7.2.3.4),
                // and the end that every message gets here.
                const BEHIND: [u8; 5] = [0, 0, 0, 0xff, 0xff];
                let fine = BEHIND.starts_with(behind) || *behind == TAIL;
                return if fine {
                    Ok(())
                } else {
                    Err(DeflateError::Damaged)
                };
            }
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(input, &mut buffer, FlushDecompress::None)
                .map_err(|_| DeflateError::Damaged)?;
            let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.state.total_out() - written).unwrap_or(usize::MAX);
            input = input.get(read..).unwrap_or_default();
            self.given += written as u64;
            if self.given > GROWTH_FREE.max(self.taken.saturating_mul(GROWTH)) {
                return Err(DeflateError::Bomb);
            }
            if out.len() <= keep {
                out.extend_from_slice(buffer.get(..written).unwrap_or_default());
            }
            if status == Status::StreamEnd {
                if self.way.takeover {
                    return Err(DeflateError::Damaged);
                }
                self.over = Some(Vec::new());
            } else if input.is_empty() && written < buffer.len() {
                return Ok(());
            } else if read == 0 && written == 0 {
                return Err(DeflateError::Damaged);
            }
        }
    }

    /// The message is whole.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, keep: usize) -> Result<(), DeflateError> {
        self.push(&TAIL, out, keep)?;
        if !self.way.takeover {
            self.state.reset(false);
        }
        self.over = None;
        (self.taken, self.given) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Way = Way {
        takeover: true,
        window_bits: 15,
    };
    const FRESH: Way = Way {
        takeover: false,
        window_bits: 15,
    };

    fn opened(inflater: &mut Inflater, bytes: &[u8]) -> Result<Vec<u8>, DeflateError> {
        let mut out = Vec::new();
        for byte in bytes {
            inflater.push(&[*byte], &mut out, 1 << 20)?;
        }
        inflater.end(&mut out, 1 << 20)?;
        Ok(out)
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap());
        headers
    }

    #[test]
    fn an_offer_keeps_what_can_be_opened_and_nothing_else() {
        for (offer, kept) in [
            ("permessage-deflate", Some("permessage-deflate")),
            (
                "permessage-deflate; client_max_window_bits; server_max_window_bits=\"10\"",
                Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits"),
            ),
            (
                "x-other, Permessage-Deflate;server_no_context_takeover, permessage-deflate",
                Some("permessage-deflate; server_no_context_takeover, permessage-deflate"),
            ),
            ("permessage-deflate; x=1", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=08", None),
            ("permessage-deflate; server_max_window_bits", None),
            (
                "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
                None,
            ),
            ("x-webkit-deflate-frame", None),
        ] {
            let mut headers = headers(offer);
            assert_eq!(keep_known(&mut headers), kept.is_some(), "{offer}");
            let now = headers.get(SEC_WEBSOCKET_EXTENSIONS);
            assert_eq!(now.map(|value| value.to_str().unwrap()), kept, "{offer}");
        }
    }

    #[test]
    fn what_is_agreed_holds_for_each_side_by_itself() {
        let read = |value: &str| agreed(&headers(value), true);
        assert_eq!(read("permessage-deflate"), Ok(Some([WHOLE, WHOLE])));
        let ways = read("permessage-deflate; client_no_context_takeover; server_max_window_bits=9");
        let small = Way {
            takeover: true,
            window_bits: 9,
        };
        assert_eq!(ways, Ok(Some([FRESH, small])));
        assert!(read("permessage-deflate; client_max_window_bits").is_err());
        assert!(read("permessage-deflate, permessage-deflate").is_err());
        assert!(read("x-other").is_err());
        assert!(agreed(&headers("permessage-deflate"), false).is_err());
        assert_eq!(agreed(&HeaderMap::new(), true), Ok(None));
    }

    #[test]
    fn the_examples_of_the_specification_are_opened() {
        // Section 7.2.3.1, and 7.2.3.2: the second refers to the first.
        let first = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
        let mut inflater = Inflater::new(WHOLE);
        assert_eq!(opened(&mut inflater, &first), Ok(b"Hello".to_vec()));
        assert_eq!(opened(&mut inflater, &second), Ok(b"Hello".to_vec()));
        // Section 7.2.3.3 (stored) and 7.2.3.5 (two blocks).
        let stored = [
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ];
        assert_eq!(opened(&mut inflater, &stored), Ok(b"Hello".to_vec()));
        let two = [
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ];
        assert_eq!(opened(&mut inflater, &two), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn a_stream_may_end_only_where_nothing_refers_to_it() {
        // Section 7.2.3.4.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let mut inflater = Inflater::new(FRESH);
        for _ in 0..2 {
            assert_eq!(opened(&mut inflater, &last), Ok(b"Hello".to_vec()));
        }
        let twice = [&last[..7], &last[..]].concat();
        assert_eq!(opened(&mut inflater, &twice), Err(DeflateError::Damaged));
        let mut inflater = Inflater::new(WHOLE);
        assert_eq!(opened(&mut inflater, &last), Err(DeflateError::Damaged));
    }

    #[test]
    fn what_is_written_is_opened_again_at_any_length() {
        for length in [SHORT, 1000, 40_000, 300_000] {
            let text: Vec<u8> = (0..length).map(|i| ((i * i) >> 7) as u8).collect();
            let deflated = WHOLE.deflated(&text).unwrap();
            let mut inflater = Inflater::new(WHOLE);
            assert_eq!(opened(&mut inflater, &deflated), Ok(text.clone()));
            assert_eq!(opened(&mut inflater, &deflated), Ok(text));
        }
        let small = Way {
            takeover: true,
            window_bits: 14,
        };
        assert_eq!(small.deflated(&[b'x'; 1000]), None);
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_kept() {
        let mut state = Compress::new(Compression::best(), false);
        let mut bomb = Vec::with_capacity(1 << 20);
        let zeros = vec![0; 64 << 20];
        let done = state.compress_vec(&zeros, &mut bomb, FlushCompress::Sync);
        done.unwrap();
        let mut inflater = Inflater::new(WHOLE);
        let mut out = Vec::new();
        let done = inflater.push(&bomb, &mut out, 1 << 20);
        assert_eq!(done, Err(DeflateError::Bomb));
        assert!(out.len() <= (1 << 20) + (16 << 10), "{}", out.len());
    }
}

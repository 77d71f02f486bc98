//! Messages of a WebSocket: put together, judged, masked, recorded.
//!
//! A message goes on when all of it was judged; control frames go on at once. The
//! only extension that may be agreed on is permessage-deflate
//! ([`super::deflate`]): a message's payload is what it opens to. A message that
//! rules refuse closes the WebSocket with status 1008, to both sides.
//!
//! Spec: RFC 6455, sections 5 and 7; RFC 7692.

use interceptor_proto::http::websocket::{self as wire, FrameError, FrameHead, Opcode};

use super::deflate::{DeflateError, Inflater, Way};

/// What came of one side's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A ping, a pong or the end, as it was sent.
    Control {
        /// Which.
        opcode: Opcode,
        /// The frame.
        raw: Vec<u8>,
    },
    /// A whole message.
    Message {
        /// Whether it says that it is text.
        text: bool,
        /// Whether it was sent compressed.
        compressed: bool,
        /// What it says, opened.
        payload: Vec<u8>,
        /// The frames.
        raw: Vec<u8>,
    },
    /// The beginning of a message that is too long to be kept.
    Long {
        /// Whether it says that it is text.
        text: bool,
        /// Whether it is sent compressed.
        compressed: bool,
        /// The frames so far.
        raw: Vec<u8>,
    },
    /// More of it.
    Rest(Vec<u8>),
}

/// Why bytes are no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SocketError {
    /// A frame that is none.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A continuation of nothing, or a message inside another.
    #[error("frames that make no message")]
    Order,
    /// Anything behind the end.
    #[error("a frame behind the one that closes")]
    Closed,
    /// A compressed message that cannot be opened.
    #[error("{0}")]
    Deflate(#[from] DeflateError),
}

impl SocketError {
    /// The status that closes a WebSocket for it.
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Deflate(DeflateError::Bomb) => wire::TOO_BIG,
            Self::Deflate(_) => wire::INVALID_PAYLOAD,
            _ => wire::PROTOCOL_ERROR,
        }
    }
}

/// A message that is not whole.
#[derive(Debug, Default)]
struct Message {
    text: bool,
    compressed: bool,
    payload: Vec<u8>,
    raw: Vec<u8>,
    /// It was too long, and goes on as it comes.
    long: bool,
}

/// Reads one side.
#[derive(Debug)]
pub(super) struct Reader {
    masked: bool,
    limit: usize,
    buffer: Vec<u8>,
    message: Option<Message>,
    /// Opens what is compressed, where that was agreed on.
    inflater: Option<Inflater>,
    /// The data frame that is being read, and how much of its payload has come.
    frame: Option<(FrameHead, u64)>,
    closed: bool,
}

impl Reader {
    /// `from_agent`: its frames are masked. A message of more than `limit` bytes
    /// is not kept. `deflate`: how this side compresses.
    pub(super) fn new(from_agent: bool, limit: usize, deflate: Option<Way>) -> Self {
        Self {
            masked: from_agent,
            limit,
            buffer: Vec::new(),
            message: None,
            inflater: deflate.map(Inflater::new),
            frame: None,
            closed: false,
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<Read>) -> Result<(), SocketError> {
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(step) = self.step(used, out)? {
            used += step;
        }
        self.buffer.drain(..used);
        Ok(())
    }

    /// Uses up some of the buffer from `at` on; `None` where more must come.
    fn step(&mut self, at: usize, out: &mut Vec<Read>) -> Result<Option<usize>, SocketError> {
        let rest = self.buffer.get(at..).unwrap_or_default();
        if let Some((head, seen)) = self.frame {
            let left = usize::try_from(head.length - seen).unwrap_or(usize::MAX);
            let now = left.min(rest.len());
            if now == 0 && left > 0 {
                return Ok(None);
            }
            let payload = rest.get(..now).unwrap_or_default().to_vec();
            self.data(head, seen, payload, out)?;
            return Ok(Some(now));
        }
        let Some(head) = wire::head_with(rest, self.masked, self.inflater.is_some())? else {
            return Ok(None);
        };
        if self.closed {
            return Err(SocketError::Closed);
        }
        if head.opcode.is_control() {
            let whole = head.head + usize::try_from(head.length).unwrap_or_default();
            let Some(raw) = rest.get(..whole) else {
                return Ok(None);
            };
            self.closed = head.opcode == Opcode::Close;
            out.push(Read::Control {
                opcode: head.opcode,
                raw: raw.to_vec(),
            });
            return Ok(Some(whole));
        }
        match (head.opcode, &mut self.message) {
            (Opcode::Continuation, Some(_)) => {}
            (Opcode::Text | Opcode::Binary, empty @ None) => {
                *empty = Some(Message {
                    text: head.opcode == Opcode::Text,
                    compressed: head.compressed,
                    ..Message::default()
                });
            }
            _ => return Err(SocketError::Order),
        }
        let raw = rest.get(..head.head).unwrap_or_default().to_vec();
        if let Some(message) = &mut self.message {
            if message.long {
                out.push(Read::Rest(raw));
            } else {
                message.raw.extend_from_slice(&raw);
            }
        }
        self.frame = Some((head, 0));
        Ok(Some(head.head))
    }

    /// More of a data frame's payload.
    fn data(
        &mut self,
        head: FrameHead,
        seen: u64,
        mut payload: Vec<u8>,
        out: &mut Vec<Read>,
    ) -> Result<(), SocketError> {
        let Some(message) = &mut self.message else {
            return Ok(());
        };
        let total = seen + payload.len() as u64;
        let ends = total >= head.length && head.last;
        if message.long {
            if !payload.is_empty() {
                out.push(Read::Rest(payload.clone()));
            }
        } else {
            message.raw.extend_from_slice(&payload);
        }
        if !message.long || message.compressed {
            if let Some(mask) = head.mask {
                wire::unmask(&mut payload, mask, seen);
            }
            match &mut self.inflater {
                // What is too long is opened all the same: later messages may refer to it.
                Some(inflater) if message.compressed => {
                    inflater.push(&payload, &mut message.payload, self.limit)?;
                    if ends {
                        inflater.end(&mut message.payload, self.limit)?;
                    }
                }
                _ => message.payload.append(&mut payload),
            }
        }
        if message.long {
            message.payload.clear();
        } else if message.payload.len() > self.limit
            // Of nothing but heads.
            || message.raw.len() > self.limit.saturating_mul(2).saturating_add(wire::HEAD_LIMIT)
        {
            message.long = true;
            message.payload = Vec::new();
            out.push(Read::Long {
                text: message.text,
                compressed: message.compressed,
                raw: std::mem::take(&mut message.raw),
            });
        }
        if total < head.length {
            self.frame = Some((head, total));
            return Ok(());
        }
        self.frame = None;
        if head.last
            && let Some(message) = self.message.take()
            && !message.long
        {
            out.push(Read::Message {
                text: message.text,
                compressed: message.compressed,
                payload: message.payload,
                raw: message.raw,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(last: bool, number: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = Vec::new();
        wire::encode(Opcode::Text, payload, mask, &mut out);
        out[0] = u8::from(last) << 7 | number;
        out
    }

    fn read(bytes: &[u8], piece: usize, limit: usize) -> (Vec<Read>, Result<(), SocketError>) {
        let mut reader = Reader::new(true, limit, None);
        let mut out = Vec::new();
        let done = bytes
            .chunks(piece)
            .try_for_each(|piece| reader.push(piece, &mut out));
        (out, done)
    }

    const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

    #[test]
    fn a_message_in_parts_is_one_message_and_a_ping_between_them_goes_first() {
        let bytes = [
            frame(false, 1, b"hel", MASK),
            frame(true, 9, b"?", MASK),
            frame(true, 0, b"lo", MASK),
        ]
        .concat();
        for piece in 1..=bytes.len() {
            let (out, done) = read(&bytes, piece, 100);
            assert_eq!(done, Ok(()));
            assert!(matches!(
                out[0],
                Read::Control {
                    opcode: Opcode::Ping,
                    ..
                }
            ));
            let Read::Message {
                text, payload, raw, ..
            } = &out[1]
            else {
                panic!("{out:?}");
            };
            assert!(text);
            assert_eq!(payload, b"hello");
            let without_ping = [frame(false, 1, b"hel", MASK), frame(true, 0, b"lo", MASK)];
            assert_eq!(raw, &without_ping.concat());
        }
    }

    #[test]
    fn frames_that_make_no_message_are_refused() {
        for (bytes, error) in [
            (frame(true, 0, b"x", MASK), SocketError::Order),
            (
                [frame(false, 1, b"x", MASK), frame(true, 1, b"y", MASK)].concat(),
                SocketError::Order,
            ),
            (
                [frame(true, 8, b"", MASK), frame(true, 1, b"y", MASK)].concat(),
                SocketError::Closed,
            ),
            (frame(true, 1, b"x", None), FrameError::Mask.into()),
        ] {
            assert_eq!(read(&bytes, 100, 100).1, Err(error));
        }
    }

    proptest! {
        #[test]
        fn every_byte_of_a_message_comes_out_again_once_whatever_the_pieces(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
            piece in 1usize..50,
            limit in 0usize..200,
        ) {
            let last = parts.len() - 1;
            let bytes: Vec<u8> = parts.iter().enumerate().flat_map(|(index, part)| {
                frame(index == last, if index == 0 { 2 } else { 0 }, part, MASK)
            }).collect();
            let (out, done) = read(&bytes, piece, limit);
            prop_assert_eq!(done, Ok(()));
            let mut raw = Vec::new();
            for one in out {
                match one {
                    Read::Message { payload, raw: all, .. } => {
                        prop_assert_eq!(payload, parts.concat());
                        raw.extend(all);
                    }
                    Read::Long { raw: all, .. } | Read::Rest(all) => raw.extend(all),
                    Read::Control { .. } => prop_assert!(false),
                }
            }
            prop_assert_eq!(raw, bytes);
        }
    }
}

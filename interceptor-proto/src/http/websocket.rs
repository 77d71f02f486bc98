//! WebSocket frames.
//!
//! [`head`] reads what comes before a frame's payload, and may answer "not yet";
//! the payload is the caller's to cut, and [`unmask`] to read. Which frames make
//! a message is the caller's business too.
//!
//! Stricter than some readers: a length that could be written shorter is refused,
//! as RFC 6455 demands of who writes it.
//!
//! Spec: RFC 6455, section 5; RFC 7692, section 6 (the bit of compressed messages).

use nom::bytes::streaming::take;
use nom::number::streaming::{be_u8, be_u16, be_u64};
use nom::{Err, IResult, Parser as _};

/// Bytes of the longest head.
pub const HEAD_LIMIT: usize = 14;
/// Bytes of a control frame's payload.
pub const CONTROL_LIMIT: u64 = 125;

/// A status of a close frame: something that rules refuse (section 7.4.1).
pub const POLICY_VIOLATION: u16 = 1008;
/// A status of a close frame: what a peer sent is no WebSocket.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A status of a close frame: a message is not in the form that it says.
pub const INVALID_PAYLOAD: u16 = 1007;
/// A status of a close frame: a message is too big to be looked at.
pub const TOO_BIG: u16 = 1009;

/// The bit that says that a message is compressed.
const RSV1: u8 = 0x40;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that was begun.
    Continuation,
    /// Text.
    Text,
    /// Bytes.
    Binary,
    /// The end.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    /// Whether it may come between the frames of a message.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// What comes before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Whether the message ends with it.
    pub last: bool,
    /// Whether the message that begins with it is compressed (RFC 7692, section 6).
    pub compressed: bool,
    /// What it is.
    pub opcode: Opcode,
    /// With what its payload is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of its payload.
    pub length: u64,
    /// Bytes of the head itself.
    pub head: usize,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A bit that only an extension gives a meaning, and none was agreed on.
    #[error("a reserved bit is set in a frame")]
    Reserved,
    /// A kind of frame that is not known.
    #[error("unknown opcode {opcode}")]
    Opcode {
        /// Its number.
        opcode: u8,
    },
    /// A control frame that is too long or in several parts.
    #[error("a control frame of {length} bytes, or in parts")]
    Control {
        /// Bytes of its payload.
        length: u64,
    },
    /// A length that could be written shorter, or is over 63 bits.
    #[error("a frame's length is not written as it should be")]
    Length,
    /// A client masks, and a server does not.
    #[error("a frame that should be masked is not, or the other way round")]
    Mask,
}

/// Reads a frame's head; `masked`: it is from a client. `None`: more is needed.
///
/// # Errors
/// Why it is none.
pub fn head(input: &[u8], masked: bool) -> Result<Option<FrameHead>, FrameError> {
    head_with(input, masked, false)
}

/// As [`head`]; `deflate`: permessage-deflate was agreed on, so that a message may
/// say that it is compressed.
///
/// # Errors
/// Why it is none.
pub fn head_with(
    input: &[u8],
    masked: bool,
    deflate: bool,
) -> Result<Option<FrameHead>, FrameError> {
    match read(input) {
        Ok((rest, raw)) => {
            let used = input.len() - rest.len();
            check(raw, masked, deflate, used).map(Some)
        }
        Err(Err::Incomplete(_)) => Ok(None),
        // Nothing above fails otherwise.
        Err(_) => Err(FrameError::Length),
    }
}

type Raw = (u8, u8, u64, Option<[u8; 4]>);

fn read(input: &[u8]) -> IResult<&[u8], Raw, ()> {
    let (rest, (first, second)) = (be_u8, be_u8).parse(input)?;
    let (rest, length) = match second & 0x7f {
        126 => be_u16(rest).map(|(rest, length)| (rest, u64::from(length)))?,
        127 => be_u64(rest)?,
        short => (rest, u64::from(short)),
    };
    if second & 0x80 == 0 {
        return Ok((rest, (first, second, length, None)));
    }
    let (rest, mask) = take(4usize)(rest)?;
    Ok((rest, (first, second, length, mask.try_into().ok())))
}

fn check(raw: Raw, masked: bool, deflate: bool, head: usize) -> Result<FrameHead, FrameError> {
    let (first, second, length, mask) = raw;
    let number = first & 0x0f;
    let begins = matches!(Opcode::of(number), Some(Opcode::Text | Opcode::Binary));
    let compressed = first & 0x70 == RSV1 && deflate && begins;
    if first & 0x70 != 0 && !compressed {
        return Err(FrameError::Reserved);
    }
    let opcode = Opcode::of(number).ok_or(FrameError::Opcode { opcode: number })?;
    let last = first & 0x80 != 0;
    let shortest = match second & 0x7f {
        126 => length > 125,
        127 => length > u64::from(u16::MAX) && i64::try_from(length).is_ok(),
        _ => true,
    };
    if opcode.is_control() && (!last || length > CONTROL_LIMIT) {
        return Err(FrameError::Control { length });
    }
    if !shortest {
        return Err(FrameError::Length);
    }
    if mask.is_some() != masked {
        return Err(FrameError::Mask);
    }
    Ok(FrameHead {
        last,
        compressed,
        opcode,
        mask,
        length,
        head,
    })
}

/// Takes a mask off, or puts it on; `at` is where in the payload `bytes` begins.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], at: u64) {
    let start = usize::try_from(at % 4).unwrap_or_default();
    for (byte, key) in bytes.iter_mut().zip(mask.iter().cycle().skip(start)) {
        *byte ^= key;
    }
}

/// Writes a whole frame.
pub fn encode(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    out.push(0x80 | opcode.number());
    let flag = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => out.push(flag | u8::try_from(short).unwrap_or_default()),
        middle @ 126..=0xffff => {
            out.push(flag | 126);
            out.extend_from_slice(&u16::try_from(middle).unwrap_or_default().to_be_bytes());
        }
        long => {
            out.push(flag | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let Some(mask) = mask else {
        out.extend_from_slice(payload);
        return;
    };
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(payload) = out.get_mut(start..) {
        unmask(payload, mask, 0);
    }
}

/// Writes a whole frame of a compressed message.
pub fn encode_compressed(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let start = out.len();
    encode(opcode, payload, mask, out);
    if let Some(first) = out.get_mut(start) {
        *first |= RSV1;
    }
}

/// A close frame with a status and its reason.
pub fn encode_close(status: u16, reason: &str, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let mut payload = status.to_be_bytes().to_vec();
    let mut end = reason.len().min(CONTROL_LIMIT as usize - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    encode(Opcode::Close, &payload, mask, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_specification_are_read() {
        let hello = head(&[0x81, 0x05], false).unwrap().unwrap();
        assert_eq!(
            (hello.last, hello.opcode, hello.length, hello.head),
            (true, Opcode::Text, 5, 2)
        );
        let mut bytes = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let masked = head(&bytes, true).unwrap().unwrap();
        unmask(&mut bytes[6..], masked.mask.unwrap(), 0);
        assert_eq!(&bytes[6..], b"Hello");
        let long = head(&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], false)
            .unwrap()
            .unwrap();
        assert_eq!((long.opcode, long.length), (Opcode::Binary, 0x10000));
    }

    #[test]
    fn what_is_no_frame_is_refused_with_its_reason() {
        let cases: [(&[u8], bool, FrameError); 9] = [
            (&[0xc1, 0x00], false, FrameError::Reserved),
            (&[0x83, 0x00], false, FrameError::Opcode { opcode: 3 }),
            (&[0x09, 0x00], false, FrameError::Control { length: 0 }),
            (
                &[0x89, 0x7e, 0, 126],
                false,
                FrameError::Control { length: 126 },
            ),
            (&[0x82, 0x7e, 0, 125], false, FrameError::Length),
            (
                &[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                false,
                FrameError::Length,
            ),
            (
                &[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0],
                false,
                FrameError::Length,
            ),
            (&[0x82, 0x00], true, FrameError::Mask),
            (&[0x82, 0x80, 0, 0, 0, 0], false, FrameError::Mask),
        ];
        for (bytes, masked, error) in cases {
            assert_eq!(head(bytes, masked), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn only_the_first_frame_of_a_message_may_say_that_it_is_compressed() {
        let read = |first| head_with(&[first, 0], false, true).map(|head| head.unwrap().compressed);
        assert_eq!(read(0xc1), Ok(true));
        assert_eq!(read(0x42), Ok(true));
        assert_eq!(read(0x81), Ok(false));
        for first in [0xc0, 0xc8, 0xc9, 0xa1, 0xd1, 0xe1] {
            assert_eq!(read(first), Err(FrameError::Reserved), "{first:x}");
        }
        let mut out = Vec::new();
        encode_compressed(Opcode::Text, b"x", None, &mut out);
        assert_eq!(out, [0xc1, 1, b'x']);
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_at_a_character() {
        let mut out = Vec::new();
        encode_close(POLICY_VIOLATION, &"ä".repeat(100), None, &mut out);
        let read = head(&out, false).unwrap().unwrap();
        assert_eq!(read.opcode, Opcode::Close);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_at_any_cut(
            payload in prop::collection::vec(any::<u8>(), 0..70_000),
            mask: Option<[u8; 4]>,
            at in 0u64..9,
        ) {
            let mut out = Vec::new();
            encode(Opcode::Binary, &payload, mask, &mut out);
            let read = head(&out, mask.is_some()).unwrap().unwrap();
            prop_assert_eq!(read.length, payload.len() as u64);
            prop_assert_eq!(read.head + payload.len(), out.len());
            for cut in 0..read.head {
                prop_assert_eq!(head(&out[..cut], mask.is_some()), Ok(None));
            }
            if let Some(mask) = mask {
                let from = (at as usize).min(payload.len());
                let mut part = out[read.head + from..].to_vec();
                unmask(&mut part, mask, from as u64);
                prop_assert_eq!(&part[..], &payload[from..]);
            }
        }
    }
}

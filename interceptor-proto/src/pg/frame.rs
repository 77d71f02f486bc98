//! One tagged message cut off the front of a buffer.
//!
//! [`head`] is for the bulk path: it reads five bytes and lets the caller skip
//! over a body that nobody wants to read. [`frame`] is for messages that are to
//! be judged: it checks the declared length against a limit *before* it asks
//! for the body, so a peer cannot make the caller buffer without bound. Neither
//! looks at the tag.
//!
//! Format: PostgreSQL manual, page `protocol-overview`, section on messaging.

use nom::{
    Err, IResult, Parser,
    bytes::streaming::take,
    combinator::consumed,
    number::streaming::{be_u8, be_u32},
};

use super::PgError;

/// Bytes of tag and length.
pub const HEADER: usize = 5;

/// Bytes of the length field, which counts itself.
const LENGTH_FIELD: u32 = 4;

/// The longest length that PostgreSQL's signed field can say.
pub const LENGTH_MAX: u32 = i32::MAX as u32;

/// Tag and length of a message whose body may not have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What kind of message; see [`super::tag`].
    pub tag: u8,
    /// The declared length: counts itself, not the tag; at least 4.
    pub len: u32,
}

impl Head {
    /// Bytes of the whole frame, tag included.
    #[must_use]
    pub fn total(&self) -> usize {
        // 2^31 fits a usize on every target that has sockets.
        1 + self.len as usize
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body(&self) -> usize {
        self.total().saturating_sub(HEADER)
    }
}

/// Reads tag and length; `None` when fewer than five bytes are there.
///
/// # Errors
///
/// A length below 4, or one that PostgreSQL would read as negative.
pub fn head(input: &[u8]) -> Result<Option<Head>, PgError> {
    let Some(&[tag, a, b, c, d]) = input.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let len = checked(u32::from_be_bytes([a, b, c, d]))?;
    Ok(Some(Head { tag, len }))
}

/// One whole message, unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What kind of message; see [`super::tag`].
    pub tag: u8,
    /// What follows the length.
    pub body: &'a [u8],
    /// The very bytes, header included.
    pub raw: &'a [u8],
}

/// Cuts one message off; `Incomplete` until its last byte is there.
///
/// # Errors
///
/// `Failure` for a length below 4, a negative one, or one above `limit`
/// (compared with the declared length, as PostgreSQL does).
pub fn frame(input: &[u8], limit: u32) -> IResult<&[u8], Frame<'_>, PgError> {
    let (rest, (raw, (tag, body))) = consumed(|i| {
        let (i, tag) = be_u8(i)?;
        let (i, declared) = be_u32(i)?;
        let declared = checked(declared).map_err(Err::Failure)?;
        if declared > limit {
            return Err(Err::Failure(PgError::FrameTooLarge { declared, limit }));
        }
        let (i, body) = take(declared - LENGTH_FIELD)(i)?;
        Ok((i, (tag, body)))
    })
    .parse(input)?;
    Ok((rest, Frame { tag, body, raw }))
}

fn checked(declared: u32) -> Result<u32, PgError> {
    match declared {
        ..LENGTH_FIELD => Err(PgError::LengthTooShort { declared }),
        LENGTH_FIELD..=LENGTH_MAX => Ok(declared),
        _ => Err(PgError::LengthNegative { declared }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn lengths_no_message_can_have_are_refused_by_head_and_frame_alike() {
        for (declared, error) in [
            (0, PgError::LengthTooShort { declared: 0 }),
            (3, PgError::LengthTooShort { declared: 3 }),
            (1 << 31, PgError::LengthNegative { declared: 1 << 31 }),
            (u32::MAX, PgError::LengthNegative { declared: u32::MAX }),
        ] {
            let mut bytes = vec![b'Q'];
            bytes.extend_from_slice(&u32::to_be_bytes(declared));
            assert_eq!(head(&bytes), Err(error.clone()));
            assert_eq!(frame(&bytes, u32::MAX), Err(Err::Failure(error)));
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_body_arrives() {
        let bytes = [b'd', 0x7f, 0xff, 0xff, 0xff];
        let declared = 0x7fff_ffff;
        assert_eq!(
            frame(&bytes, 1 << 20),
            Err(Err::Failure(PgError::FrameTooLarge {
                declared,
                limit: 1 << 20
            }))
        );
        assert_eq!(head(&bytes).unwrap().unwrap().total(), 1 << 31);
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let bytes = message(b'Q', &[0; 6]);
        assert!(frame(&bytes, 10).is_ok());
        assert!(frame(&bytes, 9).is_err());
    }

    proptest! {
        #[test]
        fn a_frame_cut_anywhere_is_incomplete_and_whole_it_is_itself(
            tag: u8,
            body in prop::collection::vec(any::<u8>(), 0..200),
            after in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let raw = message(tag, &body);
            for cut in 0..raw.len() {
                prop_assert!(matches!(frame(&raw[..cut], 1 << 20), Err(Err::Incomplete(_))), "cut at {}", cut);
                prop_assert_eq!(head(&raw[..cut]).unwrap().is_some(), cut >= HEADER);
            }
            let bytes = [&raw[..], &after].concat();
            let (rest, got) = frame(&bytes, 1 << 20).unwrap();
            prop_assert_eq!(rest, &after[..]);
            prop_assert_eq!(got, Frame { tag, body: &body, raw: &raw });
            let head = head(&bytes).unwrap().unwrap();
            prop_assert_eq!(head.total(), raw.len());
            prop_assert_eq!(head.body(), body.len());
        }
    }
}

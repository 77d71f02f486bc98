//! Binary packets as they are before the key exchange, and a refusal as one.
//!
//! `uint32 packet_length, byte padding_length, payload, padding`, no MAC, blocks of
//! eight bytes. Spec: RFC 4253, sections 6 and 11.1.

use nom::bytes::streaming::take;
use nom::number::streaming::{be_u8, be_u32};
use nom::{Err, IResult, Parser as _};

use super::{SshError, string};

/// The longest packet that is read before the key exchange; RFC 4253 asks for
/// 35 000 bytes.
pub const LIMIT: u32 = 35_000;

/// `SSH_MSG_DISCONNECT`.
pub const DISCONNECT: u8 = 1;
/// `SSH_MSG_KEXINIT`.
pub const KEXINIT: u8 = 20;

/// `SSH_DISCONNECT_HOST_NOT_ALLOWED_TO_CONNECT`.
pub const NOT_ALLOWED: u32 = 1;
/// `SSH_DISCONNECT_PROTOCOL_ERROR`.
pub const PROTOCOL_ERROR: u32 = 2;
/// `SSH_DISCONNECT_PROTOCOL_VERSION_NOT_SUPPORTED`.
pub const VERSION_NOT_SUPPORTED: u32 = 8;
/// `SSH_DISCONNECT_HOST_KEY_NOT_VERIFIABLE`.
pub const HOST_KEY: u32 = 9;
/// `SSH_DISCONNECT_CONNECTION_LOST`.
pub const CONNECTION_LOST: u32 = 10;

/// One packet; its payload begins with the message's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The message's number.
    pub kind: u8,
    /// What follows it.
    pub body: &'a [u8],
}

/// Cuts one packet off the front.
///
/// # Errors
/// `Incomplete` while it is not whole; a failure when it cannot become a packet.
pub fn packet(input: &[u8]) -> IResult<&[u8], Packet<'_>, SshError> {
    let (rest, length) = be_u32(input)?;
    // Twelve: one block of eight and what padding must be there, less the length.
    if !(12..=LIMIT).contains(&length) || (length + 4) % 8 != 0 {
        let limit = LIMIT;
        return Err(Err::Failure(SshError::Length { length, limit }));
    }
    let (rest, padding) = be_u8(rest)?;
    let Some(payload) = (length - 1)
        .checked_sub(u32::from(padding))
        .filter(|payload| *payload >= 1 && padding >= 4)
    else {
        return Err(Err::Failure(SshError::Padding { padding, length }));
    };
    let (rest, (payload, _)) = (take(payload), take(padding)).parse(rest)?;
    let (kind, body) = payload.split_first().unwrap_or((&0, &[]));
    Ok((rest, Packet { kind: *kind, body }))
}

/// Why a peer breaks off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// The reason's number (RFC 4253, section 11.1).
    pub reason: u32,
    /// In words; for people.
    pub description: String,
}

impl Disconnect {
    /// Reads the body of a [`DISCONNECT`].
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(body: &[u8]) -> Result<Self, SshError> {
        let malformed = |_| SshError::Malformed { kind: DISCONNECT };
        let (rest, reason) =
            nom::number::complete::be_u32::<_, SshError>(body).map_err(malformed)?;
        let (_, description) = string(rest).map_err(malformed)?;
        Ok(Self {
            reason,
            description: String::from_utf8_lossy(description).into_owned(),
        })
    }

    /// As a packet, for a connection whose keys were not exchanged.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let description = self.description.as_bytes();
        let description = description.get(..1024).unwrap_or(description);
        let mut payload = vec![DISCONNECT];
        payload.extend(self.reason.to_be_bytes());
        payload.extend(u32::try_from(description.len()).unwrap_or(0).to_be_bytes());
        payload.extend(description);
        // The language, of which nothing is said.
        payload.extend([0; 4]);
        frame(&payload)
    }
}

/// A payload as a packet.
fn frame(payload: &[u8]) -> Vec<u8> {
    let unpadded = 4 + 1 + payload.len();
    let padding = match 8 - unpadded % 8 {
        short @ 0..4 => short + 8,
        enough => enough,
    };
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or(u32::MAX);
    let mut packet = Vec::with_capacity(unpadded + padding);
    packet.extend(length.to_be_bytes());
    packet.push(u8::try_from(padding).unwrap_or(u8::MAX));
    packet.extend(payload);
    packet.resize(unpadded + padding, 0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_back_whatever_its_length() {
        for length in 0..64 {
            let refusal = Disconnect {
                reason: HOST_KEY,
                description: "x".repeat(length),
            };
            let bytes = refusal.encode();
            let (rest, packet) = packet(&bytes).unwrap();
            assert!(rest.is_empty());
            assert_eq!(packet.kind, DISCONNECT);
            assert_eq!(Disconnect::parse(packet.body), Ok(refusal));
        }
    }

    #[test]
    fn a_cut_packet_is_waited_for() {
        let whole = frame(&[KEXINIT, 1, 2, 3]);
        for cut in 0..whole.len() {
            assert!(matches!(
                packet(whole.get(..cut).unwrap()),
                Err(Err::Incomplete(_))
            ));
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_is_waited_for() {
        for length in [0u32, 5, 11, 13, LIMIT + 1, u32::MAX] {
            assert!(matches!(
                packet(&length.to_be_bytes()),
                Err(Err::Failure(SshError::Length { .. }))
            ));
        }
        let mut packet_ = frame(&[KEXINIT]);
        *packet_.get_mut(4).unwrap() = 200;
        assert!(matches!(
            packet(&packet_),
            Err(Err::Failure(SshError::Padding { .. }))
        ));
        *packet_.get_mut(4).unwrap() = 3;
        assert!(matches!(
            packet(&packet_),
            Err(Err::Failure(SshError::Padding { .. }))
        ));
    }
}

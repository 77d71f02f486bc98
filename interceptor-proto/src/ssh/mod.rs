//! SSH before it is encrypted, and the file transfer protocol inside it.
//!
//! * [`identification`]: the line that each side begins with;
//! * [`packet`]: binary packets as they are before the key exchange, enough to
//!   read what a peer says then and to tell one in SSH's own words why it is
//!   refused;
//! * [`sftp`]: version 3 of the file transfer protocol, which every server and
//!   client speaks.
//!
//! What is encrypted is opened by a library, and none of it is here; no state is
//! kept. Byte layouts below are all big endian.
//!
//! Spec: RFC 4251 (data types), RFC 4253 (transport),
//! draft-ietf-secsh-filexfer-02 (SFTP version 3), OpenSSH's `PROTOCOL` (its
//! extensions).

mod error;
pub mod identification;
pub mod packet;
pub mod sftp;

pub use error::SshError;

use nom::bytes::complete::take;
use nom::number::complete::be_u32;
use nom::{IResult, Parser as _};

/// A string: its length, then as many bytes (RFC 4251, section 5).
pub(crate) fn string(input: &[u8]) -> IResult<&[u8], &[u8], SshError> {
    let (rest, length) = be_u32(input)?;
    take(length).parse(rest)
}

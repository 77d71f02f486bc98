//! Messages of JSON, and descriptors, over a Unix stream socket.
//!
//! A message is its length in four bytes and its text. Descriptors follow it one by one,
//! each with one byte of data, so that none can be cut off a message that was read in
//! parts.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message: what is remembered of all principals is large.
const LONGEST: u32 = 1 << 30;

/// Sends one message.
pub(crate) fn send<T: Serialize>(stream: &mut UnixStream, message: &T) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len())
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&text)
}

/// Waits for one message.
pub(crate) fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    receive_within(stream, LONGEST)
}

/// Waits for one message of at most so many bytes.
pub(crate) fn receive_within<T: DeserializeOwned>(
    stream: &mut UnixStream,
    longest: u32,
) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > longest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    stream.take(length.into()).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Sends one descriptor.
pub(crate) fn send_descriptor(stream: &UnixStream, descriptor: &OwnedFd) -> io::Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(b"d")],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

/// Waits for one descriptor.
pub(crate) fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut room = nix::cmsg_space!(std::os::fd::RawFd);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            // SAFETY: the kernel made this descriptor just now, for us alone.
            return Ok(unsafe { OwnedFd::from_raw_fd(*descriptor) });
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order_and_whole() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"what is in it").unwrap();
        let long = "x".repeat(100_000);
        let text = long.clone();
        let sender = std::thread::spawn(move || {
            send(&mut one, &text).unwrap();
            send_descriptor(&one, &file.into()).unwrap();
            send(&mut one, &7).unwrap();
        });
        assert_eq!(receive::<String>(&mut other).unwrap(), long);
        let mut same: std::fs::File = receive_descriptor(&other).unwrap().into();
        std::io::Seek::rewind(&mut same).unwrap();
        assert_eq!(std::io::read_to_string(same).unwrap(), "what is in it");
        assert_eq!(receive::<u8>(&mut other).unwrap(), 7);
        sender.join().unwrap();
        assert!(
            receive::<u8>(&mut other).is_err(),
            "the other end is closed"
        );
    }
}

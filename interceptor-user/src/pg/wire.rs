//! Reading whole messages from a leg, with a bound.

use std::io;

use interceptor_proto::pg::{PgError, frame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::tls::Stream;

/// Most that is read at once before a session runs.
const CHUNK: usize = 4096;

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not a message.
    #[error(transparent)]
    Protocol(#[from] PgError),
    /// The peer closed.
    #[error("the connection was closed")]
    Closed,
}

/// A message of its own: tag and body.
pub(super) struct Message {
    pub(super) tag: u8,
    /// Header and body.
    pub(super) raw: Vec<u8>,
}

impl Message {
    pub(super) fn body(&self) -> &[u8] {
        self.raw.get(frame::HEADER..).unwrap_or_default()
    }
}

/// Takes one message off `buffer`, which is filled from `io` as far as needed.
///
/// Only to be dropped together with `io`: what was read so far is in `buffer`.
pub(super) async fn message<S: AsyncRead + Unpin>(
    io: &mut S,
    buffer: &mut Vec<u8>,
    limit: u32,
) -> Result<Message, ReadError> {
    loop {
        if let Some(head) = frame::head(buffer)? {
            if head.len > limit {
                return Err(PgError::FrameTooLarge {
                    declared: head.len,
                    limit,
                }
                .into());
            }
            let total = head.total();
            if buffer.len() >= total {
                let rest = buffer.split_off(total);
                let raw = std::mem::replace(buffer, rest);
                return Ok(Message { tag: head.tag, raw });
            }
        }
        fill(io, buffer).await?;
    }
}

/// Reads once more into `buffer`.
pub(super) async fn fill<S: AsyncRead + Unpin>(
    io: &mut S,
    buffer: &mut Vec<u8>,
) -> Result<(), ReadError> {
    buffer.reserve(CHUNK);
    match io.read_buf(buffer).await? {
        0 => Err(ReadError::Closed),
        _ => Ok(()),
    }
}

/// Writes all of it, and sees it off: an encrypted leg may keep some back.
pub(super) async fn send<S: AsyncWrite + Unpin>(io: &mut S, bytes: &[u8]) -> io::Result<()> {
    io.write_all(bytes).await?;
    io.flush().await
}

/// Says a last word and closes in a way that lets it arrive: closing over unread
/// bytes would send a reset that may overtake it.
pub(super) async fn farewell(stream: &mut Stream, bytes: &[u8]) {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
    const MOST: u64 = 64 * 1024;
    let goodbye = async {
        send(stream, bytes).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST), &mut tokio::io::sink()).await
    };
    // Whether it arrives is the agent's affair: it may be gone already.
    let _ = tokio::time::timeout(PATIENCE, goodbye).await;
}

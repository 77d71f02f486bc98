//! What a guard accepted and hyper has not read yet, and the buffer that a leg
//! is read into before the guard looks.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, ReadBuf};

use crate::tls::Stream;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Accepted bytes, given out from the front.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    bytes: Vec<u8>,
    taken: usize,
}

impl Accepted {
    /// Where the guard appends.
    pub(super) fn more(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Gives out as much as fits; whether there was anything.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let left = self.bytes.get(self.taken..).unwrap_or_default();
        if left.is_empty() {
            return false;
        }
        let now = left.len().min(buf.remaining());
        buf.put_slice(left.get(..now).unwrap_or_default());
        self.taken += now;
        if self.taken == self.bytes.len() {
            self.taken = 0;
            self.bytes.clear();
            // Rare large heads should not stay for the life of the flow.
            self.bytes.shrink_to(CHUNK);
        }
        true
    }
}

/// Reads from a leg once, and shows what came; how many bytes, 0 at the end.
pub(super) fn poll_inspect(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    inspect: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        let got = read.filled();
        inspect(got);
        Poll::Ready(Ok(got.len()))
    })
}

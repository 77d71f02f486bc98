//! The service's HTTP/1 leg, as hyper reads it: behind the strict guard, like the
//! agent's. An answer of two readings could be taken by the agent for two answers.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use interceptor_proto::http::guard::ResponseGuard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::Stream;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// What was asked, for the guard of its answers.
#[derive(Clone, Debug, Default)]
pub struct Asked(Arc<Mutex<ResponseGuard>>);

impl Asked {
    /// A request is about to be sent.
    pub fn expect(&self, method: &http::Method) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.expect(method.as_str());
    }
}

/// The service's leg.
#[derive(Debug)]
pub struct ServiceIo {
    stream: Stream,
    asked: Asked,
    /// Accepted, and not yet read.
    ready: Vec<u8>,
    taken: usize,
    refused: bool,
}

impl ServiceIo {
    /// A leg on which nothing was asked.
    #[must_use]
    pub fn new(stream: Stream, asked: Asked) -> Self {
        Self {
            stream,
            asked,
            ready: Vec::new(),
            taken: 0,
            refused: false,
        }
    }
}

impl AsyncRead for ServiceIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let left = this.ready.get(this.taken..).unwrap_or_default();
            if !left.is_empty() {
                let now = left.len().min(buf.remaining());
                buf.put_slice(left.get(..now).unwrap_or_default());
                this.taken += now;
                if this.taken == this.ready.len() {
                    this.taken = 0;
                    this.ready.clear();
                    this.ready.shrink_to(CHUNK);
                }
                return Poll::Ready(Ok(()));
            }
            if this.refused {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let got = SCRATCH.with_borrow_mut(|scratch| {
                let mut read = ReadBuf::new(scratch);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
                let got = read.filled();
                let mut guard = this.asked.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = guard.feed(got, &mut this.ready) {
                    tracing::debug!(%error, "a service's answer was refused");
                    this.refused = true;
                }
                Poll::Ready(io::Result::Ok(got.len()))
            });
            if ready!(got)? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for ServiceIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

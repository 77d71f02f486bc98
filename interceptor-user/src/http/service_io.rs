//! The service's HTTP/1 leg, as hyper reads it: behind the strict guard, like the
//! agent's. An answer of two readings could be taken by the agent for two answers.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use interceptor_proto::http::guard::ResponseGuard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::accepted::{Accepted, poll_inspect};
use crate::tls::Stream;

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
    ready: Accepted,
    refused: bool,
}

impl ServiceIo {
    /// A leg on which nothing was asked.
    #[must_use]
    pub fn new(stream: Stream, asked: Asked) -> Self {
        Self {
            stream,
            asked,
            ready: Accepted::default(),
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
            if this.ready.give(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.refused {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let Self {
                stream,
                asked,
                ready,
                refused,
            } = &mut *this;
            let got = poll_inspect(stream, cx, |got| {
                let mut guard = asked.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = guard.feed(got, ready.more()) {
                    tracing::debug!(%error, "a service's answer was refused");
                    *refused = true;
                }
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

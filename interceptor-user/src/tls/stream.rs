//! One leg of a flow, encrypted or not.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Socket;

/// One leg of a flow.
///
/// The encrypted kinds are boxed: a leg that is not encrypted should not carry
/// the room for one that is.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(Socket),
    /// An agent's leg, opened with a certificate of the local authority.
    Downstream(Box<tokio_rustls::server::TlsStream<Rewind>>),
    /// A service's leg.
    Upstream(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl Stream {
    /// Whether its bytes are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// The protocol that was agreed on (ALPN).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Downstream(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Upstream(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// The server's certificate (DER), on a service's encrypted leg.
    #[must_use]
    pub fn server_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Upstream(tls) => tls
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(AsRef::as_ref),
            Self::Plain(_) | Self::Downstream(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Downstream(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Self::Upstream(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Downstream(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Self::Upstream(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Downstream(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
            Self::Upstream(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Downstream(tls) => tls.is_write_vectored(),
            Self::Upstream(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Downstream(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::Upstream(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Downstream(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::Upstream(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

/// A socket of which some bytes were read already, to find out what it speaks.
#[derive(Debug)]
pub struct Rewind {
    /// Read before, and given out first; emptied on the way.
    first: Vec<u8>,
    taken: usize,
    tcp: Socket,
}

impl Rewind {
    /// `tcp`, as though `first` had not been read from it.
    #[must_use]
    pub fn new(first: Vec<u8>, tcp: Socket) -> Self {
        Self {
            first,
            taken: 0,
            tcp,
        }
    }
}

impl AsyncRead for Rewind {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = this.first.get(this.taken..).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        }
        let now = left.len().min(buf.remaining());
        buf.put_slice(left.get(..now).unwrap_or_default());
        this.taken += now;
        if this.taken == this.first.len() {
            this.first = Vec::new();
            this.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewind {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

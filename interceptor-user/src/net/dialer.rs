//! Dialling services.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpSocket;

use super::{Origin, Socket};

/// A connection on its way.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send + 'a>>;

/// Another way to a service than a socket of this machine.
pub trait Way: fmt::Debug + Send + Sync {
    /// Connects to the one destination that the way leads to.
    fn dial(&self) -> Dialling<'_>;
}

/// Dials services.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Mark of the sockets (`SO_MARK`), by which the kernel's programs know the
    /// proxy's own connections; needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// How long a connection may take.
    pub timeout: Duration,
    /// The way to what is not reached from here.
    pub way: Option<Arc<dyn Way>>,
}

impl Default for Dialer {
    fn default() -> Self {
        Self {
            mark: None,
            timeout: Duration::from_secs(10),
            way: None,
        }
    }
}

impl Dialer {
    /// This one, for what lies at the end of `way`.
    #[must_use]
    pub fn by(&self, way: Arc<dyn Way>) -> Self {
        Self {
            way: Some(way),
            ..self.clone()
        }
    }

    /// Connects to `origin`.
    ///
    /// # Errors
    /// When it refuses, cannot be reached, or takes too long.
    pub async fn dial(&self, origin: &Origin) -> io::Result<Socket> {
        let dialling: Dialling<'_> = match (origin.here(), &self.way) {
            (Some(address), _) => Box::pin(self.connect(address)),
            (None, Some(way)) => way.dial(),
            (None, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        tokio::time::timeout(self.timeout, dialling)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        socket.set_keepalive(true)?;
        socket.set_nodelay(true)?;
        Ok(Socket::Tcp(socket.connect(address).await?))
    }
}

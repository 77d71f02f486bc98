//! Listening: sockets that the next daemon can take over, and what comes to them.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use tracing::warn;

/// A socket that goes from daemon to daemon.
pub trait Handed: Sized {
    /// The same outside of a runtime.
    type Plain: From<OwnedFd> + AsFd;

    /// Brings it into the runtime.
    ///
    /// # Errors
    /// When the kernel does not take it.
    fn adopt(plain: Self::Plain) -> io::Result<Self>;
}

impl Handed for TcpListener {
    type Plain = std::net::TcpListener;

    fn adopt(plain: Self::Plain) -> io::Result<Self> {
        plain.set_nonblocking(true)?;
        Self::from_std(plain)
    }
}

impl Handed for UnixListener {
    type Plain = std::os::unix::net::UnixListener;

    fn adopt(plain: Self::Plain) -> io::Result<Self> {
        plain.set_nonblocking(true)?;
        Self::from_std(plain)
    }
}

impl Handed for UdpSocket {
    type Plain = std::net::UdpSocket;

    fn adopt(plain: Self::Plain) -> io::Result<Self> {
        plain.set_nonblocking(true)?;
        Self::from_std(plain)
    }
}

/// Where connections come.
pub trait Listener {
    /// One of them.
    type Stream;

    /// Waits for one.
    fn one(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn one(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn one(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// The next connection.
pub async fn next<L: Listener>(listener: &L) -> L::Stream {
    loop {
        match listener.one().await {
            Ok(stream) => return stream,
            Err(error) => {
                // Out of descriptors, most likely: give what is under way time to end.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Listens at a path, in the place of whoever did before, for those whom `mode` lets.
///
/// # Errors
/// When it cannot.
pub fn at_path(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

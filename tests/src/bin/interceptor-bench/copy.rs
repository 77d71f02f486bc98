//! The least that any proxy does.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

/// A proxy in this very process that reads nothing and copies everything to a
/// port of 127.0.0.1; gives its own.
pub(crate) fn copying_proxy(to: u16) -> Result<u16> {
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let port = listener.local_addr()?.port();
    let to = SocketAddr::from(([127, 0, 0, 1], to));
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((mut down, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut up = TcpStream::connect(to).await?;
                    down.set_nodelay(true)?;
                    up.set_nodelay(true)?;
                    tokio::io::copy_bidirectional(&mut down, &mut up).await
                });
            }
        });
    });
    Ok(port)
}

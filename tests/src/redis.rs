//! A private Redis that keeps nothing on disk.

use std::net::TcpStream;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::place::{self, Place};
use crate::process::{Server, Start};

/// A running server.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    /// Its port, on 127.0.0.1.
    pub port: u16,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(place: &Place) -> Result<Self> {
        let port = place::free_port()?;
        let folder = place.subfolder("redis")?;
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(folder);
        let start = Start {
            name: "redis",
            log: &place.path("redis.log"),
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGKILL,
        };
        let mut server = Server::start(&start, command)?;
        server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { server, port })
    }

    /// Its address, as the configuration takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Stops answering, as a machine that hangs, until [`Redis::resume`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn hang(&self) -> Result<()> {
        self.server.signal(Signal::SIGSTOP)
    }

    /// Answers again.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        self.server.signal(Signal::SIGCONT)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A stopped process takes no other signal but this.
        let _ = self.resume();
    }
}

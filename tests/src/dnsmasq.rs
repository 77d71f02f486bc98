//! A private name server.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::place::{self, Place};
use crate::process::{Server, Start};

/// A running dnsmasq.
#[derive(Debug)]
pub struct Dnsmasq {
    server: Server,
    /// Where it listens, on 127.0.0.1, over UDP and TCP.
    pub port: u16,
    log: PathBuf,
}

impl Dnsmasq {
    /// Starts one that knows these names, and none else.
    ///
    /// # Errors
    /// When it is not installed, or cannot be started.
    pub fn start(place: &Place, names: &[(&str, &str)]) -> Result<Self> {
        let port = place::free_port()?;
        let log = place.path("dnsmasq.log");
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        ]);
        command.args(["--conf-file=/dev/null", "--user=root", "--log-queries"]);
        command.args([
            "--log-facility=-",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
        ]);
        command.args(["--local=/test/", "--txt-record=secret.test,carried out"]);
        command.arg(format!("--port={port}"));
        for (name, address) in names {
            command.arg(format!("--host-record={name},{address}"));
        }
        let start = Start {
            name: "dnsmasq",
            log: &log,
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGTERM,
        };
        let mut server = Server::start(&start, command)
            .context("no dnsmasq here: install it with `cargo xtask install servers`")?;
        server.wait_until(|| {
            // A port that is taken is one that it listens on.
            UdpSocket::bind(("127.0.0.1", port)).is_err()
        })?;
        Ok(Self { server, port, log })
    }

    /// Whether it was ever asked for something with `text` in it.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn saw(&self, text: &str) -> Result<bool> {
        let log = std::fs::read_to_string(&self.log).context("reading dnsmasq's log")?;
        Ok(log
            .lines()
            .any(|line| line.contains("query[") && line.contains(text)))
    }

    /// The process.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

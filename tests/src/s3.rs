//! A server that speaks S3: moto, from `cargo xtask install python`.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::place::{self, Place};
use crate::process::{Server, Start};

/// A running server, with an empty bucket `recordings`.
#[derive(Debug)]
pub struct S3 {
    server: Server,
    /// Its port, on 127.0.0.1.
    pub port: u16,
}

/// A key as the server takes any.
pub const KEY_ID: &str = "AKIDEXAMPLE";
/// What goes with it. It is looked for where it must not be.
pub const SECRET_KEY: &str = "a-secret-key-that-nobody-sees";

impl S3 {
    /// Starts one.
    ///
    /// # Errors
    /// When it is not installed, or cannot be started.
    pub fn start(place: &Place) -> Result<Self> {
        let port = place::free_port()?;
        let mut command = Command::new(python()?);
        command
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
            .arg(port.to_string());
        let start = Start {
            name: "moto",
            log: &place.path("moto.log"),
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGKILL,
        };
        let mut server = Server::start(&start, command)?;
        server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        let s3 = Self { server, port };
        let made = Command::new("curl")
            .args(["-sSf", "-X", "PUT", &format!("{}/recordings", s3.url())])
            .output()
            .context("starting curl")?;
        if !made.status.success() {
            bail!("making a bucket: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(s3)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The variables with which a program finds it and logs on.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// What was asked of it, a line each.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }
}

fn python() -> Result<PathBuf> {
    let own = std::env::current_exe().context("looking for our own program")?;
    let found = own
        .ancestors()
        .map(|folder| folder.join("moto/bin/python"))
        .find(|path| path.exists());
    found.context("moto is not installed: `cargo xtask install python`")
}

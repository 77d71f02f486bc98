//! The new daemon's side: asks for what the old one has, and says when it is ready.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::socket::{getsockopt, sockopt};
use tracing::info;

use super::{Hello, Offer, PROTOCOL, Sockets, State, WRITE_PATIENCE, may, monotonic, socket_path};
use crate::wire;

/// How long the old daemon may take to answer, and then to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that is ready to hand over.
#[derive(Debug)]
pub struct Taking {
    stream: UnixStream,
    /// What it offers.
    pub offer: Offer,
    descriptors: BTreeMap<String, OwnedFd>,
}

/// Asks the daemon of this runtime folder; `None` where there is none.
///
/// # Errors
/// When there is one, and it does not hand over.
pub fn ask(runtime_dir: &Path) -> anyhow::Result<Option<Taking>> {
    let path = socket_path(runtime_dir);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("asking at {}", path.display())),
    };
    introduce(stream)
        .map(Some)
        .with_context(|| format!("taking over from the daemon at {}", path.display()))
}

fn introduce(mut stream: UnixStream) -> anyhow::Result<Taking> {
    let uid = getsockopt(&stream, sockopt::PeerCredentials)?.uid();
    anyhow::ensure!(may(uid), "it is user {uid}'s, whom nothing is taken from");
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let hello = Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    };
    wire::send(&mut stream, &hello)?;
    let offer: Offer = wire::receive(&mut stream).context("its offer")?;
    anyhow::ensure!(
        offer.protocol == PROTOCOL,
        "it ({}) hands over in another way than this version: stop it first",
        offer.version
    );
    let mut descriptors = BTreeMap::new();
    for name in &offer.descriptors {
        let descriptor = wire::receive_descriptor(&stream).context("its sockets")?;
        descriptors.insert(name.clone(), descriptor);
    }
    info!(from = offer.pid, version = offer.version, "taking over");
    Ok(Taking {
        stream,
        offer,
        descriptors,
    })
}

impl Taking {
    /// One of its descriptors.
    pub fn descriptor(&mut self, name: &str) -> Option<OwnedFd> {
        self.descriptors.remove(name)
    }

    /// The start of the clock that rules count by, as that daemon has it.
    ///
    /// # Errors
    /// When the clock cannot be read.
    pub fn clock(&self) -> io::Result<(Instant, i64)> {
        let since = Duration::from_nanos(monotonic()?.saturating_sub(self.offer.clock));
        let now = Instant::now();
        Ok((now.checked_sub(since).unwrap_or(now), self.offer.unix))
    }

    /// Has it stop accepting, and takes its sockets. What comes next must not take long
    /// or fail: nobody accepts meanwhile.
    ///
    /// # Errors
    /// When it went away; then it may have stopped, and agents are refused.
    pub fn go(mut self, sockets: &Sockets) -> anyhow::Result<State> {
        wire::send(&mut self.stream, &true).context("telling the old daemon to stop")?;
        let state = wire::receive(&mut self.stream).context("what the old daemon remembers")?;
        sockets.given(self.descriptors);
        Ok(state)
    }
}

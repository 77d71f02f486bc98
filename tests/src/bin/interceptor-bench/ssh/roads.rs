//! The roads to the server, all open at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::place::{self, Place};
use interceptor_tests::process::{Server, Start};
use interceptor_tests::redis::Redis;
use interceptor_tests::sshd::{self, Sshd};
use nix::sys::signal::Signal;
use serde_json::json;

use super::relay;
use crate::settle::settle;

/// A road to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Road {
    /// No proxy.
    Direct,
    /// A server and a client of russh's, which pass everything on.
    Relay,
    /// Interceptor by a listener: shipped rules, everything recorded.
    Interceptor,
    /// ssh-mitm, without plug-ins of its own.
    SshMitm,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Relay => "russh relay",
            Self::Interceptor => "interceptor",
            Self::SshMitm => "ssh-mitm",
        })
    }
}

/// Everything that runs. Dropped in order: proxies before what they lead to.
#[derive(Debug)]
pub(crate) struct Field {
    interceptor: Daemon,
    store: Redis,
    _ssh_mitm: Option<Server>,
    by_road: Vec<(Road, u16)>,
    sshd: Sshd,
    _place: Place,
}

impl Field {
    /// Starts everything.
    pub(super) fn new() -> Result<Self> {
        let place = Place::new()?;
        let sshd = Sshd::start(&place, "sshd")?;
        let store = Redis::start(&place)?;
        let own = place::free_port()?;
        let interceptor = interceptor(&place, &store, &sshd, own)?;
        let relay = relay::serve(&sshd)?;
        let mut by_road = vec![
            (Road::Direct, sshd.port),
            (Road::Relay, relay),
            (Road::Interceptor, own),
        ];
        let mut server = None;
        if let Some(program) = ssh_mitm() {
            let port = place::free_port()?;
            server = Some(run_ssh_mitm(&place, &program, &sshd, port)?);
            by_road.push((Road::SshMitm, port));
        }
        Ok(Self {
            interceptor,
            store,
            _ssh_mitm: server,
            by_road,
            sshd,
            _place: place,
        })
    }

    /// The roads that there are.
    pub(super) fn roads(&self) -> Vec<Road> {
        self.by_road.iter().map(|(road, _)| *road).collect()
    }

    /// Whether there is this one.
    pub(super) fn has(&self, road: Road) -> bool {
        self.by_road.iter().any(|(one, _)| *one == road)
    }

    /// The port that a road begins at.
    pub(super) fn port(&self, road: Road) -> Result<u16> {
        let found = self.by_road.iter().find(|(one, _)| *one == road);
        found.map(|(_, port)| *port).context("no such road")
    }

    /// The server, for its user and key.
    pub(super) fn sshd(&self) -> &Sshd {
        &self.sshd
    }

    /// OpenSSH's client with a command, over a road. Whose host key it sees does not
    /// matter here.
    pub(super) fn ssh(&self, road: Road, command: &str) -> Result<Command> {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-T", "-c", "aes128-gcm@openssh.com"]);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg("-i").arg(&self.sshd.key);
        ssh.arg("-p").arg(self.port(road)?.to_string());
        ssh.arg(format!("{}@127.0.0.1", self.sshd.user));
        ssh.arg(command);
        Ok(ssh)
    }

    /// See [`settle`].
    pub(super) fn settle(&self, road: Road) -> Result<()> {
        if road != Road::Interceptor {
            return Ok(());
        }
        self.interceptor.never_panicked()?;
        settle(&self.store)
    }
}

/// Interceptor between: shipped rules, everything recorded.
fn interceptor(place: &Place, store: &Redis, sshd: &Sshd, own: u16) -> Result<Daemon> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let settings = json!({ "credentials": { "user": sshd.user, "key": { "file": sshd.key } } });
    let target = sshd::target(sshd, &settings);
    let config = json!({
        "intercept": { "kernel": false },
        "targets": [target],
        "listeners": [{
            "listen": format!("127.0.0.1:{own}"),
            "target": "build-host",
            "agent": "bench",
        }],
        "rules": [rules],
    });
    Daemon::start(place, &store.url(), "version: 1\nrules: []\n", &config)
}

/// Starts ssh-mitm. It sends a message a second time that OpenSSH's clients before 9.5
/// refuse, and that is left out here.
const SSH_MITM: &str = "\
import sshmitm.workarounds.auth_handler as auth
own = auth.auth_handler_parse_service_request
def once(self, message):
    self.transport._remote_ext_info = None
    own(self, message)
auth.auth_handler_parse_service_request = once
from sshmitm.cli import main
main()
";

/// The Python that has ssh-mitm, where it is installed.
fn ssh_mitm() -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ssh-mitm/bin");
    let program = tree.join("ssh-mitm");
    program.exists().then(|| tree.join("python"))
}

/// ssh-mitm between: it takes any key, and logs on with the server's own.
fn run_ssh_mitm(place: &Place, python: &Path, sshd: &Sshd, port: u16) -> Result<Server> {
    let home = place.subfolder("ssh-mitm")?;
    let mut command = Command::new(python);
    command
        .current_dir(&home)
        .env("HOME", &home)
        .args(["-c", SSH_MITM])
        .args(["server", "--listen-address", "127.0.0.1", "--listen-port"])
        .arg(port.to_string())
        .args(["--remote-host", "127.0.0.1", "--remote-port"])
        .arg(sshd.port.to_string())
        .args(["--auth-username", &sshd.user, "--auth-key"])
        .arg(&sshd.key)
        .arg("--accept-first-publickey");
    let start = Start {
        name: "ssh-mitm",
        log: &place.path("ssh-mitm.log"),
        user: None,
        stop: Signal::SIGTERM,
        orphaned: Signal::SIGTERM,
    };
    let mut server = Server::start(&start, command)?;
    server.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(server)
}

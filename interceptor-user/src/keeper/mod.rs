//! Keeps the keys that agents trust away from what reads their bytes.
//!
//! The daemon has a small process of its own, the *keeper*, started before the first byte
//! of an agent's is read: it alone opens the private keys of the local authority and of the
//! authority for SSH host keys. The daemon has one end of a socket to it, and asks for
//! certificates; what may stand in one is for the keeper to say ([`serve`]): a leaf for a
//! server, for names that the authority is permitted, for a day. So a fault that shows the
//! daemon's memory shows neither key, and who takes the daemon over takes no key from it
//! that counts tomorrow.
//!
//! What it does not do: keep the keys' *files* from whoever has the daemon, which is root
//! to files; see `docs/threat-model.md`.
//!
//! Questions and answers are JSON, one a packet, over a `SOCK_SEQPACKET` pair. The keeper
//! ends with the daemon: when nobody has the other end. By then the daemon may not start
//! another one, which would need the rights that it gave up; so when the keeper ends first,
//! the daemon ends, too, in order and on record, for whatever started it to start it anew.

mod lock;
mod serve;
mod wire;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use russh::keys::{Certificate, PublicKey};
use rustls::pki_types::CertificateDer;

pub use lock::Locked;
pub(crate) use lock::alone;
pub(crate) use serve::serve;
pub use wire::Plan;
use wire::{Answer, Hello, LONGEST, Question, Request};

use crate::tls::authority::Names;

/// The hidden command that is the keeper.
pub(crate) const KEEP: &str = "keep-keys";

/// How long an answer may take. A signature takes a tenth of a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no certificate.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// It does not answer.
    #[error("the keeper of the keys does not answer ({0}): start the daemon anew")]
    Away(String),
    /// It refuses.
    #[error("the keeper of the keys refuses: {0}")]
    Refused(String),
}

/// The daemon's end.
#[derive(Debug)]
pub struct Keeper {
    line: Mutex<Line>,
    child: Child,
    hello: Hello,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    asked: u64,
}

impl Keeper {
    /// Starts it, and waits until it has the keys and has given up everything else. Call it
    /// while this process still may read them.
    ///
    /// # Errors
    /// When it cannot be started, or not open the keys; its own words say why.
    pub fn start(plan: &Plan) -> anyhow::Result<Self> {
        let (ours, its) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("making a socket for the keeper of the keys")?;
        // Not by name: the file may have been replaced since.
        let child = Command::new("/proc/self/exe")
            .arg0("interceptor")
            .arg(KEEP)
            .env_clear()
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            // It ends behind the daemon's last session, and not at a Ctrl-C.
            .process_group(0)
            .spawn()
            .context("starting the keeper of the keys")?;
        let mut keeper = Self {
            line: Mutex::new(Line {
                socket: ours,
                asked: 0,
            }),
            child,
            hello: Hello::default(),
        };
        let line = keeper
            .line
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        put(&line.socket, plan).context("telling the keeper of the keys what to keep")?;
        let hello: Result<Hello, String> =
            take(&line.socket).context("the keeper of the keys ended at its start")?;
        keeper.hello = hello.map_err(anyhow::Error::msg)?;
        // It made keys, where there were none; from here on it only signs.
        let wait = TimeVal::new(PATIENCE.as_secs().try_into().unwrap_or(5), 0);
        setsockopt(&line.socket, sockopt::ReceiveTimeout, &wait)
            .and_then(|()| setsockopt(&line.socket, sockopt::SendTimeout, &wait))
            .context("bounding the patience with the keeper of the keys")?;
        Ok(keeper)
    }

    /// What it has given up.
    #[must_use]
    pub fn locked(&self) -> Locked {
        Locked {
            pid: self.child.id(),
            ..self.hello.locked.clone()
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The local authority's certificate.
    #[must_use]
    pub fn authority(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.hello.authority.clone())
    }

    /// The public half of the authority for SSH host keys.
    ///
    /// # Errors
    /// When the keeper did not say a key.
    pub fn ssh_authority(&self) -> Result<PublicKey, russh::keys::ssh_key::Error> {
        PublicKey::from_openssh(&self.hello.ssh_authority)
    }

    /// A certificate of the local authority's for a public key (`SubjectPublicKeyInfo`).
    ///
    /// # Errors
    /// When it refuses, or does not answer.
    pub fn leaf(&self, names: &Names, key: &[u8]) -> Result<CertificateDer<'static>, KeeperError> {
        let names = names.clone();
        let key = hex::encode(key);
        match self.ask(Request::Leaf { names, key })? {
            Answer::Leaf(der) => hex::decode(der)
                .map(CertificateDer::from)
                .map_err(|_| odd("a certificate")),
            Answer::Refused(why) => Err(KeeperError::Refused(why)),
            Answer::Host(_) => Err(odd("another certificate")),
        }
    }

    /// A certificate for an SSH host key.
    ///
    /// # Errors
    /// When it refuses, or does not answer.
    pub fn host(
        &self,
        key: &PublicKey,
        id: &str,
        names: &[String],
    ) -> Result<Certificate, KeeperError> {
        let key = key.to_openssh().map_err(|_| odd("a key"))?;
        let (id, names) = (id.to_owned(), names.to_vec());
        match self.ask(Request::Host { key, id, names })? {
            Answer::Host(line) => {
                Certificate::from_openssh(&line).map_err(|_| odd("a certificate"))
            }
            Answer::Refused(why) => Err(KeeperError::Refused(why)),
            Answer::Leaf(_) => Err(odd("another certificate")),
        }
    }

    fn ask(&self, request: Request) -> Result<Answer, KeeperError> {
        let away = |error: io::Error| KeeperError::Away(error.to_string());
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.asked += 1;
        let number = line.asked;
        put(&line.socket, &Question { number, request }).map_err(away)?;
        loop {
            let (answered, answer): (u64, Answer) = take(&line.socket).map_err(away)?;
            // What came too late for the question before is for nobody.
            if answered == number {
                return Ok(answer);
            }
        }
    }
}

fn odd(what: &str) -> KeeperError {
    KeeperError::Away(format!("what it says is not {what} that was asked for"))
}

/// Sends one packet.
fn put(socket: &OwnedFd, what: &impl serde::Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(what)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Waits for one packet.
fn take<T: serde::de::DeserializeOwned>(socket: &OwnedFd) -> io::Result<T> {
    let mut bytes = vec![0; LONGEST];
    let read = loop {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Err(nix::errno::Errno::EINTR) => {}
            done => break done?,
        }
    };
    match bytes.get(..read) {
        Some([]) | None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        Some(packet) => Ok(serde_json::from_slice(packet)?),
    }
}

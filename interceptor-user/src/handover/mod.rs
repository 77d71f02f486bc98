//! From one daemon to the next without a refused connect or a session that ends.
//!
//! A daemon that starts where another one runs takes over from it: the lock on the
//! runtime folder, the sockets that agents and operators connect to, what is remembered
//! of principals. The sockets are the same ones, with the kernel's mark on them, and what
//! connects meanwhile waits in their backlog. The old daemon keeps its sessions, under
//! rules that it still reads again when they change, and ends with the last of them.
//!
//! * [`wire`]: messages and descriptors over a Unix socket that is root's alone;
//! * [`give`]: the old daemon's side;
//! * [`take`]: the new one's;
//! * [`drain`]: what a daemon that only ends its sessions is still asked.
//!
//! What this room does not do: it carries no session over. A session's state, keys
//! included, stays where it is.

pub mod drain;
pub mod give;
pub mod take;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interceptor_policy::Remembered;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

use crate::agents::{ExecutableKey, Runs};
use crate::approval::Facts;
use crate::flow::House;
use crate::host::lock;
use crate::net::listen::Handed;
use crate::service::Service;

/// Changes with what is said below; daemons of different numbers do not hand over.
const PROTOCOL: u32 = 1;

/// How long another daemon may take to read what it is sent.
const WRITE_PATIENCE: Duration = Duration::from_secs(12);

/// Mode of the sockets at which daemons talk: for root and the daemon's own user alone.
const OURS: u32 = 0o600;

/// Where a daemon waits for the next one.
#[must_use]
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("handover.sock")
}

/// What the new daemon says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    protocol: u32,
    version: String,
    pid: u32,
}

/// What the old daemon offers; its descriptors follow, in the order of their names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    protocol: u32,
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The layout that it shares with its kernel programs; `None` without interception.
    pub abi: Option<u32>,
    /// The agents' cgroup.
    pub agents_cgroup: Option<PathBuf>,
    /// The cgroup that the listeners were born in.
    pub proxy_cgroup: Option<PathBuf>,
    /// Start of the clock that rules count by, in nanoseconds of `CLOCK_MONOTONIC`.
    pub clock: u64,
    /// The same moment in seconds since 1970.
    pub unix: i64,
    /// The private Redis, where it has one.
    pub redis: Option<Redis>,
    /// How often systemd wants to hear of the daemon.
    #[serde(default)]
    pub watchdog: Option<Duration>,
    descriptors: Vec<String>,
}

/// A private Redis that goes from daemon to daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Redis {
    /// Where it answers, password included.
    pub url: String,
    /// The process that keeps it.
    pub keeper: u32,
}

/// What was in the old daemon's head when it stopped accepting.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// What rules remember of principals.
    pub memory: Remembered,
    /// What agents were told that names are.
    pub names: Vec<Told>,
    /// What they have asked.
    pub asked: Vec<Asked>,
    /// Tickets that are open, or answered and not used.
    pub tickets: Vec<Facts>,
    /// Questions that flows of the old daemon wait for.
    pub held: Vec<String>,
    /// Digests of executables.
    #[serde(default)]
    executables: Vec<(ExecutableKey, String)>,
}

impl State {
    /// Gives the digests of executables to who needs them.
    pub fn take_executables(&mut self, runs: &Runs) {
        let made = std::mem::take(&mut self.executables);
        if let Err(error) = runs.look.take_digests(made) {
            warn!(%error, "digests of executables are made again");
        }
    }
}

/// A name that an agent was told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// Who asked.
    pub cgroup: u64,
    /// What was answered.
    pub address: IpAddr,
    /// What was asked for.
    pub name: String,
    /// How long ago.
    pub age: Duration,
}

/// Questions for names that were counted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Who asked.
    pub cgroup: u64,
    /// Age of the current minute, and questions in it.
    pub minute: (Duration, u32),
    /// Age of the current hour.
    pub hour: Duration,
    /// Names below each domain in it, as they are kept.
    pub below: BTreeMap<String, Vec<u64>>,
}

/// Whether this daemon takes what is new, or only ends what it has.
#[derive(Debug, Default)]
pub struct Life {
    stopped: CancellationToken,
    ended: CancellationToken,
    /// What runs only as long as it takes what is new.
    loops: TaskTracker,
    /// Requests that are being answered.
    requests: TaskTracker,
    /// Connections, from accept to their end.
    connections: TaskTracker,
    /// Whether nothing more is going to be remembered.
    last: AtomicBool,
    /// Told when the next daemon has heard all of it.
    told: Notify,
    /// How long the next daemon is waited for, once this one is to retire.
    retires: watch::Sender<Option<Duration>>,
    /// Whether the next daemon is there, and not ready yet.
    is_awaited: AtomicBool,
    /// What systemd is told.
    pub service: Service,
    /// What the next daemon takes over.
    pub sockets: Sockets,
}

impl Life {
    /// Of a daemon that is this to systemd.
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self {
            service,
            ..Self::default()
        }
    }

    /// Has the daemon end when the next one has taken over, or, where none does within
    /// `patience`, then.
    pub fn retire(&self, patience: Duration) {
        self.retires.send_replace(Some(patience));
    }

    /// Waits until it is to retire; how long the next one is waited for.
    pub async fn retires(&self) -> Duration {
        let mut retires = self.retires.subscribe();
        match retires.wait_for(Option::is_some).await {
            Ok(patience) => patience.unwrap_or_default(),
            // It lives as long as this does.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether the next daemon is there, and not ready yet.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Acquire)
    }

    /// Whether it still takes what is new.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.stopped.is_cancelled()
    }

    /// Runs a task until it takes nothing new any more: the task is then dropped where it
    /// waits, so it must wait only where nothing is lost by that.
    pub fn while_serving(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.stopped.clone();
        self.loops.spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs a connection to its end.
    pub fn connection(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(task);
    }

    /// A request that is to be answered here; `None` where the next daemon has to.
    #[must_use]
    pub fn request(&self) -> Option<TaskTrackerToken> {
        let token = self.requests.token();
        self.is_serving().then_some(token)
    }

    /// Takes nothing new from now on; waits until whatever did has stopped.
    async fn stop(&self) {
        self.stopped.cancel();
        self.loops.close();
        self.loops.wait().await;
        self.requests.close();
        self.requests.wait().await;
    }

    /// Whether no connection is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// Asks a daemon that only ends its sessions to end them now.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Waits until that is asked.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Sockets by name, so that the next daemon finds its own again.
#[derive(Debug, Default)]
pub struct Sockets {
    /// From the daemon before; whoever listens takes its own.
    given: Mutex<BTreeMap<String, OwnedFd>>,
    /// For the next one.
    kept: Mutex<BTreeMap<String, OwnedFd>>,
}

impl Sockets {
    /// Those that another daemon gave.
    fn given(&self, given: BTreeMap<String, OwnedFd>) {
        *lock(&self.given) = given;
    }

    /// Whether one of that name was given and not taken yet.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        lock(&self.given).contains_key(name)
    }

    /// The socket of that name, or else a new one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn get<S: Handed>(
        &self,
        name: &str,
        make: impl FnOnce() -> io::Result<S::Plain>,
    ) -> io::Result<S> {
        let socket = match self.take(name) {
            Some(given) => given.into(),
            None => make()?,
        };
        self.keep(name, socket.as_fd().try_clone_to_owned()?);
        S::adopt(socket)
    }

    fn take(&self, name: &str) -> Option<OwnedFd> {
        lock(&self.given).remove(name)
    }

    fn keep(&self, name: &str, socket: OwnedFd) {
        lock(&self.kept).insert(name.to_owned(), socket);
    }

    /// Closes what nobody took: the configuration has it no more.
    pub fn close_rest(&self) {
        lock(&self.given).clear();
    }

    /// Lets go of what the next daemon has now. One that is open here would take
    /// connections that nobody accepts, once the next one is gone.
    fn let_go(&self) {
        lock(&self.kept).clear();
    }

    fn copies(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        lock(&self.kept)
            .iter()
            .map(|(name, socket)| Ok((name.clone(), socket.try_clone()?)))
            .collect()
    }
}

/// Whether a user may hand over, or be handed to: root, and the daemon's own.
fn may(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// A connection of another daemon's, to be read from with `patience` for each answer. No
/// agent is one, whatever user it runs as.
fn admit(
    house: &House,
    stream: tokio::net::UnixStream,
    patience: Duration,
) -> anyhow::Result<UnixStream> {
    use anyhow::Context as _;
    let peer = stream.peer_cred()?;
    anyhow::ensure!(may(peer.uid()), "user {} may not", peer.uid());
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    let pid = pid.context("it is not known who asks")?;
    anyhow::ensure!(!house.is_agent(pid)?, "process {pid} is an agent's");
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    Ok(stream)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which all processes share.
fn monotonic() -> io::Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let now = Duration::from(now);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

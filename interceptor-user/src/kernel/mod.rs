//! Loading, attaching and pinning the kernel programs.
//!
//! The programs stand at one cgroup, the parent of all agents' runs, and stay
//! there pinned: when the daemon dies its agents' connects are refused, never
//! direct. Nothing is exempted by port, mark or process: the daemon lives outside
//! that cgroup.
//!
//! What this room does not do: it does not know what an agent is ([`crate::agents`]
//! does), and it judges nothing; it refuses only what cannot be redirected.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

pub use interceptor_common::Reason;

/// Where an intercepted socket was going, and who asked, as the kernel saw it at
/// `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The destination, canonical: never IPv4-mapped, never unspecified.
    pub address: SocketAddr,
    /// Process (thread group) id, in the host's namespace.
    pub pid: u32,
    /// Effective user id at `connect`.
    pub uid: u32,
    /// Effective group id at `connect`.
    pub gid: u32,
    /// The thread's name.
    pub comm: String,
    /// Id (inode) of the socket's cgroup.
    pub cgroup_id: u64,
}

/// What is loaded, and where it is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the agents' parent cgroup below the cgroup2 mount.
    pub cgroup: String,
    /// Folder below which a bpffs of our own is mounted, at `bpf`.
    pub runtime_dir: PathBuf,
    /// How many redirected connections may be between `connect` and accept at once.
    pub max_flows: u32,
}

impl Options {
    /// What a configuration asks for.
    #[must_use]
    pub fn from_config(config: &crate::config::Config) -> Self {
        Self {
            cgroup: config.intercept.cgroup.clone(),
            runtime_dir: config.runtime_dir.clone(),
            max_flows: 65_536,
        }
    }
}

/// Why interception could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Not there yet.
    #[error("kernel interception is not built yet")]
    Unbuilt,
}

/// The loaded programs. Dropping it leaves everything pinned and in force.
#[derive(Debug)]
pub struct Kernel {
    agents_cgroup: PathBuf,
}

/// Something the kernel refused an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Where it was going, canonical, where that is known.
    pub address: Option<SocketAddr>,
    /// IP protocol number (6 TCP, 17 UDP, …).
    pub protocol: u32,
    /// Process; `None` where a packet was refused, which no process is behind.
    pub pid: Option<u32>,
    /// Effective user id, where a process is known.
    pub uid: Option<u32>,
    /// The thread's name; empty where a packet was refused.
    pub comm: String,
    /// Id of the socket's cgroup.
    pub cgroup_id: u64,
    /// Refusals of the same cgroup that went unreported since its last report.
    pub suppressed: u32,
}

/// The refusals, as they happen.
#[derive(Debug)]
pub struct Refusals {}

impl Refusals {
    /// The next one; waits for it.
    ///
    /// # Errors
    /// When the ring can no longer be waited on.
    pub async fn next(&mut self) -> Result<Refusal, KernelError> {
        Err(KernelError::Unbuilt)
    }
}

/// What the programs counted, since they were first loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connects that were redirected.
    pub redirected: u64,
    /// Flows that moved into an accepted socket.
    pub accepted: u64,
    /// Refusals by reason, those that are zero left out.
    pub refused: Vec<(Reason, u64)>,
    /// Refusals that were not reported, because their cgroup made too many.
    pub suppressed: u64,
    /// Refusals that were not reported, because the ring was full.
    pub lost: u64,
}

impl Kernel {
    /// Loads, attaches and pins; takes over what a dead daemon left.
    ///
    /// Call before the listeners are created: it may move this process into a
    /// cgroup of its own, and a listener keeps the cgroup that it was born in.
    ///
    /// # Errors
    /// When anything is missing; then nothing new is in force, and what was in
    /// force still is.
    pub fn load(_options: &Options) -> Result<Self, KernelError> {
        Err(KernelError::Unbuilt)
    }

    /// Marks a listening socket as the proxy's. Needed for `127.0.0.1` and for
    /// `::1`, both at the port given to [`Kernel::set_port`]; where one is not
    /// marked, connects of that family are refused.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn adopt_listener(&self, _listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        Err(KernelError::Unbuilt)
    }

    /// Sets the port that connects are redirected to.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn set_port(&self, _port: u16) -> Result<(), KernelError> {
        Err(KernelError::Unbuilt)
    }

    /// What the kernel noted for an accepted socket. `None` means that no redirect
    /// made this connection: close it.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or its answer makes no sense.
    pub fn origin(&self, _accepted: BorrowedFd<'_>) -> Result<Option<Origin>, KernelError> {
        Err(KernelError::Unbuilt)
    }

    /// The refusals. Only one stream sees each of them. Call inside a tokio runtime.
    ///
    /// # Errors
    /// When it was taken before, or the ring cannot be waited on.
    pub fn refusals(&self) -> Result<Refusals, KernelError> {
        Err(KernelError::Unbuilt)
    }

    /// What the programs counted.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        Err(KernelError::Unbuilt)
    }

    /// The agents' parent cgroup, as an absolute path.
    #[must_use]
    pub fn agents_cgroup(&self) -> &Path {
        &self.agents_cgroup
    }
}

/// Takes everything out of force: detaches, unpins, unmounts, removes the cgroup
/// where no agent runs in it any more.
///
/// # Errors
/// Whatever could not be undone.
pub fn remove(_options: &Options) -> Result<(), KernelError> {
    Err(KernelError::Unbuilt)
}

//! Loading, attaching and pinning the kernel programs.

use std::net::SocketAddr;

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

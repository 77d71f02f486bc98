//! Loading, attaching and pinning the kernel programs.
//!
//! The programs stand at one cgroup, the parent of all agents' runs, and stay
//! there pinned: when the daemon dies its agents' connects are refused, never
//! direct. Nothing is exempted by port, mark or process: the daemon lives outside
//! that cgroup.
//!
//! Cgroups that something else made can be attached as well: [`Kernel::attach_to`].
//!
//! [`load`](Kernel::load) is in `attach`, the raw system calls that aya does not
//! have are in `sys`, the folder of pins is `pins`, cgroup2 is `cgroup`.
//!
//! What this room does not do: it does not know what an agent is ([`crate::agents`]
//! does), and it judges nothing; it refuses only what cannot be redirected.

mod attach;
mod attached;
pub mod cgroup;
mod coverage;
mod down;
pub mod health;
mod layout;
mod open;
pub mod packet;
mod pins;
mod refusals;
mod sys;
pub mod unix;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aya::maps::{
    Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage,
};
pub use interceptor_common::Reason;
use interceptor_common::{
    ABI, AF_INET, AF_INET6, COUNTER_ACCEPTED, COUNTER_LOST, COUNTER_REDIRECTED, COUNTER_SUPPRESSED,
    Coverage, Direct, LISTENER_MARK, OriginRecord, QueryKey, Settings, UNIX_ALLOW, UNIX_BLOCK,
    UNIX_RECORD, UNIX_SAME, UnixEntry, UnixName, WhenDown,
};

use crate::config::UnixDefault;
use interceptor_policy::DefaultVerdict;

pub use self::coverage::Covered;
pub use self::open::OpenTcp;
pub use self::packet::Packet;
pub use self::refusals::{Refusal, Refusals};

/// Oldest kernel that the programs are loaded on by the tests.
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);

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
    /// What is done with a Unix socket that is not listed.
    pub unix: UnixDefault,
    /// Whether connects go direct while no daemon is there.
    pub goes_direct: bool,
}

impl Options {
    /// What a configuration asks for.
    #[must_use]
    pub fn from_config(config: &crate::config::Config) -> Self {
        Self {
            cgroup: config.intercept.cgroup.clone(),
            runtime_dir: config.runtime_dir.clone(),
            max_flows: 65_536,
            unix: config.intercept.unix.default,
            goes_direct: config.intercept.when_down == DefaultVerdict::Allow,
        }
    }
}

/// What a daemon that runs hands over.
#[derive(Debug)]
pub struct Handed {
    /// Its lock on the runtime folder.
    pub lock: File,
    /// The cgroup that its listeners were born in.
    pub listeners_cgroup: PathBuf,
    /// Whether its maps are laid out as ours: its listeners are then known already.
    pub same_layout: bool,
}

/// Why interception could not be set up, or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The kernel is too old.
    #[error("this kernel is {found}; interception needs Linux 6.1 or newer")]
    KernelTooOld {
        /// What `uname` says.
        found: String,
    },
    /// No unified hierarchy.
    #[error("no cgroup2 is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified")]
    NoCgroup2,
    /// The agents' cgroup has a name that cannot be used.
    #[error("`{name}` cannot name a cgroup: one path component, of letters, digits, `-`, `_`, `.`")]
    CgroupName {
        /// The name.
        name: String,
    },
    /// The daemon is itself an agent.
    #[error("this process runs inside the agents' cgroup {}, so its own connections would be redirected to it; start it elsewhere", path.display())]
    InsideAgents {
        /// The agents' cgroup.
        path: PathBuf,
    },
    /// Pins would not outlive the daemon.
    #[error(
        "this process runs in a mount namespace of its own, so the pins that keep agents \
         confined would vanish with it; in a systemd unit, leave out PrivateMounts=, PrivateTmp=, ProtectSystem= and the like"
    )]
    PrivateMounts,
    /// Another daemon has this runtime folder.
    #[error("another daemon uses {}", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// Somebody else's programs stand at the agents' cgroup.
    #[error(
        "other programs stand at {} already (hook {hook}, program ids {programs:?}); \
         two redirections would undo each other: use another `intercept.cgroup`",
        path.display()
    )]
    Occupied {
        /// The agents' cgroup.
        path: PathBuf,
        /// The hook.
        hook: &'static str,
        /// The programs.
        programs: Vec<u32>,
    },
    /// A cgroup at which the hooks would do harm.
    #[error("the cgroup {} may not be attached: {why}", path.display())]
    MayNotAttach {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A second redirection of ours.
    #[error(
        "the cgroup {} may not be attached: {} is under interception already, and one connection is redirected once; detach that first",
        path.display(), at.display()
    )]
    Overlaps {
        /// The cgroup.
        path: PathBuf,
        /// Where the hooks stand.
        at: PathBuf,
    },
    /// A second redirection of somebody else's.
    #[error(
        "the cgroup {} may not be attached: other programs redirect connections at {} (program ids {programs:?})",
        path.display(), at.display()
    )]
    Foreign {
        /// The cgroup.
        path: PathBuf,
        /// Where they stand.
        at: PathBuf,
        /// The programs.
        programs: Vec<u32>,
    },
    /// Agents are running.
    #[error("agents still run below {}; end them first, or they would go on without interception", path.display())]
    AgentsRun {
        /// The agents' cgroup.
        path: PathBuf,
    },
    /// The kernel did not take the object.
    #[error(
        "the kernel refused the programs (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN): {0}"
    )]
    Object(#[from] aya::EbpfError),
    /// The kernel did not take a program.
    #[error("the kernel refused the program `{name}`: {source}")]
    Program {
        /// Its name in the object.
        name: &'static str,
        /// Why.
        source: aya::programs::ProgramError,
    },
    /// A program could not be attached.
    #[error("hook {hook} cannot be attached at {} (EPERM here means that an exclusive program stands above it): {source}", path.display())]
    Attach {
        /// The hook.
        hook: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object lacks what the loader knows of.
    #[error("the object has no `{name}`")]
    Missing {
        /// Map or program.
        name: &'static str,
    },
    /// A map could not be read or written.
    #[error("{doing}: {source}")]
    Map {
        /// What was done.
        doing: &'static str,
        /// Why not.
        source: MapError,
    },
    /// A record makes no sense.
    #[error("the kernel's record names address family {family}")]
    Family {
        /// The family.
        family: u16,
    },
    /// The stream of refusals has a reader.
    #[error("the refusals are being read already")]
    RefusalsTaken,
    /// A file, a mount or a system call.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl KernelError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    fn map(doing: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { doing, source }
    }
}

/// The loaded programs. Dropping it leaves everything pinned and in force; only
/// nothing is redirected any more, since nobody listens.
pub struct Kernel {
    agents_cgroup: PathBuf,
    cgroup_root: PathBuf,
    /// Where the programs for accepted sockets stand.
    proxy_cgroup: PathBuf,
    /// The pins.
    folder: PathBuf,
    /// In the order in which they are attached, for further cgroups.
    programs: Vec<(&'static attach::Hook, OwnedFd)>,
    settings: Mutex<Array<MapData, Settings>>,
    listeners: Mutex<SkStorage<MapData, u64>>,
    origins: SkStorage<MapData, OriginRecord>,
    queries: HashMap<MapData, QueryKey, OriginRecord>,
    counters: PerCpuArray<MapData, u64>,
    unix_sockets: Mutex<HashMap<MapData, UnixName, UnixEntry>>,
    coverage: Mutex<PerCpuHashMap<MapData, u64, Coverage>>,
    when_down: Mutex<Array<MapData, WhenDown>>,
    went_direct: Mutex<PerCpuHashMap<MapData, u64, Direct>>,
    /// Whether connects go direct while no daemon is there.
    goes_direct: bool,
    unix_default: UnixDefault,
    /// Why the programs for Unix sockets are not in force, where they are not.
    without_unix: Option<String>,
    /// Where its reader begins is read when it is opened, and a daemon before this one
    /// may read until it has stopped: so it is opened when it is first asked for.
    refusals: Mutex<Option<Map>>,
    /// Move records into accepted sockets; end with this process, as those do.
    _proxy_links: Vec<OwnedFd>,
    /// The cgroup that the listeners were born in.
    listeners_cgroup: PathBuf,
    /// Keeps a second daemon off the same pins.
    lock: Mutex<Option<File>>,
}

// aya's maps say nothing of themselves.
impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("agents_cgroup", &self.agents_cgroup)
            .finish_non_exhaustive()
    }
}

/// An address as the kernel's records have it.
fn bytes(address: IpAddr) -> ([u8; 16], u16) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], AF_INET)
        }
        IpAddr::V6(address) => (address.octets(), AF_INET6),
    }
}

fn read(record: &OriginRecord) -> Result<Option<Origin>, KernelError> {
    if record.family == 0 {
        return Ok(None);
    }
    let Some(address) = address(record.family, record.address, record.port) else {
        return Err(KernelError::Family {
            family: record.family,
        });
    };
    Ok(Some(Origin {
        address,
        pid: record.tgid,
        uid: record.uid,
        gid: record.gid,
        comm: name(&record.comm),
        cgroup_id: record.cgroup_id,
    }))
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
    /// When anything is missing. What was in force before still is; a hook that was
    /// attached in the attempt stays and refuses.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        let kernel = attach::prepare(options, None)?;
        kernel.enforce()?;
        Ok(kernel)
    }

    /// Does the same where a daemon runs that hands over, up to the hooks: they have that
    /// daemon's programs until [`Kernel::enforce`].
    ///
    /// # Errors
    /// When anything is missing. What was in force before still is.
    pub fn take_over(options: &Options, handed: Handed) -> Result<Self, KernelError> {
        attach::prepare(options, Some(handed))
    }

    /// Has the hooks run these programs. By then the maps should say what they are to go by:
    /// from one that was refused nothing comes back.
    ///
    /// # Errors
    /// When the kernel does not attach one; those before it stand.
    pub fn enforce(&self) -> Result<(), KernelError> {
        attach::enforce(self)
    }

    /// A copy of the lock, for the next daemon; `None` once that has it.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_ref()
            .map(|file| file.try_clone().map(OwnedFd::from))
            .transpose()
    }

    /// Leaves the lock to the next daemon: were that to die, another may start.
    pub fn release(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The cgroup that the listeners were born in.
    #[must_use]
    pub fn listeners_cgroup(&self) -> &Path {
        &self.listeners_cgroup
    }

    /// Marks a listening socket as the proxy's. Needed for `127.0.0.1` and for
    /// `::1`, both at the port given to [`Kernel::set_port`]; where one is not
    /// marked, connects of that family are refused.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn adopt_listener(&self, listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(&listener, LISTENER_MARK, 0)
            .map_err(KernelError::map("marking a listener"))
    }

    /// Sets the port that connects are redirected to; 0 refuses every connect.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn set_port(&self, port: u16) -> Result<(), KernelError> {
        let settings = Settings {
            abi: ABI,
            port,
            unix: match self.unix_default {
                UnixDefault::Own => UNIX_SAME,
                UnixDefault::Block => UNIX_BLOCK,
                UnixDefault::Record => UNIX_RECORD,
                UnixDefault::Allow => UNIX_ALLOW,
            },
        };
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .set(0, settings, 0)
            .map_err(KernelError::map("setting the proxy's port"))
    }

    /// What the kernel noted for an accepted socket. `None` means that no redirect
    /// made this connection: close it.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or its answer makes no sense.
    pub fn origin(&self, accepted: BorrowedFd<'_>) -> Result<Option<Origin>, KernelError> {
        let record = match self.origins.get(&accepted, 0) {
            Ok(record) => record,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(KernelError::map("reading a socket's origin")(error)),
        };
        read(&record)
    }

    /// Who asks for a name, by the address that its question came from, and which name
    /// server it asked. `None` means that no redirect made this question.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or its answer makes no sense.
    pub fn query(&self, from: SocketAddr) -> Result<Option<Origin>, KernelError> {
        let (agent, family) = bytes(from.ip());
        let key = QueryKey {
            agent,
            agent_port: from.port(),
            family,
            reserved: 0,
        };
        match self.queries.get(&key, 0) {
            Ok(record) => read(&record),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(KernelError::map("reading who asks for a name")(error)),
        }
    }

    /// The refusals. Only one stream sees each of them. Call inside a tokio runtime.
    ///
    /// # Errors
    /// When it was taken before, or the ring cannot be waited on.
    pub fn refusals(&self) -> Result<Refusals, KernelError> {
        let map = self
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or(KernelError::RefusalsTaken)?;
        Refusals::new(RingBuf::try_from(map).map_err(KernelError::map("opening a map"))?)
    }

    /// What the programs counted.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let mut counters = Counters {
            redirected: self.counter(COUNTER_REDIRECTED)?,
            accepted: self.counter(COUNTER_ACCEPTED)?,
            refused: Vec::new(),
            suppressed: self.counter(COUNTER_SUPPRESSED)?,
            lost: self.counter(COUNTER_LOST)?,
        };
        for reason in Reason::ALL {
            let count = self.counter(reason as u32)?;
            if count > 0 && reason.is_refusal() {
                counters.refused.push((reason, count));
            }
        }
        Ok(counters)
    }

    fn counter(&self, slot: u32) -> Result<u64, KernelError> {
        let values = self
            .counters
            .get(&slot, 0)
            .map_err(KernelError::map("reading a counter"))?;
        Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }

    /// The agents' parent cgroup, as an absolute path.
    #[must_use]
    pub fn agents_cgroup(&self) -> &Path {
        &self.agents_cgroup
    }

    /// The cgroup2 mount.
    #[must_use]
    pub fn cgroup_root(&self) -> &Path {
        &self.cgroup_root
    }
}

/// Takes everything out of force: detaches, unpins, unmounts, removes the cgroup.
/// Undoing what is not there is no error.
///
/// # Errors
/// When a daemon or an agent still runs, or something cannot be undone.
pub fn remove(options: &Options) -> Result<(), KernelError> {
    let _lock = pins::lock(&options.runtime_dir)?;
    let root = cgroup::root()?;
    let agents = cgroup::child(&root, &options.cgroup)?;
    if agents.is_dir() && cgroup::is_populated(&agents)? {
        return Err(KernelError::AgentsRun { path: agents });
    }
    pins::unmount(&options.runtime_dir)?;
    cgroup::remove_tree(&agents)
}

/// An address of a record, canonical.
fn address(family: u16, bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
    let ip = match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        _ => return None,
    };
    let ip = match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some(SocketAddr::new(ip, port))
}

/// A thread's name, which a process chooses freely: control characters are replaced.
fn name(comm: &[u8; 16]) -> String {
    let end = comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(comm.len());
    String::from_utf8_lossy(comm.get(..end).unwrap_or_default())
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_canonical_whatever_the_agent_wrote() {
        let mapped = Ipv4Addr::new(10, 0, 0, 5).to_ipv6_mapped().octets();
        assert_eq!(
            address(AF_INET6, mapped, 5432),
            Some("10.0.0.5:5432".parse().unwrap())
        );
        assert_eq!(
            address(AF_INET, [0; 16], 80),
            Some("127.0.0.1:80".parse().unwrap())
        );
        assert_eq!(
            address(AF_INET6, [0; 16], 80),
            Some("[::1]:80".parse().unwrap())
        );
        assert_eq!(
            address(
                AF_INET6,
                Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(),
                80
            ),
            Some("127.0.0.1:80".parse().unwrap())
        );
        assert_eq!(address(1, [0; 16], 80), None);
    }

    #[test]
    fn a_threads_name_brings_no_control_characters() {
        assert_eq!(name(b"ps\x1b[2Jql\0\0\0\0\0\0\0\0"), "ps\u{fffd}[2Jql");
        assert_eq!(name(&[b'x'; 16]), "xxxxxxxxxxxxxxxx");
    }
}

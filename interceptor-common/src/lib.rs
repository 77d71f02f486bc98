//! What crosses between the kernel programs and user space.
//!
//! Every type here is plain data whose layout the kernel programs, the maps that
//! outlive a daemon, and a newer daemon that takes those maps over all depend on.
//! So sizes are asserted, any bit pattern is a valid value, and a change that is
//! not compatible raises [`ABI`].
//!
//! Addresses are kept as the sixteen bytes that go over the wire (an IPv4 address
//! in the first four, the rest zero), ports in host byte order.
#![no_std]

/// Version of everything in this crate. Stands in [`Settings`]; pins of another
/// version are not taken over.
pub const ABI: u32 = 3;

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// Set in [`OriginRecord::flags`] once the flow is in the flow table. Egress asks
/// for it: a full table cannot stop the connect, but it stops the SYN.
pub const FLAG_STORED: u32 = 1;
/// Set in [`OriginRecord::flags`] of a socket that an agent's listener accepted.
pub const FLAG_PASSIVE: u32 = 2;
/// Set in [`OriginRecord::flags`] of a socket that goes where it was going, since nobody
/// listened.
pub const FLAG_DIRECT: u32 = 4;

/// Value that marks a listening socket as the proxy's.
pub const LISTENER_MARK: u64 = 0x696e_7465_7263_6570;

/// `SO_MARK` of the proxy's upstream sockets that go to a loopback address, so
/// that an agent's own server can tell its proxied visitors from strangers. A
/// process needs `CAP_NET_ADMIN` to set it.
pub const UPSTREAM_MARK: u32 = 0x1d7e_c0de;

/// A `setsockopt` of this level and name succeeds where the programs are in force,
/// and nowhere else. The hook that answers is the last that is attached, so its
/// answer speaks for all of them; whoever starts an agent asks it.
pub const PROBE_LEVEL: i32 = 0x1d7e;
/// See [`PROBE_LEVEL`].
pub const PROBE_NAME: i32 = 0xc0de;

/// What user space tells the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`ABI`] of who wrote this.
    pub abi: u32,
    /// The proxy's port on the loopback addresses; 0 refuses every connect.
    pub port: u16,
    /// What is done with a Unix socket that is not listed: one of `UNIX_*`.
    pub unix: u16,
}

/// [`Settings::unix`]: it is refused.
pub const UNIX_BLOCK: u16 = 0;
/// [`Settings::unix`]: it is connected, and on record.
pub const UNIX_RECORD: u16 = 1;
/// [`Settings::unix`]: it is connected.
pub const UNIX_ALLOW: u16 = 2;

/// [`Settings::unix`]: it is connected where a process of the same cgroup listens at it.
pub const UNIX_SAME: u16 = 3;

/// Where the kernel keeps what tells whose a Unix socket is: offsets in its structures, in
/// bytes. User space reads them from the kernel's own description; all zero where it could
/// not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixLayout {
    /// A socket's network namespace.
    pub net: u32,
    /// A socket's place in the table of Unix sockets.
    pub node: u32,
    /// That table's buckets, in the network namespace.
    pub buckets: u32,
    /// A Unix socket's name.
    pub name: u32,
    /// That name's length, the family's two bytes and a path's zero included.
    pub name_length: u32,
    /// That name's first byte.
    pub name_bytes: u32,
    /// A Unix socket's place in the file system.
    pub dentry: u32,
    /// A socket's cgroup.
    pub cgroup: u32,
    /// A cgroup's node.
    pub node_of_cgroup: u32,
    /// That node's id.
    pub id_of_node: u32,
    /// A file's folder.
    pub folder: u32,
    /// The length of a file's name.
    pub file_length: u32,
    /// A file's name.
    pub file_name: u32,
    /// What is null once a file was removed.
    pub file_hashed: u32,
    /// A task's credentials.
    pub cred: u32,
    /// Their user namespace.
    pub user_ns: u32,
    /// That namespace's number.
    pub number: u32,
    /// What a file's name stands for.
    pub inode: u32,
    /// The first of all names that stand for it.
    pub aliases: u32,
    /// A file's place among those.
    pub alias: u32,
    /// A task's place in the file system.
    pub fs: u32,
    /// The root folder of that.
    pub root: u32,
    /// One, where all of the above is known.
    pub known: u32,
}

/// Number of the first user namespace.
pub const FIRST_USER_NS: u32 = 0xefff_fffd;

/// Longest name of a Unix socket, as the kernel has it.
pub const SUN_PATH: usize = 108;
/// A Unix socket's name with zeros behind it: a path without its end, or a zero and an
/// abstract name. Longer than any name, so that words fit.
pub type UnixName = [u8; 112];

/// What is done with a Unix socket that is listed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixEntry {
    /// The name that is connected to in its place.
    pub to: UnixName,
    /// How many bytes of it count.
    pub length: u32,
    /// [`UNIX_TO_PROXY`], [`UNIX_TO_PATH`], [`UNIX_REFUSE`] or [`UNIX_OWN`].
    pub verdict: u32,
}

/// Stands in the programs where `bpf_cast_to_kern_ctx` is called.
pub const KFUNC_CAST: i32 = 0x1d7e_0001;
/// Stands in the programs where `bpf_sock_addr_set_sun_path` is called.
pub const KFUNC_SET_PATH: i32 = 0x1d7e_0002;

/// Stands in the programs where `bpf_iter_num_new` is called.
pub const KFUNC_COUNT: i32 = 0x1d7e_0003;
/// Stands in the programs where `bpf_iter_num_next` is called.
pub const KFUNC_NEXT: i32 = 0x1d7e_0004;
/// Stands in the programs where `bpf_iter_num_destroy` is called.
pub const KFUNC_COUNTED: i32 = 0x1d7e_0005;

/// To the proxy, which judges what is said.
pub const UNIX_TO_PROXY: u32 = 0;
/// To the path of which it is a name, unjudged and on record.
pub const UNIX_TO_PATH: u32 = 1;
/// Nowhere.
pub const UNIX_REFUSE: u32 = 2;
/// Nowhere: it is the daemon's own.
pub const UNIX_OWN: u32 = 3;
/// Nowhere, as if nobody listened, and counted without a report: for what a program asks
/// for at its start and does without.
pub const UNIX_ABSENT: u32 = 4;

/// Where a socket was going and who asked, as seen at `connect`. Lives in the
/// socket's own storage, so it needs no capacity and dies with the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OriginRecord {
    /// The destination as the agent gave it, unspecified made loopback.
    pub address: [u8; 16],
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Cgroup that the socket was born in.
    pub cgroup_id: u64,
    /// Process (thread group), in the host's PID namespace.
    pub tgid: u32,
    /// Effective user id, in the host's user namespace.
    pub uid: u32,
    /// Effective group id, in the host's user namespace.
    pub gid: u32,
    /// [`FLAG_STORED`], [`FLAG_PASSIVE`], [`FLAG_DIRECT`].
    pub flags: u32,
    /// The destination's port.
    pub port: u16,
    /// [`AF_INET`] or [`AF_INET6`]; 0 as long as nothing was connected.
    pub family: u16,
    /// With [`FLAG_DIRECT`]: the [`WhenDown::era`] that it belongs to.
    pub era: u32,
}

/// What holds while nobody listens. Written from user space only, by who listens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WhenDown {
    /// The network namespace in which connects go direct then, by its cookie; 0 for none.
    pub netns: u64,
    /// Another one with each daemon: what went direct before it began ends with the one
    /// before.
    pub era: u32,
    /// Not used; zero.
    pub reserved: u32,
}

/// The port of name servers. Datagrams to it go to the proxy's resolver, at the proxy's
/// own port.
pub const DNS_PORT: u16 = 53;

/// The socket that asks for a name, as the proxy's resolver sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryKey {
    /// The agent's address.
    pub agent: [u8; 16],
    /// The agent's port.
    pub agent_port: u16,
    /// [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// Not used; zero, since the kernel hashes all bytes.
    pub reserved: u32,
}

/// One redirected connection, as both of its ends can name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Network namespace; the same port in another one is another flow.
    pub netns: u64,
    /// The agent's address.
    pub agent: [u8; 16],
    /// The proxy's address.
    pub proxy: [u8; 16],
    /// The agent's port.
    pub agent_port: u16,
    /// The proxy's port.
    pub proxy_port: u16,
    /// [`AF_INET`] or [`AF_INET6`]; mapped addresses count as IPv4.
    pub family: u16,
    /// Not used; zero, since the kernel hashes all bytes.
    pub reserved: u16,
}

/// Why the kernel refused something.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A socket of a kind other than TCP and UDP was asked for.
    SocketKind = 0,
    /// `connect` of something other than TCP.
    ConnectKind = 1,
    /// A datagram to an address.
    Datagram = 2,
    /// `connect` of a socket that is bound to a device.
    DeviceBound = 3,
    /// The proxy does not listen (in this network namespace).
    NoListener = 4,
    /// `connect` to the proxy itself.
    Loop = 5,
    /// The socket's storage could not be had.
    NoStorage = 6,
    /// The flow table was full; the connection will never be established.
    FlowsFull = 7,
    /// `bind` to the proxy's port.
    ProxyPort = 8,
    /// A packet that no redirected flow accounts for.
    Egress = 9,
    /// A packet to an agent that neither the proxy nor loopback accounts for.
    Ingress = 10,
    /// A socket option that leads around the redirection.
    Option = 11,
    /// A Unix socket that agents may not connect to.
    UnixSocket = 12,
    /// A Unix socket of the daemon's own.
    OwnService = 13,
    /// A Unix socket that was connected unjudged: not refused, and on record.
    UnixUnjudged = 14,
}

impl Reason {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::SocketKind,
        Self::ConnectKind,
        Self::Datagram,
        Self::DeviceBound,
        Self::NoListener,
        Self::Loop,
        Self::NoStorage,
        Self::FlowsFull,
        Self::ProxyPort,
        Self::Egress,
        Self::Ingress,
        Self::Option,
        Self::UnixSocket,
        Self::OwnService,
        Self::UnixUnjudged,
    ];

    /// Whether something was refused.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        !matches!(self, Self::UnixUnjudged)
    }

    /// The reason with that number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// The word that stands in records and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SocketKind => "socket-kind",
            Self::ConnectKind => "connect-kind",
            Self::Datagram => "datagram",
            Self::DeviceBound => "device-bound",
            Self::NoListener => "no-listener",
            Self::Loop => "loop",
            Self::NoStorage => "no-storage",
            Self::FlowsFull => "flows-full",
            Self::ProxyPort => "proxy-port",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Option => "option",
            Self::UnixSocket => "unix-socket",
            Self::OwnService => "own-service",
            Self::UnixUnjudged => "unix-unjudged",
        }
    }
}

/// Slots of the counters: one a [`Reason`], then these.
pub const COUNTER_REDIRECTED: u32 = 32;
/// Reports left out because their cgroup made too many in a second.
pub const COUNTER_SUPPRESSED: u32 = 33;
/// Reports lost because the ring was full.
pub const COUNTER_LOST: u32 = 34;
/// Flows that moved into an accepted socket.
pub const COUNTER_ACCEPTED: u32 = 35;
/// How many slots there are.
pub const COUNTERS: u32 = 64;

/// What one cgroup did, on one CPU: a slot a [`Reason`], then those named `COVERED_*`.
pub type Coverage = [u64; 24];
/// Connects over TCP that were redirected.
pub const COVERED_REDIRECTED: usize = 16;
/// Questions for names that went to the proxy's resolver.
pub const COVERED_QUESTIONS: usize = 17;
/// Connects to Unix sockets that were redirected.
pub const COVERED_UNIX: usize = 18;
/// Connects and datagrams to Unix sockets at which the same cgroup listens.
pub const COVERED_SAME: usize = 19;

/// Connects, and questions for names, of one cgroup that went direct while nobody listened,
/// on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direct {
    /// How many.
    pub count: u64,
    /// The first one, in nanoseconds of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// The last one.
    pub until: u64,
}

/// How much of a packet is shown, or of a Unix socket's name.
pub const DETAIL: usize = 128;

/// One refusal, as it comes through the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalRecord {
    /// Where it was going; zero where nothing was said.
    pub address: [u8; 16],
    /// Name of the thread; empty where a packet was refused.
    pub comm: [u8; 16],
    /// Cgroup of the socket.
    pub cgroup_id: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// A [`Reason`].
    pub reason: u32,
    /// Process; 0 where a packet was refused.
    pub tgid: u32,
    /// Effective user id; all ones where a packet was refused.
    pub uid: u32,
    /// IP protocol number, as far as known; of an option, its level.
    pub protocol: u32,
    /// Port it was going to; of an option, its name.
    pub port: u16,
    /// [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// Reports of this cgroup that were left out since its last one.
    pub suppressed: u32,
    /// How many bytes of `detail` count.
    pub detail_length: u32,
    /// The packet's length; 0 where none was refused.
    pub length: u32,
    /// A packet's first bytes, from its IP header on; or a Unix socket's name.
    pub detail: [u8; DETAIL],
}

// The verifier, the pinned maps and the loader depend on these sizes: a field
// added on one side only must fail here, and not in the kernel. No padding, since
// the kernel hashes it and the verifier refuses to copy it out uninitialised.
const _: () = assert!(core::mem::size_of::<Settings>() == 8);
const _: () = assert!(core::mem::size_of::<OriginRecord>() == 64);
const _: () = assert!(core::mem::size_of::<FlowKey>() == 48);
const _: () = assert!(core::mem::size_of::<RefusalRecord>() == 208);
const _: () = assert!(core::mem::size_of::<QueryKey>() == 24);
const _: () = assert!(core::mem::size_of::<UnixEntry>() == 120);
const _: () = assert!(core::mem::size_of::<Direct>() == 24);
const _: () = assert!(core::mem::size_of::<WhenDown>() == 16);
const _: () = assert!(core::mem::size_of::<Direct>() <= core::mem::size_of::<Coverage>());
const _: () = assert!(Reason::ALL.len() <= COVERED_REDIRECTED);

// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Settings {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Direct {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for WhenDown {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for OriginRecord {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for FlowKey {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for QueryKey {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for UnixEntry {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for UnixLayout {}
// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for RefusalRecord {}

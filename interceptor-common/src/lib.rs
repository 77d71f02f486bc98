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
pub const ABI: u32 = 1;

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// Set in [`OriginRecord::flags`] once the flow is in the flow table. Egress asks
/// for it: a full table cannot stop the connect, but it stops the SYN.
pub const FLAG_STORED: u32 = 1;
/// Set in [`OriginRecord::flags`] of a socket that an agent's listener accepted.
pub const FLAG_PASSIVE: u32 = 2;

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
    /// Not used; zero.
    pub reserved: u16,
}

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
    /// [`FLAG_STORED`], [`FLAG_PASSIVE`].
    pub flags: u32,
    /// The destination's port.
    pub port: u16,
    /// [`AF_INET`] or [`AF_INET6`]; 0 as long as nothing was connected.
    pub family: u16,
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
}

impl Reason {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; 12] = [
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
    ];

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

/// One refusal, as it comes through the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// IP protocol number, as far as known.
    pub protocol: u32,
    /// Port it was going to.
    pub port: u16,
    /// [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// Reports of this cgroup that were left out since its last one.
    pub suppressed: u32,
}

// The verifier, the pinned maps and the loader depend on these sizes: a field
// added on one side only must fail here, and not in the kernel. No padding, since
// the kernel hashes it and the verifier refuses to copy it out uninitialised.
const _: () = assert!(core::mem::size_of::<Settings>() == 8);
const _: () = assert!(core::mem::size_of::<OriginRecord>() == 64);
const _: () = assert!(core::mem::size_of::<FlowKey>() == 48);
const _: () = assert!(core::mem::size_of::<RefusalRecord>() == 72);
const _: () = assert!(core::mem::size_of::<QueryKey>() == 24);

// SAFETY: `repr(C)` without padding, and any bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Settings {}
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
unsafe impl aya::Pod for RefusalRecord {}

//! The ways that are known, a row each.

/// Who tries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// An ordinary user's process in the cgroup, as `attach` brings it there.
    Attached,
    /// The same as root with all capabilities.
    Root,
    /// A process that `exec` started.
    Launched,
}

/// What is tried.
#[derive(Clone, Copy)]
pub(super) enum Try {
    /// A line for the helper.
    Line(&'static str),
    /// A line for a helper that ends behind it.
    Once(&'static str),
    /// Sends through a socket that was open when the agent was started.
    Inherited,
    /// Somebody outside connects to the agent's server.
    FromOutside,
    /// Somebody outside sends the agent a datagram.
    DatagramFromOutside,
}

/// What tells that it got out.
#[derive(Clone, Copy)]
pub(super) enum Sign {
    /// A frame with the row's IPv4 address.
    Frame4,
    /// A frame with the row's IPv6 address.
    Frame6,
    /// A frame with the row's link-local address.
    LinkLocal,
    /// A frame with the row's multicast group.
    Group4,
    /// The same for IPv6.
    Group6,
    /// A connection to the service on this host.
    Service,
    /// A connection, or a datagram, to the Unix socket.
    UnixSocket,
    /// The agent is told that it is connected.
    Connected,
    /// The agent is told anything but this.
    NotToldThat(&'static str),
    /// The agent is told that it is done.
    Told,
}

/// What is on record of it.
#[derive(Clone, Copy)]
pub(super) enum OnRecord {
    /// The proxy got it, and what it did with it.
    Flow,
    /// An alert of this reason, in which the row's address or this text stands.
    Alert(&'static str, &'static str),
    /// Nothing, and why.
    Nothing(&'static str),
}

pub(super) struct Row {
    /// The way, for a person.
    pub(super) way: &'static str,
    pub(super) who: Who,
    pub(super) does: Try,
    /// Hooks, each of which holds it alone; none where no hook sees it.
    pub(super) held_by: &'static [&'static str],
    /// Who tries where `exec` is what holds it, and did not start it.
    pub(super) unlaunched: Option<Who>,
    pub(super) sign: Sign,
    pub(super) on_record: OnRecord,
    /// What is told where this machine cannot do it, and what that means.
    pub(super) absent: &'static [(&'static str, &'static str)],
}

pub(super) const fn row(
    way: &'static str,
    does: Try,
    held_by: &'static [&'static str],
    sign: Sign,
    on_record: OnRecord,
) -> Row {
    Row {
        way,
        who: Who::Attached,
        does,
        held_by,
        unlaunched: None,
        sign,
        on_record,
        absent: &[],
    }
}

impl Row {
    pub(super) const fn by(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    /// Held by what `exec` does; shown by `other`, which it did not start.
    pub(super) const fn launched(mut self, other: Who) -> Self {
        self.who = Who::Launched;
        self.unlaunched = Some(other);
        self
    }

    pub(super) const fn absent(mut self, absent: &'static [(&'static str, &'static str)]) -> Self {
        self.absent = absent;
        self
    }
}

pub(super) use OnRecord::{Alert, Flow, Nothing};
pub(super) use Sign::{
    Connected, Frame4, Frame6, Group4, Group6, LinkLocal, NotToldThat, Service, Told, UnixSocket,
};
pub(super) use Try::{DatagramFromOutside, FromOutside, Inherited, Line, Once};

/// The call is refused before anything of ours is asked.
pub(super) const REFUSED_BEFORE: OnRecord = Nothing("nothing: the kernel refuses the call itself");
pub(super) const NO_RING: &[(&str, &str)] = &[
    ("error ENOSYS", "this kernel has no io_uring"),
    ("error EPERM", "io_uring is not allowed here"),
];

/// The ways. `{4}` and `{6}` are the row's addresses with a port, `{a4}` and `{a6}` without;
/// the rest is in [`World::line`].
pub(super) static ROWS: &[Row] = &[
    row(
        "TCP over IPv4",
        Line("tcp {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    ),
    row(
        "TCP over IPv6",
        Line("tcp {6}"),
        &["connect_v6", "egress"],
        Frame6,
        Flow,
    ),
    row(
        "TCP to `::ffff:a.b.c.d`",
        Line("tcp mapped {4}"),
        &["connect_v6", "egress"],
        Frame4,
        Flow,
    ),
    row(
        "TCP to a link-local address",
        Line("tcp {local}"),
        &["connect_v6", "egress"],
        LinkLocal,
        Flow,
    ),
    row(
        "TCP from an address that was bound",
        Line("tcp from {source} {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    ),
    row(
        "TCP, disconnected and connected elsewhere",
        Line("tcp again {first} {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    ),
    row(
        "TCP to a service on this host",
        Line("tcp 127.0.0.1:{service}"),
        &["connect_v4", "egress", "ingress"],
        Service,
        Flow,
    ),
    row(
        "TCP to `0.0.0.0`, which is this host",
        Line("tcp 0.0.0.0:{service}"),
        &["connect_v4", "egress", "ingress"],
        Service,
        Flow,
    ),
    row(
        "TCP to the proxy's own port",
        Line("tcp 127.0.0.1:{proxy}"),
        &["connect_v4", "egress", "ingress"],
        Connected,
        Alert("loop", "127.0.0.1:{proxy}"),
    ),
    row(
        "TCP from a socket bound to a device (`SO_BINDTODEVICE`)",
        Line("tcp device {device} {4}"),
        &["set_option", "connect_v4", "egress"],
        Frame4,
        Alert("option", "SO_BINDTODEVICE"),
    )
    .absent(&[(
        "error EPERM",
        "this kernel lets root alone bind to a device",
    )]),
    row(
        "TCP Fast Open by `MSG_FASTOPEN`",
        Line("fastopen send {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    ),
    row(
        "TCP Fast Open by `TCP_FASTOPEN_CONNECT`",
        Line("fastopen connect {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    ),
    row(
        "TCP Fast Open without a cookie: data in the first packet",
        Line("fastopen no-cookie {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    ),
    row(
        "a routing header of IPv6, and Fast Open",
        Line("routed {a6} [2001:db8:78::ffff]:4000"),
        &["set_option", "egress"],
        Frame6,
        Alert("option", "IPV6_RTHDR"),
    )
    .absent(&[
        ("error EINVAL", "this kernel has no segment routing"),
        ("error EPERM", "this kernel asks for CAP_NET_RAW"),
    ]),
    row(
        "a source route of IPv4, and Fast Open; with `CAP_NET_RAW`",
        Line("source-route {source} {a4} 198.18.1.249:4000"),
        &["set_option", "egress"],
        Frame4,
        Alert("option", "IP_OPTIONS"),
    )
    .by(Who::Root),
    row(
        "MPTCP",
        Line("mptcp {4}"),
        &["created", "connect_v4", "egress"],
        Frame4,
        Alert("socket-kind", "\"protocol\":262"),
    )
    .absent(&[
        ("error EPROTONOSUPPORT", "this kernel has no MPTCP"),
        ("error ENOPROTOOPT", "MPTCP is switched off"),
    ]),
    row(
        "`io_uring`: `SOCKET`, `CONNECT`",
        Line("ring stream {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    )
    .absent(NO_RING),
    row(
        "`io_uring`: `CONNECT` by the kernel's polling thread",
        Line("ring polled {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    )
    .absent(NO_RING),
    row(
        "`io_uring`: `SENDMSG` with `MSG_FASTOPEN`",
        Line("ring fastopen {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Flow,
    )
    .absent(NO_RING),
    row(
        "`io_uring`: `SEND` of a datagram to an address",
        Line("ring datagram {4}"),
        &["sendmsg_v4", "egress"],
        Frame4,
        Alert("datagram", "{4}"),
    )
    .absent(NO_RING),
    row(
        "`io_uring` at all",
        Line("ring stream {4}"),
        &[],
        NotToldThat("error EPERM"),
        REFUSED_BEFORE,
    )
    .launched(Who::Attached)
    .absent(NO_RING),
    row(
        "UDP over IPv4",
        Line("udp {4}"),
        &["sendmsg_v4", "egress"],
        Frame4,
        Alert("datagram", "{4}"),
    ),
    row(
        "UDP over IPv6",
        Line("udp {6}"),
        &["sendmsg_v6", "egress"],
        Frame6,
        Alert("datagram", "{6}"),
    ),
    row(
        "UDP to `::ffff:a.b.c.d`",
        Line("udp mapped {4}"),
        &["sendmsg_v4", "egress"],
        Frame4,
        Alert("datagram", "{4}"),
    ),
    row(
        "UDP, connected",
        Line("udp connected {4}"),
        &["connect_v4", "egress"],
        Frame4,
        Alert("connect-kind", "{4}"),
    ),
    row(
        "UDP to port 53 of any server",
        Line("udp {a4}:53"),
        &["sendmsg_v4", "egress"],
        Frame4,
        Nothing("the resolver gets it: questions are recorded, what is none is dropped"),
    ),
    row(
        "UDP-Lite",
        Line("udp-lite {4}"),
        &["created", "egress"],
        Frame4,
        Alert("socket-kind", "\"protocol\":136"),
    )
    .absent(&[("error EPROTONOSUPPORT", "this kernel has no UDP-Lite")]),
    row(
        "a ping socket over IPv4",
        Line("ping {4}"),
        &["created", "egress"],
        Frame4,
        Alert("socket-kind", "\"protocol\":1,"),
    ),
    row(
        "a ping socket over IPv6",
        Line("ping {6}"),
        &["created", "egress"],
        Frame6,
        Alert("socket-kind", "\"protocol\":58,"),
    ),
    row(
        "joining a multicast group, which the kernel reports, IPv4",
        Line("join {group4} 198.18.0.1"),
        &["set_option"],
        Group4,
        Alert("option", "IP_ADD_MEMBERSHIP"),
    ),
    row(
        "the same, IPv6",
        Line("join {group6} {device}"),
        &["set_option"],
        Group6,
        Alert("option", "IPV6_ADD_MEMBERSHIP"),
    ),
    row(
        "a raw socket, with `CAP_NET_RAW`",
        Line("raw {4}"),
        &["created", "egress"],
        Frame4,
        Alert("socket-kind", "\"protocol\":253"),
    )
    .by(Who::Root),
    row(
        "a packet socket (`AF_PACKET`), with `CAP_NET_RAW`",
        Line("packet {device} {4}"),
        &[],
        Frame4,
        REFUSED_BEFORE,
    )
    .launched(Who::Root),
    row(
        "a socket to the hypervisor (`AF_VSOCK`)",
        Line("vsock"),
        &[],
        Told,
        REFUSED_BEFORE,
    )
    .launched(Who::Attached)
    .absent(&[("error EAFNOSUPPORT", "this kernel has no AF_VSOCK")]),
    row(
        "a question that the kernel asks as root (`request_key`)",
        Line("key ways.example"),
        &[],
        NotToldThat("error EPERM"),
        REFUSED_BEFORE,
    )
    .launched(Who::Attached)
    .absent(&[("error ENOSYS", "this kernel keeps no keys")]),
    row(
        "another's Unix socket",
        Line("unix {unix}"),
        &["unix_connect"],
        UnixSocket,
        Alert("unix-socket", "{unix}"),
    ),
    row(
        "a datagram to another's Unix socket",
        Line("unix-datagram {datagrams}"),
        &["unix_sendmsg"],
        UnixSocket,
        Alert("unix-socket", "{datagrams}"),
    ),
    row(
        "a socket that somebody outside hands over (`SCM_RIGHTS`)",
        Line("received {offer}"),
        &["unix_connect"],
        Frame4,
        Alert("unix-socket", "{offer}"),
    ),
    row(
        "a socket that was open at the start",
        Inherited,
        &[],
        Frame4,
        Nothing("nothing: it is closed before the agent's first instruction"),
    )
    .launched(Who::Attached),
    row(
        "a socket taken from a process of the same user (`pidfd_getfd`)",
        Line("taken {victim} 77"),
        &[],
        Frame4,
        REFUSED_BEFORE,
    )
    .launched(Who::Attached)
    .absent(&[(
        "error EPERM",
        "this machine keeps processes of one user apart",
    )]),
    row(
        "leaving the cgroup",
        Once("leave {procs} udp {4}"),
        &[],
        Frame4,
        Nothing("nothing: the file is root's, and an agent is not"),
    )
    .launched(Who::Root),
    row(
        "a user and a network namespace of its own",
        Once("namespaces tcp {4}"),
        &["connect_v4"],
        NotToldThat("error EPERM"),
        Alert("no-listener", "{4}"),
    )
    .absent(&[("error EPERM", "ordinary users may make no namespaces here")]),
    row(
        "taking the proxy's port, IPv4",
        Line("bind 127.0.0.9:{proxy}"),
        &["bind_v4"],
        NotToldThat("error EPERM"),
        Alert("proxy-port", ":{proxy}"),
    ),
    row(
        "taking the proxy's port, IPv6",
        Line("bind [::1]:{proxy}"),
        &["bind_v6"],
        NotToldThat("error EPERM"),
        Alert("proxy-port", ":{proxy}"),
    ),
    row(
        "a connection from outside to an agent's server",
        FromOutside,
        &["ingress", "egress"],
        Frame4,
        Alert("ingress", "{a4}"),
    ),
    row(
        "a datagram from outside to an agent",
        DatagramFromOutside,
        &["ingress"],
        Told,
        Alert("ingress", "{a4}"),
    ),
];

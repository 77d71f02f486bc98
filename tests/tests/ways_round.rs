//! Every way round that is known, tried: with everything in force nothing of it leaves, and
//! with what catches it taken out it does.
//!
//! One row a way. Each is tried three times over: with all hooks in force; where several
//! catch it, with each of them alone; and with all of them out, which shows that the row
//! can fail. Who sees what leaves is a packet socket at the other end of a wire. What is on
//! record of it is looked up in the store.
//!
//! The table is `docs/ways-round.md`; this test holds it to the rows.
//! `INTERCEPTOR_WRITE_DOCS=1` writes it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests; a row that was not run must be seen"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::hooks::Hooks;
use interceptor_tests::place::Place;
use interceptor_tests::records::Records;
use interceptor_tests::redis::Redis;
use interceptor_tests::wire::{self, Wire};
use interceptor_tests::{eventually, needs};
use serde_json::{Value, json};

const HELPER: &str = env!("CARGO_BIN_EXE_ways-helper");
const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ways-round.md");
const TABLE_BEGINS: &str = "<!-- the table: held to the test by itself -->\n";
const TABLE_ENDS: &str = "<!-- its end -->\n";
/// Where an inherited socket stands.
const INHERITED: RawFd = 77;
/// Names for what holds a way that no hook sees: what `exec` does.
const LAUNCHER: &str = "`exec`";

/// Who tries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// An ordinary user's process in the cgroup, as `attach` brings it there.
    Attached,
    /// The same as root with all capabilities.
    Root,
    /// A process that `exec` started.
    Launched,
}

/// What is tried.
#[derive(Clone, Copy)]
enum Try {
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
enum Sign {
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
enum OnRecord {
    /// The proxy got it, and what it did with it.
    Flow,
    /// An alert of this reason, in which the row's address or this text stands.
    Alert(&'static str, &'static str),
    /// Nothing, and why.
    Nothing(&'static str),
}

struct Row {
    /// The way, for a person.
    way: &'static str,
    who: Who,
    does: Try,
    /// Hooks, each of which holds it alone; none where no hook sees it.
    held_by: &'static [&'static str],
    /// Who tries where `exec` is what holds it, and did not start it.
    unlaunched: Option<Who>,
    sign: Sign,
    on_record: OnRecord,
    /// What is told where this machine cannot do it, and what that means.
    absent: &'static [(&'static str, &'static str)],
}

const fn row(
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
    const fn by(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    /// Held by what `exec` does; shown by `other`, which it did not start.
    const fn launched(mut self, other: Who) -> Self {
        self.who = Who::Launched;
        self.unlaunched = Some(other);
        self
    }

    const fn absent(mut self, absent: &'static [(&'static str, &'static str)]) -> Self {
        self.absent = absent;
        self
    }
}

use OnRecord::{Alert, Flow, Nothing};
use Sign::{
    Connected, Frame4, Frame6, Group4, Group6, LinkLocal, NotToldThat, Service, Told, UnixSocket,
};
use Try::{DatagramFromOutside, FromOutside, Inherited, Line, Once};

/// The call is refused before anything of ours is asked.
const REFUSED_BEFORE: OnRecord = Nothing("nothing: the kernel refuses the call itself");
const NO_RING: &[(&str, &str)] = &[
    ("error ENOSYS", "this kernel has no io_uring"),
    ("error EPERM", "io_uring is not allowed here"),
];

/// The ways. `{4}` and `{6}` are the row's addresses with a port, `{a4}` and `{a6}` without;
/// the rest is in [`World::line`].
static ROWS: &[Row] = &[
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

/// A helper that answers lines.
struct Lines {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Lines {
    fn of(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a helper")?;
        Ok(Self {
            input: child.stdin.take().context("no input")?,
            output: BufReader::new(child.stdout.take().context("no output")?),
            child,
        })
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.input, "{line}")?;
        self.next()
    }

    fn next(&mut self) -> Result<String> {
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the helper ended");
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a descriptor where a program that is started finds it.
fn inherit(command: &mut Command, socket: RawFd) {
    // SAFETY: a system call alone, which allocates nothing.
    unsafe {
        command.pre_exec(move || match libc::dup2(socket, INHERITED) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// A helper of an ordinary user, or of root, in a cgroup, without anything that `exec` does.
fn in_cgroup(cgroup: Option<&Path>, ordinary: bool, words: &[&str]) -> Result<Command> {
    let user = needs::ordinary_user()?;
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let procs = cgroup
        .map(|path| {
            std::fs::File::options()
                .write(true)
                .open(path.join("cgroup.procs"))
        })
        .transpose()?;
    let mut command = Command::new(HELPER);
    command.args(words).current_dir("/");
    // SAFETY: system calls alone, which allocate nothing.
    unsafe {
        command.pre_exec(move || {
            let check = |done: libc::c_int| match done {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            };
            if let Some(procs) = &procs
                && libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
            {
                return Err(std::io::Error::last_os_error());
            }
            if ordinary {
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(gid, gid, gid))?;
                check(libc::setresuid(uid, uid, uid))?;
                check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
            Ok(())
        });
    }
    Ok(command)
}

/// One run of an agent, with processes in it that `exec` started and that it did not.
struct Run {
    cgroup: PathBuf,
    launched: Lines,
    attached: Lines,
    root: Lines,
}

impl Run {
    fn start(daemon: &Daemon, name: &str) -> Result<Self> {
        let mut launched = Lines::of(Agent::new(daemon, name).command(&[HELPER])?)?;
        launched.ask("pid")?;
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", launched.child.id()))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let cgroup = interceptor_user::kernel::cgroup::root()?.join(path.context("a cgroup")?);
        Ok(Self {
            launched,
            attached: Lines::of(in_cgroup(Some(&cgroup), true, &[])?)?,
            root: Lines::of(in_cgroup(Some(&cgroup), false, &[])?)?,
            cgroup,
        })
    }

    fn lines(&mut self, who: Who) -> &mut Lines {
        match who {
            Who::Attached => &mut self.attached,
            Who::Root => &mut self.root,
            Who::Launched => &mut self.launched,
        }
    }
}

/// What is outside of interception on this host, for agents to reach.
struct Services {
    tcp: u16,
    connections: Arc<AtomicUsize>,
    folder: tempfile::TempDir,
    unix: Arc<AtomicUsize>,
    /// Holds a connected socket at `INHERITED`, as the agents' user.
    victim: Lines,
    victims_socket: UdpSocket,
}

impl Services {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let tcp = listener.local_addr()?.port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for _ in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let folder = tempfile::tempdir()?;
        let open =
            |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777));
        open(folder.path())?;
        let unix = Arc::new(AtomicUsize::new(0));
        let stream = UnixListener::bind(folder.path().join("unix"))?;
        open(&folder.path().join("unix"))?;
        let counted = Arc::clone(&unix);
        std::thread::spawn(move || {
            for _ in stream.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let datagrams = UnixDatagram::bind(folder.path().join("datagrams"))?;
        open(&folder.path().join("datagrams"))?;
        let counted = Arc::clone(&unix);
        std::thread::spawn(move || {
            while datagrams.recv(&mut [0; 16]).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let victims_socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut victim = in_cgroup(None, true, &[])?;
        inherit(&mut victim, victims_socket.as_raw_fd());
        Ok(Self {
            tcp,
            connections,
            unix,
            victim: Lines::of(victim)?,
            victims_socket,
            folder,
        })
    }

    /// Hands a socket to whoever connects to a path that is made anew.
    fn offer(&self, to: SocketAddr) -> Result<PathBuf> {
        let path = self.folder.path().join("offer");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        std::thread::spawn(move || {
            use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            let descriptors = [socket.as_raw_fd()];
            let with = [ControlMessage::ScmRights(&descriptors)];
            let bytes = [std::io::IoSlice::new(b"x")];
            let _ = sendmsg::<()>(stream.as_raw_fd(), &bytes, &with, MsgFlags::empty(), None);
        });
        Ok(path)
    }
}

struct World {
    wire: Wire,
    redis: Redis,
    daemon: Daemon,
    hooks: Hooks,
    services: Services,
    proxy: u16,
    _place: Place,
}

impl World {
    fn start() -> Result<Self> {
        let wire = Wire::new()?;
        // Of this network namespace alone. Ports are free again at once, so that a stranger
        // can take the proxy's.
        std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")?;
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        let rules = "version: 1\nrules: []\n";
        let daemon = Daemon::start(&place, &redis.url(), rules, &json!({}))?;
        let status: Value = serde_json::from_str(&daemon.ask(&["status", "--json"])?)?;
        let proxy = status.get("port").and_then(Value::as_u64);
        let proxy = proxy.context("the proxy's port")?;
        Ok(Self {
            hooks: Hooks::of(&place.path("run")),
            services: Services::start()?,
            proxy: u16::try_from(proxy)?,
            wire,
            redis,
            daemon,
            _place: place,
        })
    }

    /// Fills in what a row leaves open; `number` is the row's.
    fn fill(&self, text: &str, number: usize) -> String {
        let (v4, v6) = addresses(number);
        let path = |name| self.services.folder.path().join(name).display().to_string();
        let index = nix_index(wire::DEVICE);
        let root = interceptor_user::kernel::cgroup::root().unwrap_or_default();
        [
            ("{4}", format!("{v4}:4000")),
            ("{6}", format!("[{v6}]:4000")),
            ("{a4}", v4.to_string()),
            ("{a6}", v6.to_string()),
            ("{local}", format!("[fe80::78%{index}]:4000")),
            ("{source}", format!("{}:0", wire::INSIDE)),
            ("{first}", "198.18.1.249:4000".to_owned()),
            ("{device}", wire::DEVICE.to_owned()),
            ("{service}", self.services.tcp.to_string()),
            ("{proxy}", self.proxy.to_string()),
            ("{group4}", group4(number).to_string()),
            ("{group6}", group6(number).to_string()),
            ("{unix}", path("unix")),
            ("{datagrams}", path("datagrams")),
            ("{offer}", path("offer")),
            ("{victim}", self.services.victim.child.id().to_string()),
            ("{procs}", root.join("cgroup.procs").display().to_string()),
        ]
        .into_iter()
        .fold(text.to_owned(), |text, (hole, with)| {
            text.replace(hole, &with)
        })
    }

    /// Has somebody try; says what was answered, and whether it got out.
    fn attempt(&self, run: &mut Run, row: &Row, number: usize, who: Who) -> Result<(String, bool)> {
        let (v4, _) = addresses(number);
        let to = SocketAddr::new(v4, 4000);
        let before = self.count(row, number);
        self.services.victims_socket.connect(to)?;
        if matches!(row.does, Line("received {offer}")) {
            self.services.offer(to)?;
        }
        let answer = match row.does {
            Line(line) => run.lines(who).ask(&self.fill(line, number))?,
            Once(line) => {
                let line = self.fill(line, number);
                let words: Vec<&str> = line.split(' ').collect();
                self.once(run, who, &[&["once"], words.as_slice()].concat(), None)?
            }
            Inherited => {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(to)?;
                let words = ["once", "inherited", "77"];
                self.once(run, who, &words, Some(socket.as_raw_fd()))?
            }
            FromOutside => {
                let said = run.lines(who).ask("listen 0.0.0.0:0")?;
                let port = port_of(&said)?;
                self.wire.outside(move || knock(v4, port))?
            }
            DatagramFromOutside => {
                let said = run.lines(who).ask("receive 0.0.0.0:0")?;
                let port = port_of(&said)?;
                self.wire.outside(move || -> Result<usize> {
                    let socket = UdpSocket::bind((v4, 0))?;
                    Ok(socket.send_to(b"in", (wire::INSIDE, port))?)
                })??;
                // Delivered, or dropped, within the call that sent it.
                run.lines(who).ask("received-any")?
            }
        };
        self.wire.settle()?;
        let is_out = match row.sign {
            Connected => answer == "ok connected",
            NotToldThat(word) => answer != word,
            Told => answer.starts_with("ok"),
            Service | UnixSocket => {
                // The other thread counts it a moment later.
                let arrived = || Ok(self.count(row, number) > before);
                eventually("an arrival", Duration::from_millis(80), arrived).is_ok()
            }
            _ => self.count(row, number) > before,
        };
        Ok((answer, is_out))
    }

    /// A process that does one thing.
    fn once(
        &self,
        run: &Run,
        who: Who,
        words: &[&str],
        inherited: Option<RawFd>,
    ) -> Result<String> {
        let mut command = match who {
            Who::Launched => {
                let words = [&[HELPER], words].concat();
                Agent::new(&self.daemon, "ways-once").command(&words)?
            }
            _ => in_cgroup(Some(&run.cgroup), who == Who::Attached, words)?,
        };
        if let Some(socket) = inherited {
            inherit(&mut command, socket);
        }
        Lines::of(command)?.next()
    }

    /// How much of what a row's sign is was seen so far.
    fn count(&self, row: &Row, number: usize) -> usize {
        let (v4, v6) = addresses(number);
        match row.sign {
            Frame4 => self.wire.seen(v4),
            Frame6 => self.wire.seen(v6),
            LinkLocal => self.wire.seen("fe80::78".parse().expect("an address")),
            Group4 => self.wire.seen(group4(number)),
            Group6 => self.wire.seen(group6(number)),
            Service => self.services.connections.load(Ordering::SeqCst),
            UnixSocket => self.services.unix.load(Ordering::SeqCst),
            Connected | NotToldThat(_) | Told => 0,
        }
    }

    /// Waits until what a row should leave on record is there.
    fn is_on_record(&self, row: &Row, number: usize) -> Result<()> {
        let mut records = Records::of(&self.redis)?;
        let what = format!("a record of: {}", row.way);
        match row.on_record {
            Nothing(_) => Ok(()),
            Flow => {
                let address = match row.sign {
                    Frame6 => self.fill("{6}", number),
                    LinkLocal => "fe80::78".to_owned(),
                    Service => format!("127.0.0.1:{}", self.services.tcp),
                    _ => self.fill("{4}", number),
                };
                eventually(&what, SOON, || {
                    let sessions = records.stream("interceptor:sessions")?;
                    let alerts = records.stream("interceptor:alerts")?;
                    Ok([sessions, alerts].iter().flatten().any(|entry| {
                        let text = text_of(entry);
                        text.contains(&address) && text.contains("ways-held")
                    }))
                })
            }
            Alert(reason, text) => {
                let text = self.fill(text, number);
                let reason = format!("\"reason\":\"{reason}\"");
                eventually(&what, SOON, || {
                    let alerts = records.stream("interceptor:alerts")?;
                    Ok(alerts.iter().any(|alert| {
                        let all = text_of(alert);
                        [reason.as_str(), text.as_str(), "\"ways-held\""]
                            .iter()
                            .all(|word| all.contains(word))
                    }))
                })
            }
        }
    }
}

fn text_of(entry: &interceptor_tests::records::Fields) -> String {
    let fields = entry.values().map(|value| String::from_utf8_lossy(value));
    fields.collect::<Vec<_>>().join(" ")
}

/// A row's addresses outside. All are of one length, so that none is another's beginning.
fn addresses(number: usize) -> (IpAddr, IpAddr) {
    let v4 = format!("198.18.1.{}", 100 + number);
    let v6 = format!("2001:db8:78::{}", 100 + number);
    (
        v4.parse().expect("an address"),
        v6.parse().expect("an address"),
    )
}

fn group4(number: usize) -> IpAddr {
    Ipv4Addr::new(239, 77, 0, u8::try_from(100 + number).expect("a byte")).into()
}

fn group6(number: usize) -> IpAddr {
    format!("ff05::78:{}", 100 + number)
        .parse()
        .expect("a group")
}

fn nix_index(device: &str) -> u32 {
    let name = std::ffi::CString::new(device).expect("a name");
    // SAFETY: the string ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

fn port_of(said: &str) -> Result<u16> {
    let at: SocketAddr = said.trim_start_matches("ok ").parse()?;
    Ok(at.port())
}

/// Connects from outside; only frames count.
fn knock(from: IpAddr, port: u16) -> String {
    let tried = || -> Result<TcpStream> {
        let kind = Some(socket2::Protocol::TCP);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, kind)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        let to = SocketAddr::new(wire::INSIDE.into(), port);
        socket.connect_timeout(&to.into(), Duration::from_millis(80))?;
        Ok(socket.into())
    };
    match tried() {
        Ok(_) => "ok connected".to_owned(),
        Err(error) => format!("error {error:#}"),
    }
}

/// What a row came to.
struct Outcome {
    failures: Vec<String>,
    not_run: Option<&'static str>,
}

#[test]
fn no_way_round_is_open_and_each_is_where_its_hook_is_gone() {
    if !needs::kernel().expect("this test needs the kernel") {
        return;
    }
    let world = World::start().expect("the world starts");
    world.daemon.watch(|| whole(&world)).expect("the test runs");
}

fn whole(world: &World) -> Result<()> {
    let numbered = || ROWS.iter().enumerate();
    let mut outcomes: Vec<Outcome> = Vec::new();
    // All in force.
    let mut held = Run::start(&world.daemon, "ways-held")?;
    for (number, row) in numbered() {
        let mut outcome = Outcome {
            failures: Vec::new(),
            not_run: None,
        };
        if let Some(missing) = row.held_by.iter().find(|hook| !world.hooks.has(hook)) {
            assert!(missing.starts_with("unix"), "{missing} is not in force");
            outcome.not_run = Some("Linux has hooks for Unix sockets since 6.7");
        } else {
            let (answer, is_out) = world.attempt(&mut held, row, number, row.who)?;
            if is_out {
                outcome.failures.push(format!("got out: {answer}"));
            }
        }
        outcomes.push(outcome);
    }
    let strays = world.wire.strays();
    ensure!(strays.is_empty(), "frames of nobody's: {strays:02x?}");
    for ((number, row), outcome) in numbered().zip(&mut outcomes) {
        if outcome.not_run.is_none()
            && let Err(error) = world.is_on_record(row, number)
        {
            outcome.failures.push(format!("{error:#}"));
        }
    }
    // Each hook alone, and none. Another run, of which no report is left out.
    let mut open = Run::start(&world.daemon, "ways-open")?;
    for ((number, row), outcome) in numbered().zip(&mut outcomes) {
        if outcome.not_run.is_none() {
            taken_out(world, &mut open, row, number, outcome)?;
        }
    }
    drop((held, open));
    let table = table(&outcomes);
    eprintln!("{table}");
    for ((_, row), outcome) in numbered().zip(&outcomes) {
        if let Some(why) = outcome.not_run {
            eprintln!("NOT RUN: {}: {why}", row.way);
        }
    }
    let failures: Vec<String> = numbered()
        .zip(&outcomes)
        .flat_map(|((_, row), outcome)| {
            let one = |failure: &String| format!("{}: {failure}", row.way);
            outcome.failures.iter().map(one).collect::<Vec<_>>()
        })
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    while_the_daemon_is_down(world)
}

/// Tries a row with what holds it taken out.
fn taken_out(
    world: &World,
    run: &mut Run,
    row: &Row,
    number: usize,
    outcome: &mut Outcome,
) -> Result<()> {
    if row.held_by.len() > 1 {
        for alone in row.held_by {
            let others = row.held_by.iter().copied().filter(|hook| hook != alone);
            let out = world.hooks.take_out(others)?;
            let (answer, is_out) = world.attempt(run, row, number, row.who)?;
            drop(out);
            if is_out {
                let what = format!("got out where {alone} alone was in force: {answer}");
                outcome.failures.push(what);
            }
        }
    }
    let out = world.hooks.take_out(row.held_by.iter().copied())?;
    let who = row.unlaunched.unwrap_or(row.who);
    let (answer, is_out) = world.attempt(run, row, number, who)?;
    drop(out);
    if let Some((_, why)) = row.absent.iter().find(|(said, _)| *said == answer) {
        outcome.not_run = Some(why);
    } else if !is_out {
        let what = format!("stays in where nothing holds it, so this row shows nothing: {answer}");
        outcome.failures.push(what);
    }
    Ok(())
}

/// The programs stay; nobody takes the proxy's place.
fn while_the_daemon_is_down(world: &World) -> Result<()> {
    let mut run = Run::start(&world.daemon, "ways-down")?;
    world.daemon.kill()?;
    let mut says = |line: &str| run.attached.ask(&world.fill(line, 0));
    for line in ["tcp {4}", "bind 127.0.0.1:{proxy}"] {
        ensure!(says(line)? == "error EPERM", "{line} without a daemon");
    }
    // With the port taken all the same, connects go to no stranger's listener.
    let out = world.hooks.take_out(["bind_v4"])?;
    let at = world.fill("listen 127.0.0.1:{proxy}", 0);
    let said = says(&at)?;
    ensure!(said.starts_with("ok"), "{at}: {said}");
    drop(out);
    ensure!(
        says("tcp {4}")? == "error EPERM",
        "a connect reached a stranger"
    );
    drop(run);
    // What was refused meanwhile is on record once somebody reads it.
    world.daemon.restart()?;
    let mut records = Records::of(&world.redis)?;
    eventually("a record of what happened without a daemon", SOON, || {
        let alerts = records.stream("interceptor:alerts")?;
        Ok(["proxy-port", "no-listener"].iter().all(|reason| {
            alerts.iter().any(|alert| {
                let text = text_of(alert);
                text.contains(reason) && text.contains("ways-down")
            })
        }))
    })
}

/// The table with what came of each row, for whoever runs the test.
fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for (row, outcome) in ROWS.iter().zip(outcomes) {
        let came = match outcome {
            Outcome {
                not_run: Some(_), ..
            } => "NOT RUN",
            Outcome { failures, .. } if failures.is_empty() => "held",
            _ => "FAILED",
        };
        let _ = writeln!(text, "{came:8} {:64} {}", row.way, held_by(row));
    }
    text
}

fn held_by(row: &Row) -> String {
    if row.held_by.is_empty() {
        return LAUNCHER.to_owned();
    }
    let hooks = row.held_by.iter().map(|hook| format!("`{hook}`"));
    hooks.collect::<Vec<_>>().join(" or ")
}

/// The table as the document has it.
fn documented() -> String {
    let mut text = "| way round | held by | on record |\n| --- | --- | --- |\n".to_owned();
    for row in ROWS {
        let on_record = match row.on_record {
            Flow => "as a session, or its refusal".to_owned(),
            Alert(reason, _) => format!("alert `{reason}`"),
            Nothing(why) => why.to_owned(),
        };
        let _ = writeln!(text, "| {} | {} | {on_record} |", row.way, held_by(row));
    }
    text
}

fn the_document_has(table: &str) -> Result<()> {
    let text = std::fs::read_to_string(DOC).context("reading docs/ways-round.md")?;
    let (before, rest) = text.split_once(TABLE_BEGINS).context("the table's begin")?;
    let (have, after) = rest.split_once(TABLE_ENDS).context("the table's end")?;
    if have == table {
        return Ok(());
    }
    if std::env::var_os("INTERCEPTOR_WRITE_DOCS").is_some() {
        let new = [before, TABLE_BEGINS, table, TABLE_ENDS, after].concat();
        return Ok(std::fs::write(DOC, new)?);
    }
    anyhow::bail!(
        "docs/ways-round.md has another table than this test's rows: run it with INTERCEPTOR_WRITE_DOCS=1"
    )
}

#[test]
fn the_document_lists_the_ways_that_are_tried() {
    the_document_has(&documented()).expect("the document is up to date");
}

//! The kernel programs, on the kernel that runs: what is redirected, what is refused,
//! and what is left when the daemon is gone.
//!
//! The proxy here is a thread that tells each connection its origin. Agents are
//! processes of an ordinary user in an agents' cgroup; see `kernel-helper`.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests, in which clippy.toml allows it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::{eventually, needs};
use interceptor_user::config::UnixDefault;
use interceptor_user::kernel::{self, Kernel, Options, Origin, Reason, Refusals, cgroup};

const SOON: Duration = Duration::from_secs(10);
const HELPER: &str = env!("CARGO_BIN_EXE_kernel-helper");

/// Loading moves this process into a cgroup, and listeners keep the one that they
/// were born in: one interception at a time is set up here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cgroup and a folder that no other test has, taken out of force at the end.
struct Place {
    options: Options,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new(max_flows: u32) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir()?;
        Ok(Self {
            options: Options {
                cgroup: format!(
                    "itest-{}-{}",
                    std::process::id(),
                    NEXT.fetch_add(1, Ordering::Relaxed)
                ),
                runtime_dir: folder.path().to_owned(),
                max_flows,
                unix: UnixDefault::Allow,
                goes_direct: false,
            },
            _folder: folder,
        })
    }

    fn agents(&self) -> Result<PathBuf> {
        Ok(cgroup::root()?.join(&self.options.cgroup))
    }

    fn links(&self) -> PathBuf {
        self.options.runtime_dir.join("bpf/links")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Processes that were killed a moment ago may still be on their way out.
        let removed = eventually("the end of the agents", SOON, || {
            kernel::remove(&self.options)?;
            Ok(true)
        });
        let own = cgroup::root().map(|root| root.join(format!("{}-proxy", self.options.cgroup)));
        if let Ok(own) = own
            && own.is_dir()
        {
            let root = cgroup::root().expect("cgroup2");
            let _ = cgroup::place(&root, std::process::id());
            let _ = cgroup::remove_tree(&own);
        }
        if !std::thread::panicking() {
            removed.expect("interception is taken out of force");
        }
    }
}

/// The kernel programs with a proxy behind them.
struct Net {
    kernel: Arc<Kernel>,
    port: u16,
    place: Place,
    _alone: MutexGuard<'static, ()>,
}

impl Net {
    fn new() -> Result<Self> {
        Self::with(1024, true)
    }

    fn with(max_flows: u32, answers: bool) -> Result<Self> {
        let alone = alone();
        let place = Place::new(max_flows)?;
        let kernel = Arc::new(Kernel::load(&place.options)?);
        let port = if answers { listen(&kernel)? } else { 0 };
        Ok(Self {
            kernel,
            port,
            place,
            _alone: alone,
        })
    }

    fn agent(&self) -> Result<Agent> {
        Agent::start(&self.place, false)
    }

    fn refused(&self, reason: Reason) -> Result<u64> {
        let refused = self.kernel.counters()?.refused;
        Ok(refused
            .iter()
            .find(|(known, _)| *known == reason)
            .map_or(0, |(_, count)| *count))
    }
}

/// Listens on both loopback addresses, marks the listeners, and tells each connection
/// its origin.
fn listen(kernel: &Arc<Kernel>) -> Result<u16> {
    let v4 = TcpListener::bind("127.0.0.1:0")?;
    let port = v4.local_addr()?.port();
    let v6 = TcpListener::bind(("::1", port))?;
    for listener in [v4, v6] {
        kernel.adopt_listener(listener.as_fd())?;
        // The threads end with the test program; the programs may be gone before.
        let kernel = Arc::downgrade(kernel);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(kernel) = kernel.upgrade() else {
                    return;
                };
                let line = match kernel.origin(stream.as_fd()) {
                    Ok(Some(origin)) => origin.address.to_string(),
                    Ok(None) => "none".to_owned(),
                    Err(error) => error.to_string(),
                };
                let _ = stream.write_all(line.as_bytes());
            }
        });
    }
    kernel.set_port(port)?;
    Ok(port)
}

/// A process under interception.
struct Agent {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Agent {
    fn start(place: &Place, own_network: bool) -> Result<Self> {
        let cgroup = place.agents()?.join("run");
        cgroup::make(&cgroup)?;
        Self::start_in(&cgroup, own_network)
    }

    fn start_in(cgroup: &Path, own_network: bool) -> Result<Self> {
        let user = needs::ordinary_user()?;
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        let procs = std::fs::File::options()
            .write(true)
            .open(cgroup.join("cgroup.procs"))?;
        let mut command = Command::new(HELPER);
        command
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .current_dir("/");
        // SAFETY: system calls only, none of which allocates.
        unsafe {
            command.pre_exec(move || {
                let check = |result: libc::c_long| {
                    if result < 0 {
                        Err(std::io::Error::last_os_error())
                    } else {
                        Ok(())
                    }
                };
                check(libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) as libc::c_long)?;
                if own_network {
                    check(libc::c_long::from(libc::unshare(libc::CLONE_NEWNET)))?;
                }
                check(libc::c_long::from(libc::setgroups(0, std::ptr::null())))?;
                check(libc::c_long::from(libc::setresgid(gid, gid, gid)))?;
                check(libc::c_long::from(libc::setresuid(uid, uid, uid)))?;
                check(libc::c_long::from(libc::prctl(
                    libc::PR_SET_NO_NEW_PRIVS,
                    1,
                    0,
                    0,
                    0,
                )))
            });
        }
        let mut child = command.spawn().context("starting an agent")?;
        Ok(Self {
            input: child.stdin.take().context("no input")?,
            output: BufReader::new(child.stdout.take().context("no output")?),
            child,
        })
    }

    fn ask(&mut self, line: impl AsRef<str>) -> Result<String> {
        writeln!(self.input, "{}", line.as_ref())?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        anyhow::ensure!(!answer.is_empty(), "the agent ended");
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a test where the kernel may be used.
fn with_kernel(test: impl FnOnce() -> Result<()>) {
    if needs::kernel().expect("this test needs the kernel") {
        test().expect("the test runs");
    }
}

#[test]
fn there_are_more_flows_than_one_source_has_ports() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = net.agent()?;
        let said = agent.ask("crowd 24 2 203.0.113.7:5432")?;
        if said == "error ENOPROTOOPT" {
            println!("NOT RUN: this kernel cannot bound a socket's ports (Linux 6.3)");
            return Ok(());
        }
        let words: Vec<&str> = said.split(' ').collect();
        let ["ok", flows, sources] = words[..] else {
            panic!("{said}")
        };
        assert!(flows.parse::<u32>()? > 8, "{said}");
        assert!(sources.parse::<u32>()? > 4, "{said}");
        // A source of the agent's own stays.
        let said = agent.ask("from 127.0.0.99:0 connect 203.0.113.7:5432")?;
        assert!(said.ends_with(" 203.0.113.7:5432"), "{said}");
        Ok(())
    });
}

#[test]
fn every_tcp_connect_reaches_the_proxy_with_its_origin_and_sees_its_peer() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = net.agent()?;
        for (line, peer, origin) in [
            (
                "connect 203.0.113.7:5432",
                "203.0.113.7:5432",
                "203.0.113.7:5432",
            ),
            ("connect 127.0.0.1:5432", "127.0.0.1:5432", "127.0.0.1:5432"),
            ("connect 0.0.0.0:5432", "127.0.0.1:5432", "127.0.0.1:5432"),
            (
                "connect [2001:db8::7]:443",
                "[2001:db8::7]:443",
                "[2001:db8::7]:443",
            ),
            ("connect [::1]:443", "[::1]:443", "[::1]:443"),
            ("connect [::]:443", "[::1]:443", "[::1]:443"),
            (
                "mapped 203.0.113.7:80",
                "[::ffff:203.0.113.7]:80",
                "203.0.113.7:80",
            ),
            (
                "mapped 127.0.0.1:80",
                "[::ffff:127.0.0.1]:80",
                "127.0.0.1:80",
            ),
            ("mapped 0.0.0.0:80", "[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            (
                "from 127.0.0.9:0 connect 203.0.113.7:1",
                "203.0.113.7:1",
                "203.0.113.7:1",
            ),
        ] {
            assert_eq!(agent.ask(line)?, format!("ok {peer} {origin}"), "{line}");
        }
        let counters = net.kernel.counters()?;
        assert_eq!((counters.redirected, counters.accepted), (10, 10));
        assert_eq!(counters.refused, []);
        Ok(())
    });
}

#[test]
fn the_kernel_says_who_connected() {
    with_kernel(|| {
        let net = Net::with(1024, false)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        net.kernel.adopt_listener(listener.as_fd())?;
        net.kernel.set_port(listener.local_addr()?.port())?;
        let mut agent = net.agent()?;
        let pid: u32 = agent.ask("pid")?.trim_start_matches("ok ").parse()?;
        assert_eq!(agent.ask("begin 1 198.51.100.1:22")?, "ok 1");
        let (stream, _) = listener.accept()?;
        let user = needs::ordinary_user()?;
        assert_eq!(
            net.kernel.origin(stream.as_fd())?,
            Some(Origin {
                address: "198.51.100.1:22".parse()?,
                pid,
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                comm: "kernel-helper".to_owned(),
                cgroup_id: cgroup::id(&net.place.agents()?.join("run"))?,
            })
        );
        Ok(())
    });
}

#[test]
fn under_a_storm_of_connects_no_origin_is_ever_another_ones() {
    with_kernel(|| {
        let net = Net::with(65_536, true)?;
        let mut agent = net.agent()?;
        assert_eq!(agent.ask("storm 4 1000")?, "ok 2000 0 0");
        Ok(())
    });
}

#[test]
fn a_connection_that_no_redirect_made_has_no_origin() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut said = String::new();
        TcpStream::connect(("127.0.0.1", net.port))?.read_to_string(&mut said)?;
        assert_eq!(said, "none");
        said.clear();
        TcpStream::connect(("::1", net.port))?.read_to_string(&mut said)?;
        assert_eq!(said, "none");
        Ok(())
    });
}

#[test]
fn an_agent_that_asks_for_the_proxy_itself_is_refused() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = net.agent()?;
        let port = net.port;
        for to in [
            format!("connect 127.0.0.1:{port}"),
            format!("connect [::1]:{port}"),
            format!("connect 0.0.0.0:{port}"),
            format!("mapped 127.0.0.1:{port}"),
        ] {
            assert_eq!(agent.ask(&to)?, "error EPERM", "{to}");
        }
        assert_eq!(net.refused(Reason::Loop)?, 4);
        Ok(())
    });
}

#[test]
fn what_is_not_tcp_is_refused_with_a_plain_error_and_reported() {
    with_kernel(|| {
        let net = Net::new()?;
        let outside = UdpSocket::bind("127.0.0.1:0")?;
        outside.set_read_timeout(Some(Duration::from_millis(300)))?;
        let to = outside.local_addr()?;
        let mut agent = net.agent()?;
        let pid: u32 = agent.ask("pid")?.trim_start_matches("ok ").parse()?;
        let uid = needs::ordinary_user()?.uid.as_raw();

        // The last is MPTCP, as address family, type and protocol.
        let cases = [
            (format!("udp {to}"), "EPERM", Reason::Datagram, 17),
            (
                format!("udp-connect {to}"),
                "EPERM",
                Reason::ConnectKind,
                17,
            ),
            ("udp [::1]:9".to_owned(), "EPERM", Reason::Datagram, 17),
            (
                "socket 2 1 262".to_owned(),
                "EPROTONOSUPPORT",
                Reason::SocketKind,
                262,
            ),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut refusals: Refusals = net.kernel.refusals()?;
            for (line, error, reason, protocol) in cases {
                assert_eq!(agent.ask(&line)?, format!("error {error}"), "{line}");
                let refusal = tokio::time::timeout(SOON, refusals.next()).await??;
                assert_eq!(refusal.reason, reason, "{line}");
                assert_eq!(refusal.protocol, protocol, "{line}");
                assert_eq!(refusal.pid, Some(pid), "{line}");
                assert_eq!(refusal.uid, Some(uid), "{line}");
                assert_eq!(refusal.comm, "kernel-helper", "{line}");
                assert_eq!(
                    refusal.cgroup_id,
                    cgroup::id(&net.place.agents()?.join("run"))?
                );
                if line.ends_with(&to.to_string()) {
                    assert_eq!(refusal.address, Some(to));
                }
            }
            anyhow::Ok(())
        })?;
        assert!(outside.recv(&mut [0; 8]).is_err(), "a datagram got out");
        Ok(())
    });
}

#[test]
fn ping_and_raw_sockets_are_refused_even_to_those_who_might_have_them() {
    with_kernel(|| {
        let net = Net::new()?;
        // As root inside the cgroup, so that the hook and not the uid refuses.
        let run = net.place.agents()?.join("run");
        cgroup::make(&run)?;
        let status = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!(
                "echo $$ > {}/cgroup.procs; exec {HELPER} agent",
                run.display()
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map(|mut child| Agent {
                input: child.stdin.take().expect("input"),
                output: BufReader::new(child.stdout.take().expect("output")),
                child,
            });
        let mut root = status?;
        for (line, error) in [
            ("socket 2 3 1", "EPERM"),
            ("socket 10 3 58", "EPERM"),
            ("socket 2 2 136", "EPERM"),
        ] {
            assert_eq!(root.ask(line)?, format!("error {error}"), "{line}");
        }
        assert_eq!(net.refused(Reason::SocketKind)?, 3);
        Ok(())
    });
}

#[test]
fn options_that_lead_around_the_redirection_are_refused_and_others_work() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = net.agent()?;
        assert_eq!(agent.ask("device lo")?, "error EPERM");
        assert_eq!(agent.ask("multicast 239.1.2.3")?, "error EPERM");
        assert_eq!(net.refused(Reason::Option)?, 2);
        assert_eq!(agent.ask("large-option")?, "ok set");
        Ok(())
    });
}

#[test]
fn the_proxys_port_is_nobody_elses() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = net.agent()?;
        for at in ["127.0.0.1", "0.0.0.0", "[::]", "127.0.0.5"] {
            let line = format!("bind {at}:{}", net.port);
            assert_eq!(agent.ask(&line)?, "error EPERM", "{line}");
        }
        assert_eq!(agent.ask("bind 127.0.0.1:0")?, "ok bound");
        Ok(())
    });
}

#[test]
fn without_a_marked_listener_every_connect_is_refused() {
    with_kernel(|| {
        let net = Net::with(64, false)?;
        let mut agent = net.agent()?;
        assert_eq!(agent.ask("connect 203.0.113.7:1")?, "error EPERM");

        // Somebody else's listener, at the very port: not ours, so refused.
        let stranger = TcpListener::bind("127.0.0.1:0")?;
        net.kernel.set_port(stranger.local_addr()?.port())?;
        assert_eq!(agent.ask("connect 203.0.113.7:1")?, "error EPERM");
        assert_eq!(net.refused(Reason::NoListener)?, 2);

        // Marked for IPv4: IPv6 has none still.
        net.kernel.adopt_listener(stranger.as_fd())?;
        assert_eq!(agent.ask("begin 1 203.0.113.7:1")?, "ok 1");
        assert_eq!(agent.ask("connect [2001:db8::1]:1")?, "error EPERM");
        Ok(())
    });
}

#[test]
fn in_a_network_namespace_of_its_own_an_agent_reaches_nobody() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = Agent::start(&net.place, true)?;
        assert_eq!(agent.ask("connect 203.0.113.7:1")?, "error EPERM");
        assert_eq!(agent.ask("udp 127.0.0.1:9")?, "error EPERM");
        Ok(())
    });
}

#[test]
fn with_the_connect_hooks_gone_egress_still_lets_nothing_out() {
    with_kernel(|| {
        let net = Net::new()?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        tcp.set_nonblocking(true)?;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        udp.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut agent = net.agent()?;
        for hook in ["connect_v4", "connect_v6", "sendmsg_v4", "sendmsg_v6"] {
            std::fs::remove_file(net.place.links().join(hook))?;
        }
        // The kernel lets go of a link some time after its pin. Connecting a datagram
        // socket sends nothing, and shows when the hook is gone.
        eventually("the end of the connect hook", SOON, || {
            Ok(agent.ask("udp-connect 127.0.0.1:9")? == "ok connected")
        })?;
        // The SYN is dropped, so the connect ends when its patience does.
        let line = format!("connect {}", tcp.local_addr()?);
        assert_eq!(agent.ask(&line)?, "error TimedOut");
        let line = format!("udp {}", udp.local_addr()?);
        assert_eq!(agent.ask(&line)?, "error EPERM");
        assert!(tcp.accept().is_err(), "a connection got out");
        assert!(udp.recv(&mut [0; 8]).is_err(), "a datagram got out");
        // And to the proxy's own port, by a socket that has no record.
        let line = format!("connect 127.0.0.1:{}", net.port);
        assert_eq!(agent.ask(&line)?, "error TimedOut");
        assert!(net.refused(Reason::Egress)? >= 3);
        Ok(())
    });
}

#[test]
fn an_agents_own_server_is_reached_through_the_proxy_only() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = net.agent()?;
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let at: SocketAddr = agent
                .ask(format!("listen {host}"))?
                .trim_start_matches("ok ")
                .parse()?;
            // This process is in the proxy's cgroup, so its connects are the upstream leg.
            let mut said = String::new();
            TcpStream::connect_timeout(&at, SOON)?.read_to_string(&mut said)?;
            assert_eq!(said, "the agent's own server");

            // A stranger, from outside that cgroup.
            let pid = std::process::id();
            cgroup::place(&cgroup::root()?, pid)?;
            let stranger = TcpStream::connect_timeout(&at, Duration::from_millis(1500));
            let back = cgroup::root()?.join(format!("{}-proxy", net.place.options.cgroup));
            cgroup::place(&back, pid)?;
            assert!(stranger.is_err(), "a stranger got in at {at}");
        }
        assert!(net.refused(Reason::Ingress)? >= 2);
        Ok(())
    });
}

#[test]
fn a_full_flow_table_lets_no_further_connection_through_and_recovers() {
    with_kernel(|| {
        let net = Net::with(4, false)?;
        // A listener that takes one connection and lets the rest wait for good.
        let listener: TcpListener = {
            let socket = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::STREAM,
                Some(socket2::Protocol::TCP),
            )?;
            socket.bind(&"127.0.0.1:0".parse::<SocketAddr>()?.into())?;
            socket.listen(0)?;
            socket.into()
        };
        net.kernel.adopt_listener(listener.as_fd())?;
        net.kernel.set_port(listener.local_addr()?.port())?;
        let mut agent = net.agent()?;
        assert_eq!(agent.ask("begin 40 203.0.113.7:1")?, "ok 40");
        eventually("a full table", SOON, || {
            Ok(net.refused(Reason::FlowsFull)? > 0 && net.refused(Reason::Egress)? > 0)
        })?;
        let full = net.refused(Reason::FlowsFull)?;
        assert!(full >= 10, "{full} of 40 found the table full");

        // When the waiting ones are gone, there is room again.
        assert_eq!(agent.ask("drop")?, "ok");
        drop(listener);
        let port = listen(&net.kernel)?;
        assert_ne!(port, 0);
        assert_eq!(
            agent.ask("connect 203.0.113.9:9")?,
            "ok 203.0.113.9:9 203.0.113.9:9"
        );
        Ok(())
    });
}

#[test]
fn a_flood_of_refusals_is_counted_but_not_all_of_it_reported() {
    with_kernel(|| {
        let net = Net::new()?;
        let mut agent = net.agent()?;
        for _ in 0..200 {
            assert_eq!(agent.ask("udp 127.0.0.1:9")?, "error EPERM");
        }
        let counters = net.kernel.counters()?;
        assert_eq!(counters.refused, [(Reason::Datagram, 200)]);
        assert!(counters.suppressed >= 100, "{counters:?}");
        assert_eq!(counters.lost, 0);
        Ok(())
    });
}

/// A proxy in a process of its own, that can be killed.
struct Proxy {
    child: Child,
    port: u16,
}

impl Proxy {
    fn start(place: &Place) -> Result<Self> {
        let mut child = Command::new(HELPER)
            .args(["proxy", &place.options.cgroup])
            .arg(&place.options.runtime_dir)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        Ok(Self {
            port: line.trim().parse().context("the proxy's port")?,
            child,
        })
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

#[test]
fn a_killed_daemon_means_refused_connects_and_a_new_one_takes_over() {
    with_kernel(|| {
        let _alone = alone();
        let place = Place::new(64)?;
        let server = TcpListener::bind("127.0.0.1:0")?;
        server.set_nonblocking(true)?;
        let to = server.local_addr()?;

        let mut first = Proxy::start(&place)?;
        let mut agent = Agent::start(&place, false)?;
        assert_eq!(agent.ask("intercepted")?, "ok true");
        assert_eq!(agent.ask(format!("connect {to}"))?, format!("ok {to} {to}"));

        first.kill()?;
        for line in [
            format!("connect {to}"),
            format!("mapped {to}"),
            "connect [::1]:1".to_owned(),
            format!("udp {to}"),
        ] {
            assert_eq!(agent.ask(&line)?, "error EPERM", "{line}");
        }
        // The dead daemon's port is still nobody's.
        let line = format!("bind 127.0.0.1:{}", first.port);
        assert_eq!(agent.ask(&line)?, "error EPERM");
        let mut newcomer = Agent::start(&place, false)?;
        assert_eq!(newcomer.ask("intercepted")?, "ok true");
        assert_eq!(newcomer.ask(format!("connect {to}"))?, "error EPERM");

        let _second = Proxy::start(&place)?;
        assert_eq!(agent.ask(format!("connect {to}"))?, format!("ok {to} {to}"));
        assert_eq!(newcomer.ask("udp 127.0.0.1:9")?, "error EPERM");
        assert!(
            server.accept().is_err(),
            "a connection went straight through"
        );
        Ok(())
    });
}

#[test]
fn a_takeover_replaces_programs_in_place_and_keeps_the_links() {
    with_kernel(|| {
        let _alone = alone();
        let place = Place::new(64)?;
        let mut first = Proxy::start(&place)?;
        let before = links(&place)?;
        // Two of them for Unix sockets, which Linux has hooks for since 6.7.
        assert!([15, 17].contains(&before.len()), "{before:?}");
        first.kill()?;
        let _second = Proxy::start(&place)?;
        assert_eq!(links(&place)?, before);
        Ok(())
    });
}

/// Names and inodes of the pinned links: a pin that was replaced has another inode.
fn links(place: &Place) -> Result<Vec<(String, u64)>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut links = Vec::new();
    for entry in std::fs::read_dir(place.links())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        links.push((name, entry.metadata()?.ino()));
    }
    links.sort();
    Ok(links)
}

#[test]
fn pins_that_point_at_a_removed_cgroup_are_replaced() {
    with_kernel(|| {
        let _alone = alone();
        let place = Place::new(64)?;
        Proxy::start(&place)?.kill()?;
        cgroup::remove_tree(&place.agents()?)?;
        let _second = Proxy::start(&place)?;
        let mut agent = Agent::start(&place, false)?;
        assert_eq!(agent.ask("intercepted")?, "ok true");
        assert_eq!(
            agent.ask("connect 203.0.113.7:1")?,
            "ok 203.0.113.7:1 203.0.113.7:1"
        );
        assert_eq!(agent.ask("udp 127.0.0.1:9")?, "error EPERM");
        Ok(())
    });
}

#[test]
fn two_daemons_stand_side_by_side_and_do_not_share_a_folder_or_a_cgroup() {
    with_kernel(|| {
        let _alone = alone();
        let (one, two) = (Place::new(64)?, Place::new(64)?);
        let (_first, _second) = (Proxy::start(&one)?, Proxy::start(&two)?);
        let (mut a, mut b) = (Agent::start(&one, false)?, Agent::start(&two, false)?);
        for agent in [&mut a, &mut b] {
            assert_eq!(
                agent.ask("connect 203.0.113.7:1")?,
                "ok 203.0.113.7:1 203.0.113.7:1"
            );
        }

        let same_folder = Options {
            cgroup: two.options.cgroup.clone(),
            ..one.options.clone()
        };
        assert!(matches!(
            Kernel::load(&same_folder),
            Err(kernel::KernelError::InUse { .. })
        ));
        let other = tempfile::tempdir()?;
        let same_cgroup = Options {
            runtime_dir: other.path().to_owned(),
            ..one.options.clone()
        };
        let refused = Kernel::load(&same_cgroup);
        let occupied = matches!(refused, Err(kernel::KernelError::Occupied { .. }));
        assert!(occupied, "{refused:?}");
        nix::mount::umount2(&other.path().join("bpf"), nix::mount::MntFlags::MNT_DETACH)?;
        Ok(())
    });
}

#[test]
fn nothing_is_taken_out_of_force_while_an_agent_runs() {
    with_kernel(|| {
        let _alone = alone();
        let place = Place::new(64)?;
        let mut proxy = Proxy::start(&place)?;
        let mut agent = Agent::start(&place, false)?;
        proxy.kill()?;
        assert!(matches!(
            kernel::remove(&place.options),
            Err(kernel::KernelError::AgentsRun { .. })
        ));
        assert_eq!(agent.ask("connect 203.0.113.7:1")?, "error EPERM");
        drop(agent);
        eventually("the agent's end", SOON, || {
            kernel::remove(&place.options)?;
            Ok(true)
        })?;
        assert!(!place.agents()?.exists());
        assert!(!place.links().exists());
        Ok(())
    });
}

//! Where it is tried: services on this host, the other end of a wire, a daemon, a store.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::eventually;
use interceptor_tests::hooks::Hooks;
use interceptor_tests::place::Place;
use interceptor_tests::records::Records;
use interceptor_tests::redis::Redis;
use interceptor_tests::wire::{self, Wire};
use serde_json::{Value, json};

use super::HELPER;
use super::agents::{Lines, Run, in_cgroup, inherit};
use super::rows::{
    Alert, Connected, DatagramFromOutside, Flow, Frame4, Frame6, FromOutside, Group4, Group6,
    Inherited, Line, LinkLocal, NotToldThat, Nothing, Once, Row, Service, Told, UnixSocket, Who,
};

/// What is outside of interception on this host, for agents to reach.
pub(super) struct Services {
    pub(super) tcp: u16,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) folder: tempfile::TempDir,
    pub(super) unix: Arc<AtomicUsize>,
    /// Holds a connected socket at `INHERITED`, as the agents' user.
    pub(super) victim: Lines,
    pub(super) victims_socket: UdpSocket,
}

impl Services {
    pub(super) fn start() -> Result<Self> {
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
    pub(super) fn offer(&self, to: SocketAddr) -> Result<PathBuf> {
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

pub(super) struct World {
    pub(super) wire: Wire,
    pub(super) redis: Redis,
    pub(super) daemon: Daemon,
    pub(super) hooks: Hooks,
    pub(super) services: Services,
    pub(super) proxy: u16,
    pub(super) _place: Place,
}

impl World {
    pub(super) fn start() -> Result<Self> {
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
    pub(super) fn fill(&self, text: &str, number: usize) -> String {
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
    pub(super) fn attempt(
        &self,
        run: &mut Run,
        row: &Row,
        number: usize,
        who: Who,
    ) -> Result<(String, bool)> {
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
    pub(super) fn once(
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
    pub(super) fn count(&self, row: &Row, number: usize) -> usize {
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
    pub(super) fn is_on_record(&self, row: &Row, number: usize) -> Result<()> {
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

pub(super) fn text_of(entry: &interceptor_tests::records::Fields) -> String {
    let fields = entry.values().map(|value| String::from_utf8_lossy(value));
    fields.collect::<Vec<_>>().join(" ")
}

/// A row's addresses outside. All are of one length, so that none is another's beginning.
pub(super) fn addresses(number: usize) -> (IpAddr, IpAddr) {
    let v4 = format!("198.18.1.{}", 100 + number);
    let v6 = format!("2001:db8:78::{}", 100 + number);
    (
        v4.parse().expect("an address"),
        v6.parse().expect("an address"),
    )
}

pub(super) fn group4(number: usize) -> IpAddr {
    Ipv4Addr::new(239, 77, 0, u8::try_from(100 + number).expect("a byte")).into()
}

pub(super) fn group6(number: usize) -> IpAddr {
    format!("ff05::78:{}", 100 + number)
        .parse()
        .expect("a group")
}

pub(super) fn nix_index(device: &str) -> u32 {
    let name = std::ffi::CString::new(device).expect("a name");
    // SAFETY: the string ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

pub(super) fn port_of(said: &str) -> Result<u16> {
    let at: SocketAddr = said.trim_start_matches("ok ").parse()?;
    Ok(at.port())
}

/// Connects from outside; only frames count.
pub(super) fn knock(from: IpAddr, port: u16) -> String {
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

//! What splicing in the kernel would bring: flows of which only that they were goes on
//! record (`uninspected: allow`), over a relay that has the kernel pass their bytes on
//! (a sockmap with a verdict program), beside what the daemon does with them.
//!
//! The relay counts bytes as a record would have to, and does nothing else.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::needs;
use interceptor_tests::place::Place;
use interceptor_tests::redis::Redis;
use serde_json::json;

use crate::Options;
use crate::copy::copying_proxy;
use crate::report::Report;
use crate::settle::settle;

/// Bytes of a small message.
const MESSAGE: usize = 64;
/// Bytes written and read at once.
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Road {
    Direct,
    /// A proxy that reads nothing.
    Copy,
    /// The daemon, which records that the flow was.
    Daemon,
    /// The relay whose bytes the kernel passes on.
    Sockmap,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Copy => "copy",
            Self::Daemon => "daemon",
            Self::Sockmap => "sockmap",
        })
    }
}

/// Small messages there and back, a second; and whether each was the right one.
pub(crate) fn trips(service: SocketAddr, seconds: u32) -> Result<f64> {
    let mut stream = open(service, b'e')?;
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let (mut done, mut back) = (0_u32, [0; MESSAGE]);
    while Instant::now() < end {
        let message = [u8::try_from(done % 251)?; MESSAGE];
        stream.write_all(&message)?;
        stream.read_exact(&mut back)?;
        ensure!(back == message, "another message came back");
        done += 1;
    }
    Ok(f64::from(done) / f64::from(seconds))
}

/// MB a second from the service.
pub(crate) fn bulk(service: SocketAddr, seconds: u32) -> Result<f64> {
    let mut stream = open(service, b'b')?;
    let (start, mut buffer, mut bytes) = (Instant::now(), vec![0; CHUNK], 0_u64);
    while start.elapsed() < Duration::from_secs(seconds.into()) {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the service ended");
        bytes += read as u64;
    }
    #[allow(clippy::cast_precision_loss, reason = "a number for a person")]
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// A connection that is used in one way, once the service has said that it is.
fn open(service: SocketAddr, how: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(service)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&[how])?;
    let mut said = [0];
    stream.read_exact(&mut said)?;
    ensure!(said == [how], "the service said something else");
    Ok(stream)
}

fn service() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; CHUNK];
    let mut how = [0];
    stream.read_exact(&mut how)?;
    stream.write_all(&how)?;
    loop {
        let length = match how {
            [b'e'] => stream.read(&mut buffer)?,
            _ => buffer.len(),
        };
        match buffer.get(..length) {
            Some(bytes) if !bytes.is_empty() => stream.write_all(bytes)?,
            _ => return Ok(()),
        }
    }
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !needs::kernel()? {
        bail!("without the kernel there is nothing to measure");
    }
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let service = service()?;
    let (copy, sockmap) = (copying_proxy(service)?, relay(service)?);
    let config = json!({
        "intercept": { "default": "allow", "uninspected": "allow" },
    });
    let daemon = Daemon::start(&place, &redis.url(), "version: 1\nrules: []\n", &config)?;
    let program = std::env::current_exe()?;
    let program = program.to_str().context("a path that is no text")?;
    let seconds = options.seconds().to_string();
    let measure = |what: &str, road: Road| -> Result<f64> {
        let port = match road {
            Road::Direct | Road::Daemon => service,
            Road::Copy => copy,
            Road::Sockmap => sockmap,
        };
        let port = port.to_string();
        let words = [program, "client", what, &port, &seconds];
        let mut command = match road {
            Road::Daemon => Agent::new(&daemon, "spliced").command(&words)?,
            _ => {
                let mut command = std::process::Command::new(program);
                command.args(words.iter().skip(1));
                command
            }
        };
        let done = command.output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        let complaint = || String::from_utf8_lossy(&done.stderr).into_owned();
        said.trim().parse().with_context(complaint)
    };
    let mut report = Report::new(&[Road::Direct, Road::Copy, Road::Daemon]);
    let roads = [Road::Direct, Road::Copy, Road::Daemon, Road::Sockmap];
    for (name, unit, what) in [
        ("small messages", "a second", "trips"),
        ("bulk", "MB/s", "bulk"),
    ] {
        if options.wants(name) {
            let settle = |_| settle(&redis);
            let measure = |road| measure(what, road);
            report.measure((name, unit), options.rounds(), &roads, measure, settle)?;
        }
    }
    report.finish(&[], options.json.as_deref())
}

/// A relay in this process whose bytes the kernel passes on; gives its port.
fn relay(to: u16) -> Result<u16> {
    let spliced = Arc::new(Spliced::new().context("the kernel has no sockmap for us")?);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for down in listener.incoming().flatten() {
            let spliced = Arc::clone(&spliced);
            std::thread::spawn(move || spliced.carry(down, to));
        }
    });
    Ok(port)
}

/// The maps, and the program that stands at one of them.
struct Spliced {
    /// Where what a socket gets goes: another socket, by the first one's cookie.
    peers: OwnedFd,
    /// Bytes that a socket got, by its cookie.
    counts: OwnedFd,
    _program: OwnedFd,
}

impl Spliced {
    fn new() -> io::Result<Self> {
        const HASH: u32 = 1;
        const SOCKHASH: u32 = 18;
        let counts = map(HASH)?;
        let peers = map(SOCKHASH)?;
        let program = verdict(&peers, &counts)?;
        attach(&program, &peers)?;
        Ok(Self {
            peers,
            counts,
            _program: program,
        })
    }

    /// Carries one connection until a side hangs up, which the kernel does not pass on: how
    /// many bytes came from each side.
    fn carry(&self, mut down: TcpStream, to: u16) -> io::Result<[Option<u64>; 2]> {
        let mut up = TcpStream::connect(("127.0.0.1", to))?;
        for stream in [&down, &up] {
            stream.set_nodelay(true)?;
        }
        // What came before the program stands is not passed on by it.
        let mut first = [0; 1];
        down.read_exact(&mut first)?;
        let cookies = [cookie(&down)?, cookie(&up)?];
        for cookie in cookies {
            put(&self.counts, cookie, 0)?;
        }
        let [of_down, of_up] = cookies;
        put(&self.peers, of_down, up.as_raw_fd().cast_unsigned().into())?;
        put(&self.peers, of_up, down.as_raw_fd().cast_unsigned().into())?;
        up.write_all(&first)?;
        let mut both = [&down, &up].map(|stream| libc::pollfd {
            fd: stream.as_raw_fd(),
            events: libc::POLLRDHUP,
            revents: 0,
        });
        // SAFETY: there are two, and both sockets are open.
        unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
        Ok(cookies.map(|cookie| count(&self.counts, cookie)))
    }
}

fn cookie(stream: &TcpStream) -> io::Result<u64> {
    let (mut cookie, mut length) = (0_u64, 8);
    // SAFETY: the kernel writes eight bytes at most, which is what there is.
    let done = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One `bpf` call.
fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<i32> {
    // SAFETY: the attributes are as long as is said, and what they point at outlives the
    // call; `A` is laid out as `union bpf_attr` has it for that command.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    };
    match i32::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}

fn descriptor(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just opened it for us.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A map from cookies to eight bytes.
fn map(kind: u32) -> io::Result<OwnedFd> {
    let mut attr = [kind, 8, 8, 1_024, 0];
    bpf(0, &mut attr).map(descriptor)
}

#[repr(C)]
struct Element {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

fn put(map: &OwnedFd, key: u64, value: u64) -> io::Result<()> {
    let mut attr = element(map, &key, std::ptr::from_ref(&value));
    bpf(2, &mut attr).map(drop)
}

fn count(map: &OwnedFd, key: u64) -> Option<u64> {
    let mut value = 0_u64;
    let mut attr = element(map, &key, std::ptr::from_mut(&mut value));
    bpf(1, &mut attr).ok()?;
    Some(value)
}

fn element(map: &OwnedFd, key: &u64, value: *const u64) -> Element {
    Element {
        map: u64::from(map.as_raw_fd().cast_unsigned()),
        key: std::ptr::from_ref(key) as u64,
        value: value as u64,
        flags: 0,
    }
}

fn attach(program: &OwnedFd, map: &OwnedFd) -> io::Result<()> {
    const SK_SKB_STREAM_VERDICT: i32 = 5;
    let mut attr = [
        map.as_raw_fd(),
        program.as_raw_fd(),
        SK_SKB_STREAM_VERDICT,
        0,
    ];
    bpf(8, &mut attr).map(drop)
}

/// `struct bpf_insn`, but for the two registers' order, which is little-endian here.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

/// Loads the program: adds the bytes to the count of the socket that got them, and sends
/// them on by the socket that stands beside its cookie.
fn verdict(peers: &OwnedFd, counts: &OwnedFd) -> io::Result<OwnedFd> {
    const SK_SKB: u32 = 14;
    const STREAM_VERDICT: u32 = 5;
    let one = |code, to: u8, from: u8, offset, value| Instruction {
        code,
        registers: to | from << 4,
        offset,
        value,
    };
    let call = |helper| one(0x85, 0, 0, 0, helper);
    // BPF_LD_MAP_FD takes the place of two.
    let map = |to, map: &OwnedFd| [one(0x18, to, 1, 0, map.as_raw_fd()), one(0, 0, 0, 0, 0)];
    let [counts, counts_end] = map(1, counts);
    let [peers, peers_end] = map(2, peers);
    let program = [
        one(0xbf, 6, 1, 0, 0),
        call(46), // bpf_get_socket_cookie
        one(0x7b, 10, 0, -8, 0),
        counts,
        counts_end,
        one(0xbf, 2, 10, 0, 0),
        one(0x07, 2, 0, 0, -8),
        call(1), // bpf_map_lookup_elem
        one(0x15, 0, 0, 2, 0),
        one(0x61, 1, 6, 0, 0), // the length of what came
        one(0xdb, 0, 1, 0, 0), // added atomically
        one(0xbf, 1, 6, 0, 0),
        peers,
        peers_end,
        one(0xbf, 3, 10, 0, 0),
        one(0x07, 3, 0, 0, -8),
        one(0xb7, 4, 0, 0, 0),
        call(72), // bpf_sk_redirect_hash, to be sent
        one(0x95, 0, 0, 0, 0),
    ];
    #[repr(C)]
    struct Attr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        /// Of the log, and the kernel's version and flags.
        none: [u64; 3],
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let mut attr = Attr {
        kind: SK_SKB,
        count: u32::try_from(program.len()).unwrap_or_default(),
        instructions: program.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        none: [0; 3],
        name: *b"splice\0\0\0\0\0\0\0\0\0\0",
        interface: 0,
        attach_type: STREAM_VERDICT,
    };
    bpf(5, &mut attr).map(descriptor)
}

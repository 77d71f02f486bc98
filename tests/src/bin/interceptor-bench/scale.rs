//! How many: what a connect costs, flows that begin in a second, flows that are open at
//! once, and cgroups below one that is under interception.
//!
//! The service echoes. What is sent is of no protocol, so a flow is what every flow has
//! and nothing else: its origin, its process, its session on record, two sockets.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::place::Place;
use interceptor_tests::redis::Redis;
use interceptor_tests::{eventually, needs};
use interceptor_user::kernel::cgroup;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::Options;
use crate::copy::copying_proxy;
use crate::report::{Report, median};
use crate::settle::settle;
use crate::splice;

/// Connects of one measurement.
const CONNECTS: u32 = 4_000;
/// Clients that open and close flows at once.
const CLIENTS: usize = 32;
/// Flows that are open at once.
const OPEN: u32 = 100_000;
/// Cgroups below one.
const CGROUPS: u32 = 10_000;
/// Addresses of the service.
const ADDRESSES: u32 = 16;
/// Descriptors: a client's, a service's, and two of each proxy's.
const DESCRIPTORS: u64 = 262_144;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Road {
    Direct,
    /// A proxy that reads nothing, by its own port.
    Copy,
    /// As an agent.
    Redirected,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Copy => "copy",
            Self::Redirected => "redirected",
        })
    }
}

/// What a client does; the agent's is this program once more.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Client {
    what: What,
    port: u16,
    count: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// The median of so many connects, in microseconds.
    Connect,
    /// Flows a second: connect, a byte there and back, close, for so many seconds.
    Flows,
    /// Opens so many, uses each once more when asked to, and says what it took.
    Open,
    /// Small messages there and back a second, for so many seconds.
    Trips,
    /// MB a second, for so many seconds.
    Bulk,
}

/// Does it, and prints a number.
pub(crate) fn client(client: Client) -> Result<()> {
    let Client { what, port, count } = client;
    let service = SocketAddr::from(([127, 0, 0, 1], port));
    match what {
        What::Connect => println!("{}", connect(service, count)?),
        What::Flows => println!("{}", flows(service, count)?),
        What::Open => open(service, count)?,
        What::Trips => println!("{}", splice::trips(service, count)?),
        What::Bulk => println!("{}", splice::bulk(service, count)?),
    }
    Ok(())
}

fn connect(service: SocketAddr, count: u32) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let stream = TcpStream::connect(service)?;
        took.push(start.elapsed().as_secs_f64() * 1e6);
        // Closed by a reset, so that no port is left waiting.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    median(&took).context("no connects")
}

fn echo(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"\x01")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    ensure!(byte == *b"\x01", "another byte came back");
    Ok(())
}

fn flows(service: SocketAddr, seconds: u32) -> Result<f64> {
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            std::thread::spawn(move || -> Result<u64> {
                let mut done = 0;
                while Instant::now() < end {
                    let mut stream = TcpStream::connect(service)?;
                    echo(&mut stream)?;
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                    done += 1;
                }
                Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for thread in threads {
        done += thread.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    }
    #[allow(clippy::cast_precision_loss, reason = "a number for a person")]
    Ok(done as f64 / f64::from(seconds))
}

fn open(service: SocketAddr, count: u32) -> Result<()> {
    let mut streams = Vec::new();
    let start = Instant::now();
    for number in 0..count {
        // The service's addresses in turn, so that the proxy does not run out of ports
        // towards one of them.
        let [.., last] = (number % ADDRESSES).to_be_bytes();
        let address = Ipv4Addr::new(127, 0, 1, last);
        let stream = TcpStream::connect((address, service.port()));
        let mut stream = stream.with_context(|| format!("after {number} flows"))?;
        echo(&mut stream).with_context(|| format!("in flow {number}"))?;
        streams.push(stream);
    }
    println!("{}", start.elapsed().as_secs_f64());
    std::io::stdin().read_line(&mut String::new())?;
    for stream in &mut streams {
        echo(stream)?;
    }
    println!("used");
    Ok(())
}

/// Everything that runs.
struct Field {
    daemon: Daemon,
    redis: Redis,
    service: u16,
    copy: u16,
    _place: Place,
}

impl Field {
    fn new() -> Result<Self> {
        descriptors()?;
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        let service = service()?;
        let copy = copying_proxy(service)?;
        let config = json!({
            "intercept": { "default": "allow", "uninspected": "record" },
        });
        let rules = "version: 1\nrules: []\n";
        let daemon = Daemon::start(&place, &redis.url(), rules, &config)?;
        Ok(Self {
            daemon,
            redis,
            service,
            copy,
            _place: place,
        })
    }

    fn client(&self, road: Road, what: &str, count: u32) -> Result<Command> {
        let program = std::env::current_exe()?;
        let port = match road {
            Road::Copy => self.copy,
            Road::Direct | Road::Redirected => self.service,
        };
        let (port, count) = (port.to_string(), count.to_string());
        let program = program.to_str().context("a path that is no text")?;
        let words = [program, "client", what, &port, &count];
        if road == Road::Redirected {
            return Agent::new(&self.daemon, "many").command(&words);
        }
        let mut command = Command::new(program);
        command.args(words.iter().skip(1));
        Ok(command)
    }

    fn measure(&self, road: Road, what: &str, count: u32) -> Result<f64> {
        let done = self.client(road, what, count)?.output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        let complaint = || String::from_utf8_lossy(&done.stderr).into_owned();
        said.trim().parse().with_context(complaint)
    }

    /// The daemon's.
    fn pid(&self) -> Result<u64> {
        let status: serde_json::Value =
            serde_json::from_str(&self.daemon.ask(&["status", "--json"])?)?;
        status
            .get("pid")
            .and_then(serde_json::Value::as_u64)
            .context("a status without a pid")
    }
}

/// Has this process and those that it starts open as many files as it may: how many.
fn descriptors() -> Result<u64> {
    let limit = Resource::RLIMIT_NOFILE;
    if setrlimit(limit, DESCRIPTORS, DESCRIPTORS).is_err() {
        let (_, hard) = getrlimit(limit)?;
        setrlimit(limit, hard, hard)?;
    }
    Ok(getrlimit(limit)?.0)
}

/// A service that sends back what it gets; its port.
fn service() -> Result<u16> {
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(([0, 0, 0, 0], 0).into())?;
        socket.listen(4096)
    })?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || runtime.block_on(serve(listener)));
    Ok(port)
}

async fn serve(listener: TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            let mut bytes = [0; 16];
            while let Ok(read) = stream.read(&mut bytes).await {
                let Some(read) = bytes.get(..read).filter(|read| !read.is_empty()) else {
                    break;
                };
                if stream.write_all(read).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !needs::kernel()? {
        bail!("without the kernel there is nothing to measure");
    }
    let field = Field::new()?;
    let mut report = Report::new(&[Road::Direct, Road::Copy]);
    let mut lines = Vec::new();
    let settle = |_| settle(&field.redis);
    let name = "connects";
    if options.wants(name) {
        report.measure(
            (name, "a second"),
            options.rounds() * 3,
            &[Road::Direct, Road::Redirected],
            |road| Ok(1e6 / field.measure(road, "connect", CONNECTS)?),
            settle,
        )?;
        let micros = |road| Some(1e6 / report.median_of(name, road)?);
        if let (Some(direct), Some(redirected)) = (micros(Road::Direct), micros(Road::Redirected)) {
            lines.push(format!(
                "connect(): {direct:.1} µs direct, {redirected:.1} µs redirected: {:+.1} µs",
                redirected - direct
            ));
        }
    }
    let name = "new flows";
    if options.wants(name) {
        let roads = [Road::Direct, Road::Copy, Road::Redirected];
        let seconds = options.seconds();
        report.measure(
            (name, "a second"),
            options.rounds(),
            &roads,
            |road| field.measure(road, "flows", seconds),
            settle,
        )?;
    }
    if options.wants("open flows") {
        let wanted = if options.quick { OPEN / 5 } else { OPEN };
        // The daemon has two of each, and some of its own.
        let can = descriptors()?.saturating_sub(500) / 2;
        let count = wanted.min(u32::try_from(can).unwrap_or(wanted));
        if count < wanted {
            lines.push(format!(
                "{count} of {wanted} flows at once are as many as this machine's limit of open files lets be"
            ));
        }
        lines.push(held(&field, count)?);
    }
    if options.wants("cgroups") {
        lines.push(cgroups(
            &field,
            if options.quick { CGROUPS / 10 } else { CGROUPS },
        )?);
    }
    report.finish(&lines, options.json.as_deref())
}

/// Opens flows and keeps them; what one of them takes.
fn held(field: &Field, count: u32) -> Result<String> {
    let before = resident(field.pid()?)?;
    let mut client = field
        .client(Road::Redirected, "open", count)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(client.stdout.take().context("no output")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    let seconds: f64 = line
        .trim()
        .parse()
        .context("the client could not open them all")?;
    let after = resident(field.pid()?)?;
    let used = Instant::now();
    let mut input = client.stdin.take().context("no input")?;
    input.write_all(b"\n")?;
    line.clear();
    said.read_line(&mut line)?;
    ensure!(line.trim() == "used", "not every flow was there still");
    let used = used.elapsed().as_secs_f64();
    drop(input);
    ensure!(client.wait()?.success(), "the client failed");
    let mut redis = redis::Client::open(field.redis.url())?.get_connection()?;
    // A slow machine ends a hundred a second.
    let patience = Duration::from_secs(300 + u64::from(count) / 100);
    eventually("every session's end", patience, || {
        let length: u64 = redis::cmd("XLEN")
            .arg("interceptor:sessions")
            .query(&mut redis)?;
        Ok(length >= u64::from(count) * 2)
    })?;
    let each = (after.saturating_sub(before)) / u64::from(count);
    Ok(format!(
        "{count} flows open at once: opened in {seconds:.1} s, each used once more in {used:.1} s; \
         {each} bytes of the daemon's memory each"
    ))
}

/// A connect out of each of many cgroups below one that is attached.
fn cgroups(field: &Field, count: u32) -> Result<String> {
    let parent = cgroup::root()?.join(format!("interceptor-bench-{}", std::process::id()));
    std::fs::create_dir(&parent)?;
    let done = in_cgroups(field, &parent, count);
    let _ = remove(&parent);
    done
}

fn in_cgroups(field: &Field, parent: &Path, count: u32) -> Result<String> {
    let path = parent.to_str().context("a path that is no text")?;
    field
        .daemon
        .ask(&["attach", "--cgroup", path, "--agent", "fleet"])?;
    let children: Vec<PathBuf> = (0..count).map(|n| parent.join(n.to_string())).collect();
    for child in &children {
        std::fs::create_dir(child)?;
    }
    let mut shell = Command::new("/bin/bash");
    shell.arg("-c").arg(format!(
        "for n in $(seq 0 {last}); do echo $$ > {path}/$n/cgroup.procs || exit 1; \
         exec 3<>/dev/tcp/127.0.0.1/{port} || exit 2; printf x >&3; read -N1 -u3 byte || exit 3; \
         exec 3>&-; done",
        last = count.saturating_sub(1),
        port = field.service,
    ));
    let start = Instant::now();
    let status = shell.status()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(
        status.success(),
        "a connect out of a cgroup failed: {status}"
    );
    let mut redis = redis::Client::open(field.redis.url())?.get_connection()?;
    let mut recorded = || -> Result<usize> {
        let all: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
            .arg(&["interceptor:sessions", "-", "+"])
            .query(&mut redis)?;
        let of_fleet = all.ids.iter().filter(|entry| {
            entry.get::<String>("event").as_deref() == Some("open")
                && entry.get::<String>("agent").as_deref() == Some("fleet")
        });
        Ok(of_fleet.count())
    };
    eventually("a session of each", Duration::from_secs(120), || {
        Ok(recorded()? >= count as usize)
    })?;
    Ok(format!(
        "{count} cgroups below one that is attached: a flow out of each in {seconds:.1} s, all on \
         record as that agent's"
    ))
}

fn remove(parent: &Path) -> Result<()> {
    for child in std::fs::read_dir(parent)? {
        let child = child?.path();
        if child.is_dir() {
            std::fs::remove_dir(child)?;
        }
    }
    Ok(std::fs::remove_dir(parent)?)
}

/// Resident memory, in bytes.
fn resident(pid: u64) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse::<u64>()? * 1024)
}

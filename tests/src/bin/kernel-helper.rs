//! The processes that the kernel's tests need beside their own.
//!
//! * `agent`: does what each line of its input says, and answers in a line what came
//!   of it. The tests start it inside an agents' cgroup, as an ordinary user.
//! * `proxy CGROUP FOLDER`: loads the kernel programs, listens, tells every
//!   connection what its origin is, and prints the port. The tests kill it.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use interceptor_user::config::UnixDefault;
use interceptor_user::kernel::{Kernel, Options};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Longer than any refusal takes, shorter than a retransmission gives up.
const PATIENCE: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["agent"] => agent(),
        ["proxy", cgroup, folder] => proxy(cgroup, folder),
        _ => bail!("kernel-helper agent | proxy CGROUP FOLDER"),
    }
}

fn proxy(cgroup: &str, folder: &str) -> Result<()> {
    let kernel = Arc::new(Kernel::load(&Options {
        cgroup: cgroup.to_owned(),
        runtime_dir: folder.into(),
        max_flows: 1024,
        unix: UnixDefault::Allow,
        goes_direct: false,
    })?);
    let v4 = TcpListener::bind("127.0.0.1:0")?;
    let port = v4.local_addr()?.port();
    let v6 = TcpListener::bind(("::1", port))?;
    kernel.adopt_listener(v4.as_fd())?;
    kernel.adopt_listener(v6.as_fd())?;
    kernel.set_port(port)?;
    say(&port.to_string())?;
    let threads = [v4, v6].map(|listener| {
        let kernel = Arc::clone(&kernel);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                tell(&kernel, stream);
            }
        })
    });
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn tell(kernel: &Kernel, mut stream: TcpStream) {
    let line = match kernel.origin(stream.as_fd()) {
        Ok(Some(origin)) => origin.address.to_string(),
        Ok(None) => "none".to_owned(),
        Err(error) => error.to_string(),
    };
    let _ = stream.write_all(line.as_bytes());
}

fn agent() -> Result<()> {
    let mut kept = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match act(&words, &mut kept) {
            Ok(answer) => format!("ok {answer}"),
            Err(error) => match error.downcast_ref::<std::io::Error>() {
                Some(error) => match error.raw_os_error() {
                    Some(number) => format!("error {:?}", nix::errno::Errno::from_raw(number)),
                    None => format!("error {:?}", error.kind()),
                },
                None => format!("error {error:#}"),
            },
        };
        say(&answer)?;
    }
    Ok(())
}

fn act(words: &[&str], kept: &mut Vec<Socket>) -> Result<String> {
    match words {
        ["pid"] => Ok(std::process::id().to_string()),
        ["connect", to] => connect(&stream(to.parse()?)?, to.parse()?),
        // An IPv4 address on an IPv6 socket.
        ["mapped", to] => {
            let to: SocketAddr = to.parse()?;
            let IpAddr::V4(v4) = to.ip() else {
                bail!("mapped takes an IPv4 address")
            };
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
            connect(
                &socket,
                SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            )
        }
        ["from", source, "connect", to] => {
            let socket = stream(to.parse()?)?;
            socket.bind(&source.parse::<SocketAddr>()?.into())?;
            connect(&socket, to.parse()?)
        }
        // Begins connects and keeps the sockets, however far they came.
        ["begin", count, to] => {
            let to: SocketAddr = to.parse()?;
            for _ in 0..count.parse()? {
                let socket = stream(to)?;
                socket.set_nonblocking(true)?;
                match socket.connect(&to.into()) {
                    Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                        return Err(error.into());
                    }
                    _ => kept.push(socket),
                }
            }
            Ok(kept.len().to_string())
        }
        ["begun"] => {
            let there = kept
                .iter()
                .filter(|socket| socket.send(b"x").is_ok())
                .count();
            Ok(there.to_string())
        }
        // Connects that may use so many source ports alone; how many came through, and
        // from how many sources.
        ["crowd", count, ports, to] => {
            let (to, ports): (SocketAddr, u32) = (to.parse()?, ports.parse()?);
            let mut sources = std::collections::BTreeSet::new();
            for _ in 0..count.parse()? {
                let socket = stream(to)?;
                limit_ports(&socket, ports)?;
                if connect(&socket, to).is_ok() {
                    sources.insert(socket.local_addr()?.as_socket().context("a name")?.ip());
                    kept.push(socket);
                }
            }
            Ok(format!("{} {}", kept.len(), sources.len()))
        }
        ["drop"] => {
            kept.clear();
            Ok(String::new())
        }
        ["udp", to] => {
            let to: SocketAddr = to.parse()?;
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
            socket.send_to(b"out", &to.into())?;
            Ok("sent".to_owned())
        }
        ["udp-connect", to] => {
            let to: SocketAddr = to.parse()?;
            Socket::new(Domain::for_address(to), Type::DGRAM, None)?.connect(&to.into())?;
            Ok("connected".to_owned())
        }
        ["socket", domain, kind, protocol] => {
            let (kind, protocol): (i32, i32) = (kind.parse()?, protocol.parse()?);
            Socket::new(
                Domain::from(domain.parse::<i32>()?),
                Type::from(kind),
                Some(Protocol::from(protocol)),
            )?;
            Ok("made".to_owned())
        }
        ["bind", at] => {
            let at: SocketAddr = at.parse()?;
            stream(at)?.bind(&at.into())?;
            Ok("bound".to_owned())
        }
        ["listen", at] => {
            let at: SocketAddr = at.parse()?;
            let socket = stream(at)?;
            socket.bind(&at.into())?;
            socket.listen(16)?;
            let at = socket.local_addr()?.as_socket().context("an address")?;
            let listener: TcpListener = socket.into();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _ = stream.write_all(b"the agent's own server");
                }
            });
            Ok(at.to_string())
        }
        ["device", name] => {
            stream("127.0.0.1:1".parse()?)?.bind_device(Some(name.as_bytes()))?;
            Ok("set".to_owned())
        }
        ["multicast", group] => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.join_multicast_v4(&group.parse::<Ipv4Addr>()?, &Ipv4Addr::LOCALHOST)?;
            Ok("joined".to_owned())
        }
        // A value of more than a page, which a hook sees a part of only.
        ["large-option"] => {
            use std::os::fd::AsRawFd as _;
            let socket = stream("127.0.0.1:1".parse()?)?;
            let value = [1u8; 3 * 4096];
            // SAFETY: the value is valid for the length that is given.
            let done = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_KEEPALIVE,
                    value.as_ptr().cast(),
                    12_288,
                )
            };
            if done != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            Ok("set".to_owned())
        }
        ["intercepted"] => Ok(interceptor_user::agents::launch::is_intercepted()?.to_string()),
        ["storm", threads, each] => storm(threads.parse()?, each.parse()?),
        _ => bail!("not understood"),
    }
}

fn stream(to: SocketAddr) -> Result<Socket> {
    Ok(Socket::new(
        Domain::for_address(to),
        Type::STREAM,
        Some(Protocol::TCP),
    )?)
}

/// So many ports from 40,000 on (`IP_LOCAL_PORT_RANGE`, Linux 6.3).
fn limit_ports(socket: &Socket, ports: u32) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let range: u32 = ((40_000 + ports - 1) << 16) | 40_000;
    // SAFETY: the value is valid for the length that is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const range).cast(),
            4,
        )
    };
    if done != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}

/// Connects; the answer is the peer's name, and what the peer says.
fn connect(socket: &Socket, to: SocketAddr) -> Result<String> {
    socket.connect_timeout(&SockAddr::from(to), PATIENCE)?;
    let peer = socket.peer_addr()?.as_socket().context("a peer's name")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    let mut reader = socket;
    reader.read_to_string(&mut said)?;
    Ok(format!("{peer} {said}"))
}

/// Many connects at once to many addresses, half of them dropped at once; counts the
/// ones whose proxy names another origin than was asked for.
fn storm(threads: usize, each: usize) -> Result<String> {
    let (right, wrong, refused) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (right, wrong, refused) = (&right, &wrong, &refused);
            scope.spawn(move || {
                for n in 0..each {
                    let last = u8::try_from((thread * 7 + n) % 64).unwrap_or_default();
                    let to = SocketAddr::new(Ipv4Addr::new(10, 77, 1, last).into(), 4000);
                    let Ok(socket) = stream(to) else { continue };
                    if n % 2 == 1 {
                        let _ = socket.set_nonblocking(true);
                        let _ = socket.connect(&to.into());
                        continue;
                    }
                    match connect(&socket, to) {
                        Ok(said) if said == format!("{to} {to}") => right,
                        Ok(_) => wrong,
                        Err(_) => refused,
                    }
                    .fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Ok(format!(
        "{} {} {}",
        right.into_inner(),
        wrong.into_inner(),
        refused.into_inner()
    ))
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

//! An agent that tries to get out. Does what each line of its input says, and answers in
//! a line what came of it: `ok …`, or `error` with the kernel's word for it.
//!
//! `ways-helper` reads lines; `ways-helper once WORD…` does one thing and ends, for what a
//! process can do to itself only once. Nothing here waits long: what leaves, leaves at the
//! call, and who sees it is at the other end of the wire.

use std::io::{BufRead as _, Write as _};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use anyhow::{Result, bail};
use io_uring::{IoUring, opcode, squeue, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Longer than a connect to this host takes.
const MOMENT: Duration = Duration::from_millis(60);
/// What is carried out, where something can be.
const LOOT: &[u8] = b"carried out";
const TCP_FASTOPEN_CONNECT: i32 = 30;
const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
const IPPROTO_UDPLITE: i32 = 136;
const IPPROTO_MPTCP: i32 = 262;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut kept = Vec::new();
    if let ["once", rest @ ..] = words.as_slice() {
        return say(&answer(act(rest, &mut kept)));
    }
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        say(&answer(act(&words, &mut kept)))?;
    }
    Ok(())
}

fn answer(done: Result<String>) -> String {
    match done {
        Ok(said) => format!("ok {said}"),
        Err(error) => match error.downcast_ref::<std::io::Error>() {
            Some(error) => match error.raw_os_error() {
                Some(number) => format!("error {:?}", nix::errno::Errno::from_raw(number)),
                None => format!("error {:?}", error.kind()),
            },
            None => format!("error {error:#}"),
        },
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", line.trim_end())?;
    out.flush()?;
    Ok(())
}

/// Sockets that later lines use.
enum Kept {
    Datagrams(UdpSocket),
}

fn act(words: &[&str], kept: &mut Vec<Kept>) -> Result<String> {
    match words {
        ["pid"] => Ok(std::process::id().to_string()),
        ["tcp", to] => reach(&stream(to.parse()?)?, to.parse()?),
        ["tcp", "mapped", to] => {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
            reach(&socket, mapped(to)?)
        }
        ["tcp", "from", source, to] => {
            let socket = stream(to.parse()?)?;
            socket.bind(&source.parse::<SocketAddr>()?.into())?;
            reach(&socket, to.parse()?)
        }
        ["tcp", "device", name, to] => {
            let socket = stream(to.parse()?)?;
            socket.bind_device(Some(name.as_bytes()))?;
            reach(&socket, to.parse()?)
        }
        // Connected, let go, and connected to another place.
        ["tcp", "again", first, to] => {
            let socket = stream(to.parse()?)?;
            let _ = reach(&socket, first.parse()?);
            let nowhere = libc::sockaddr {
                sa_family: libc::AF_UNSPEC as libc::sa_family_t,
                sa_data: [0; 14],
            };
            // SAFETY: the address is valid for the length that is given.
            check(unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, 16) })?;
            reach(&socket, to.parse()?)
        }
        ["fastopen", "send", to] => fast_open(&stream(to.parse()?)?, to.parse()?),
        ["fastopen", "no-cookie", to] => {
            let socket = stream(to.parse()?)?;
            set(
                &socket,
                libc::IPPROTO_TCP,
                TCP_FASTOPEN_NO_COOKIE,
                &[1, 0, 0, 0],
            )?;
            fast_open(&socket, to.parse()?)
        }
        ["fastopen", "connect", to] => {
            let socket = stream(to.parse()?)?;
            set(
                &socket,
                libc::IPPROTO_TCP,
                TCP_FASTOPEN_CONNECT,
                &[1, 0, 0, 0],
            )?;
            let said = reach(&socket, to.parse()?)?;
            let _ = socket.send(LOOT);
            Ok(said)
        }
        // Through a segment: the packet goes there first, whatever the destination.
        ["routed", segment, to] => {
            let socket = stream(to.parse()?)?;
            set(
                &socket,
                libc::IPPROTO_TCP,
                TCP_FASTOPEN_NO_COOKIE,
                &[1, 0, 0, 0],
            )?;
            let header = routing_header(segment.parse()?);
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)?;
            fast_open(&socket, to.parse()?)
        }
        ["source-route", source, hop, to] => {
            let socket = stream(to.parse()?)?;
            // Or the hook gives it one on loopback, from where no such route leads.
            socket.bind(&source.parse::<SocketAddr>()?.into())?;
            set(
                &socket,
                libc::IPPROTO_TCP,
                TCP_FASTOPEN_NO_COOKIE,
                &[1, 0, 0, 0],
            )?;
            let hop: Ipv4Addr = hop.parse()?;
            let [a, b, c, d] = hop.octets();
            // Loose source route by one hop, and a no-operation.
            let options = [131, 7, 4, a, b, c, d, 1];
            set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options)?;
            fast_open(&socket, to.parse()?)
        }
        ["ring", how, to] => ring(how, to.parse()?),
        ["mptcp", to] => {
            let to: SocketAddr = to.parse()?;
            let kind = Some(Protocol::from(IPPROTO_MPTCP));
            reach(
                &Socket::new(Domain::for_address(to), Type::STREAM, kind)?,
                to,
            )
        }
        ["udp", to] => {
            let to: SocketAddr = to.parse()?;
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
            socket.send_to(LOOT, &to.into())?;
            Ok("sent".to_owned())
        }
        ["udp", "mapped", to] => {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
            socket.send_to(LOOT, &mapped(to)?.into())?;
            Ok("sent".to_owned())
        }
        ["udp", "connected", to] => connected(to.parse()?, Type::DGRAM, None),
        ["udp-lite", to] => connected(to.parse()?, Type::DGRAM, Some(IPPROTO_UDPLITE)),
        ["ping", to] => {
            let to: SocketAddr = to.parse()?;
            let (kind, request) = match to {
                SocketAddr::V4(_) => (libc::IPPROTO_ICMP, 8),
                SocketAddr::V6(_) => (libc::IPPROTO_ICMPV6, 128),
            };
            let kind = Some(Protocol::from(kind));
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, kind)?;
            socket.send_to(
                &[&[request, 0, 0, 0, 0, 1, 0, 1], LOOT].concat(),
                &to.into(),
            )?;
            Ok("sent".to_owned())
        }
        ["raw", to] => {
            let to: SocketAddr = to.parse()?;
            let kind = Some(Protocol::from(253));
            let socket = Socket::new(Domain::for_address(to), Type::RAW, kind)?;
            socket.send_to(LOOT, &SocketAddr::new(to.ip(), 0).into())?;
            Ok("sent".to_owned())
        }
        ["packet", device, to] => packet(device, to.parse()?),
        ["vsock"] => {
            // Made, and connected to nobody: that could be the machine's host.
            // SAFETY: no memory is involved.
            let made = check(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) })?;
            // SAFETY: ours, and open.
            drop(unsafe { OwnedFd::from_raw_fd(made) });
            Ok("made".to_owned())
        }
        ["join", group, interface] => {
            join(group.parse()?, interface)?;
            // The kernel reports it a moment later.
            std::thread::sleep(Duration::from_millis(300));
            Ok("joined".to_owned())
        }
        ["unix", path] => {
            let mut stream = UnixStream::connect(path)?;
            stream.write_all(LOOT)?;
            Ok("sent".to_owned())
        }
        ["unix-datagram", path] => {
            UnixDatagram::unbound()?.send_to(LOOT, path)?;
            Ok("sent".to_owned())
        }
        // A socket that was made outside, from who holds it out at a path.
        ["received", path] => {
            let stream = UnixStream::connect(path)?;
            let descriptor = receive(&stream)?;
            write(descriptor.as_raw_fd())
        }
        ["inherited", descriptor] => write(descriptor.parse()?),
        ["taken", pid, descriptor] => {
            // SAFETY: numbers alone, here and below.
            let process =
                check(
                    unsafe { libc::syscall(libc::SYS_pidfd_open, pid.parse::<i32>()?, 0) } as i32,
                )?;
            // SAFETY: as above.
            let taken = check(unsafe {
                libc::syscall(
                    libc::SYS_pidfd_getfd,
                    process,
                    descriptor.parse::<i32>()?,
                    0,
                )
            } as i32)?;
            write(taken)
        }
        ["key", name] => {
            let name = std::ffi::CString::new(*name)?;
            // SAFETY: both strings end with a zero; nothing is called out for.
            check(unsafe {
                libc::syscall(
                    libc::SYS_request_key,
                    c"dns_resolver".as_ptr(),
                    name.as_ptr(),
                    c"".as_ptr(),
                    -3,
                )
            } as i32)?;
            Ok("asked".to_owned())
        }
        ["leave", procs, rest @ ..] => {
            std::fs::write(procs, "0")?;
            act(rest, kept)
        }
        ["namespaces", rest @ ..] => {
            // SAFETY: numbers alone.
            check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
            act(rest, kept)
        }
        ["bind", at] => {
            let at: SocketAddr = at.parse()?;
            let socket = stream(at)?;
            socket.bind(&at.into())?;
            socket.listen(4)?;
            Ok("bound".to_owned())
        }
        // Serves whoever comes, until the process ends.
        ["listen", at] => {
            let listener = TcpListener::bind(at.parse::<SocketAddr>()?)?;
            let at = listener.local_addr()?;
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _ = stream.write_all(LOOT);
                }
            });
            Ok(at.to_string())
        }
        ["receive", at] => {
            let socket = UdpSocket::bind(at.parse::<SocketAddr>()?)?;
            socket.set_nonblocking(true)?;
            let at = socket.local_addr()?;
            kept.push(Kept::Datagrams(socket));
            Ok(at.to_string())
        }
        ["received-any"] => {
            let Some(Kept::Datagrams(socket)) = kept.pop() else {
                bail!("nothing is received")
            };
            let mut some = [0; 64];
            let length = socket.recv(&mut some)?;
            Ok(format!("{length} bytes"))
        }
        _ => bail!("not understood"),
    }
}

fn check(done: i32) -> std::io::Result<i32> {
    if done < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(done)
}

fn stream(to: SocketAddr) -> Result<Socket> {
    let kind = Some(Protocol::TCP);
    Ok(Socket::new(Domain::for_address(to), Type::STREAM, kind)?)
}

fn mapped(to: &str) -> Result<SocketAddr> {
    match to.parse()? {
        SocketAddr::V4(v4) => Ok(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())),
        SocketAddr::V6(_) => bail!("mapped takes an IPv4 address"),
    }
}

/// Connects without waiting for long, and says something where that came to be.
fn reach(socket: &Socket, to: SocketAddr) -> Result<String> {
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error.into()),
        _ => {}
    }
    begun(socket)
}

/// What a connect that was begun comes to in a moment.
fn begun(socket: &Socket) -> Result<String> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let patience = i32::try_from(MOMENT.as_millis())?;
    // SAFETY: one entry, valid for the call.
    if check(unsafe { libc::poll(&raw mut poll, 1, patience) })? == 0 {
        return Ok("begun".to_owned());
    }
    if let Some(error) = socket.take_error()? {
        return Err(error.into());
    }
    socket.send(LOOT)?;
    Ok("connected".to_owned())
}

/// A SYN that carries something.
fn fast_open(socket: &Socket, to: SocketAddr) -> Result<String> {
    socket.set_nonblocking(true)?;
    match socket.send_to_with_flags(LOOT, &to.into(), libc::MSG_FASTOPEN) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error.into()),
        _ => {}
    }
    begun(socket)
}

fn connected(to: SocketAddr, kind: Type, protocol: Option<i32>) -> Result<String> {
    let protocol = protocol.map(Protocol::from);
    let socket = Socket::new(Domain::for_address(to), kind, protocol)?;
    socket.connect(&to.into())?;
    socket.send(LOOT)?;
    Ok("sent".to_owned())
}

fn set(socket: &Socket, level: i32, name: i32, value: &[u8]) -> Result<()> {
    // SAFETY: the value is valid for the length that is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            libc::socklen_t::try_from(value.len())?,
        )
    })?;
    Ok(())
}

/// A segment routing header (RFC 8754) by one segment and then the destination.
fn routing_header(segment: Ipv6Addr) -> Vec<u8> {
    let mut header = vec![
        // Next header, length in eight bytes, type, segments left, last entry, flags, tag.
        0, 4, 4, 1, 1, 0, 0, 0,
    ];
    // The first is the kernel's to fill in: the final destination.
    header.extend([0; 16]);
    header.extend(segment.octets());
    header
}

/// A frame past every layer that could look at it.
fn packet(device: &str, to: SocketAddr) -> Result<String> {
    let IpAddr::V4(destination) = to.ip() else {
        bail!("a frame here is IPv4")
    };
    let protocol = i32::from((libc::ETH_P_IP as u16).to_be());
    // SAFETY: numbers alone.
    let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, protocol) })?;
    // SAFETY: ours, and open.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let index = interface_index(device)?;
    // SAFETY: plain data, of which zeros are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    address.sll_halen = 6;
    address.sll_addr = [0xff; 8];
    let mut frame = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1];
    frame.extend(destination.octets());
    // SAFETY: frame and address are valid for the lengths that are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok("sent".to_owned())
}

fn interface_index(name: &str) -> Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the string ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(std::io::Error::last_os_error().into()),
        index => Ok(index),
    }
}

fn join(group: IpAddr, interface: &str) -> Result<()> {
    match group {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.join_multicast_v4(&group, &interface.parse()?)?;
            // The membership ends with its socket, and what reports it with that.
            std::thread::sleep(Duration::from_millis(300));
        }
        IpAddr::V6(group) => {
            let socket = UdpSocket::bind("[::]:0")?;
            socket.join_multicast_v6(&group, interface_index(interface)?)?;
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    Ok(())
}

/// The descriptor that comes with the next byte.
fn receive(stream: &UnixStream) -> Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut byte = [0; 1];
    let mut buffer = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut into = [std::io::IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut buffer), flags)?;
    for one in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = one
            && let Some(first) = descriptors.first()
        {
            // SAFETY: the kernel has just made it for this process.
            return Ok(unsafe { OwnedFd::from_raw_fd(*first) });
        }
    }
    bail!("no descriptor came")
}

/// Sends through a socket that is connected already.
fn write(descriptor: i32) -> Result<String> {
    // SAFETY: the bytes are valid for the length that is given.
    let sent = unsafe { libc::send(descriptor, LOOT.as_ptr().cast(), LOOT.len(), 0) };
    if sent < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok("sent".to_owned())
}

/// The same by `io_uring`, the socket included.
fn ring(how: &str, to: SocketAddr) -> Result<String> {
    let mut ring = match how {
        "polled" => IoUring::builder().setup_sqpoll(100).build(8)?,
        _ => IoUring::new(8)?,
    };
    let address = SockAddr::from(to);
    let domain = match to {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = match how {
        "datagram" => libc::SOCK_DGRAM,
        "stream" | "polled" | "fastopen" => libc::SOCK_STREAM,
        _ => bail!("not understood"),
    };
    let made = done(&mut ring, &opcode::Socket::new(domain, kind, 0).build())?;
    // SAFETY: the kernel has just made it for this process.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(made) });
    let descriptor = types::Fd(made);
    match how {
        "datagram" => {
            let send = opcode::Send::new(descriptor, LOOT.as_ptr(), u32::try_from(LOOT.len())?)
                .dest_addr(address.as_ptr().cast())
                .dest_addr_len(address.len())
                .build();
            done(&mut ring, &send)?;
            Ok("sent".to_owned())
        }
        "fastopen" => {
            set(
                &socket,
                libc::IPPROTO_TCP,
                TCP_FASTOPEN_NO_COOKIE,
                &[1, 0, 0, 0],
            )?;
            socket.set_nonblocking(true)?;
            let mut bytes = libc::iovec {
                iov_base: LOOT.as_ptr().cast_mut().cast(),
                iov_len: LOOT.len(),
            };
            // SAFETY: plain data, of which zeros are a value.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_name = address.as_ptr().cast_mut().cast();
            message.msg_namelen = address.len();
            message.msg_iov = &raw mut bytes;
            message.msg_iovlen = 1;
            let send = opcode::SendMsg::new(descriptor, &raw const message)
                .flags(libc::MSG_FASTOPEN as u32)
                .build();
            match done(&mut ring, &send) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                    return Err(error.into());
                }
                _ => {}
            }
            begun(&socket)
        }
        _ => {
            socket.set_nonblocking(true)?;
            let connect =
                opcode::Connect::new(descriptor, address.as_ptr().cast(), address.len()).build();
            match done(&mut ring, &connect) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                    return Err(error.into());
                }
                _ => {}
            }
            begun(&socket)
        }
    }
}

/// Has one thing done by a ring, and gives what came of it.
fn done(ring: &mut IoUring, entry: &squeue::Entry) -> std::io::Result<i32> {
    // SAFETY: what the entry points at lives in the caller, who waits here.
    unsafe { ring.submission().push(entry) }.map_err(std::io::Error::other)?;
    // A connect that waits for its answer is let be: its SYN has left.
    let patience = types::Timespec::new().nsec(200_000_000);
    let arguments = types::SubmitArgs::new().timespec(&patience);
    match ring.submitter().submit_with_args(1, &arguments) {
        Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
            return Err(std::io::Error::from_raw_os_error(libc::EINPROGRESS));
        }
        other => other?,
    };
    let result = ring
        .completion()
        .next()
        .ok_or_else(|| std::io::Error::from_raw_os_error(libc::EINPROGRESS))?
        .result();
    if result < 0 {
        return Err(std::io::Error::from_raw_os_error(-result));
    }
    Ok(result)
}

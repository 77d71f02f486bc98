//! The network sockets that a process has open.
//!
//! `/proc/net` does not list a socket that is neither bound nor connected, and just that
//! one would connect past all hooks. So each descriptor is fetched and asked what it is.
//! What cannot be asked counts as a network socket.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::process;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSocket {
    /// Whose.
    pub pid: u32,
    /// The process's name.
    pub name: String,
    /// Its descriptor.
    pub descriptor: u32,
    /// What it is.
    pub what: String,
}

impl fmt::Display for OpenSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            name,
            descriptor,
            what,
        } = self;
        write!(f, "pid {pid} ({name}), descriptor {descriptor}: {what}")
    }
}

/// The network sockets of a process and its threads; one that is gone has none.
pub(super) fn open(pid: u32) -> Vec<OpenSocket> {
    let name = process::name(pid).unwrap_or_default();
    let pidfd = pidfd_open(pid);
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut add = |descriptor, what| {
        found.push(OpenSocket {
            pid,
            name: name.clone(),
            descriptor,
            what,
        });
    };
    for (descriptor, inode) in descriptors(&format!("/proc/{pid}/fd")) {
        seen.insert(inode);
        let socket = match &pidfd {
            Ok(pidfd) => fetch(pidfd, descriptor),
            Err(error) => Err(io::Error::from(error.kind())),
        };
        match socket.and_then(describe) {
            Ok(None) => {}
            Ok(Some(what)) => add(descriptor, what),
            Err(error) => add(descriptor, format!("cannot be asked what it is: {error}")),
        }
    }
    // A thread may have descriptors of its own, which cannot be fetched.
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        for (descriptor, inode) in descriptors(&thread.path().join("fd").display().to_string()) {
            if seen.insert(inode) {
                add(descriptor, "a thread's own, of an unknown kind".to_owned());
            }
        }
    }
    found
}

/// Descriptors that are sockets, with what tells sockets apart.
fn descriptors(folder: &str) -> Vec<(u32, String)> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let target = target.to_str()?;
            target
                .starts_with("socket:")
                .then(|| Some((entry.file_name().to_str()?.parse().ok()?, target.to_owned())))?
        })
        .collect()
}

/// What a socket is, where it is one that could reach a network.
fn describe(socket: OwnedFd) -> io::Result<Option<String>> {
    let domain = option(&socket, libc::SO_DOMAIN)?;
    if domain == libc::AF_UNIX || domain == libc::AF_NETLINK {
        return Ok(None);
    }
    let kind = match (domain, option(&socket, libc::SO_PROTOCOL)?) {
        (libc::AF_INET | libc::AF_INET6, libc::IPPROTO_TCP) => "TCP".to_owned(),
        (libc::AF_INET | libc::AF_INET6, libc::IPPROTO_UDP) => "UDP".to_owned(),
        (libc::AF_INET | libc::AF_INET6, protocol) => format!("IP protocol {protocol}"),
        (domain, _) => format!("address family {domain}"),
    };
    let socket = socket2::Socket::from(socket);
    let text = |address: io::Result<socket2::SockAddr>| {
        address
            .ok()
            .and_then(|address| address.as_socket())
            .map(|address| address.to_string())
    };
    let from = text(socket.local_addr()).map_or(String::new(), |from| format!(" {from}"));
    let to = text(socket.peer_addr()).map_or(String::new(), |to| format!(" to {to}"));
    Ok(Some(format!("{kind}{from}{to}")))
}

fn option(socket: &OwnedFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length: libc::socklen_t = 4;
    // SAFETY: value and length are valid for writing.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            std::ptr::from_mut(&mut value).cast(),
            &raw mut length,
        )
    };
    if done == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

fn fetch(pidfd: &OwnedFd, descriptor: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), descriptor, 0) })
}

fn owned(returned: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(returned) {
        // SAFETY: the kernel made this descriptor just now, for us alone.
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        _ => Err(io::Error::last_os_error()),
    }
}

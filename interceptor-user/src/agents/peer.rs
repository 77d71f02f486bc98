//! The process at the other end of a Unix socket.
//!
//! The kernel says its number as it was at `connect`; the process may have ended since, and
//! its number be another's. From Linux 6.5 on it gives a handle as well, which is that
//! process's for good: as long as the handle says that it lives, the number is its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// `SO_PEERPIDFD`, the same on all machines that are built for.
const SO_PEERPIDFD: libc::c_int = 77;

/// Who it is, in the namespaces of the host.
#[derive(Debug)]
pub struct Peer {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `None` where the kernel gives none.
    handle: Option<OwnedFd>,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it does not say, or the process had ended before it could be asked.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let said = getsockopt(&socket.as_fd(), PeerCredentials)?;
        let handle = match handle(socket) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => None,
            other => Some(other?),
        };
        Ok(Self {
            pid: u32::try_from(said.pid()).map_err(io::Error::other)?,
            uid: said.uid(),
            gid: said.gid(),
            handle,
        })
    }

    /// Whether it lives, as far as that can be known: its number is nobody else's then.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let Some(handle) = &self.handle else {
            return true;
        };
        let mut poll = libc::pollfd {
            fd: handle.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, valid for the call, which does not wait.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
    }
}

fn handle(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let mut handle: libc::c_int = -1;
    let mut length: libc::socklen_t = 4;
    // SAFETY: value and length are valid for writing.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut handle).cast(),
            &raw mut length,
        )
    };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(handle) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_peer_is_there_until_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let own = UnixStream::connect(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let peer = Peer::of(&accepted).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert!(peer.is_there());
        drop(own);

        let program = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";
        let mut other = Command::new("python3")
            .args(["-c", program])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let peer = Peer::of(&accepted).unwrap();
        assert_eq!(peer.pid, other.id());
        assert!(peer.is_there());
        drop(other.stdin.take());
        other.wait().unwrap();
        // Before Linux 6.5 there is no knowing.
        assert_eq!(peer.is_there(), peer.handle.is_none());
    }
}

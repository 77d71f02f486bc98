//! Turning the calling process into an agent, up to the `exec`.
//!
//! What no hook in the kernel can do is done here, before the agent's first
//! instruction: it is in the cgroup, and the programs answer there; it inherits no
//! descriptor, since a socket that was born outside is outside all hooks; it has no
//! capabilities and cannot gain any. Terminal, signals and exit status pass through
//! because nothing stands between: the same process goes on as the agent.
//!
//! What this does not do: it does not give the agent a uid or a PID namespace of its
//! own, so another process of the same user is within its reach.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use interceptor_common::{PROBE_LEVEL, PROBE_NAME};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

use crate::kernel::{KernelError, cgroup};

/// Why a process did not become an agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Not where the daemon said.
    #[error("this process is in the cgroup {} and not in {}, where the daemon said it put it; nothing was run", found.display(), wanted.display())]
    Misplaced {
        /// Where it is.
        found: PathBuf,
        /// Where it should be.
        wanted: PathBuf,
    },
    /// The programs do not answer.
    #[error("the kernel programs do not answer in {}; nothing was run. `interceptor doctor` says what is missing", path.display())]
    NotInForce {
        /// The run's cgroup.
        path: PathBuf,
    },
    /// Standard input, output or error is a socket from outside.
    #[error(
        "descriptor {descriptor} is a network socket that was made outside interception; redirect it from a file, a pipe or a terminal"
    )]
    InheritedSocket {
        /// Which.
        descriptor: i32,
    },
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] KernelError),
    /// A system call.
    #[error("{doing}: {source}")]
    System {
        /// What was done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> LaunchError {
    move |source| LaunchError::System {
        doing,
        source: source.into(),
    }
}

/// Sees with its own eyes that this process is in a cgroup, and that the kernel
/// programs answer there.
///
/// # Errors
/// When it is not, or they do not.
pub fn verify(wanted: &Path) -> Result<(), LaunchError> {
    let own = cgroup::of_process(std::process::id())?;
    let found = cgroup::root()?.join(own.trim_start_matches('/'));
    if cgroup::id(&found)? != cgroup::id(wanted)? {
        return Err(LaunchError::Misplaced {
            found,
            wanted: wanted.to_owned(),
        });
    }
    if !is_intercepted()? {
        return Err(LaunchError::NotInForce {
            path: wanted.to_owned(),
        });
    }
    Ok(())
}

/// Whether a socket made now by this process is under the programs.
///
/// # Errors
/// When no socket can be made.
pub fn is_intercepted() -> Result<bool, LaunchError> {
    let probe = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(failed("making a socket"))?;
    let value: libc::c_int = 0;
    // SAFETY: the value is valid for the length that is given.
    let answer = unsafe {
        libc::setsockopt(
            probe.as_raw_fd(),
            PROBE_LEVEL,
            PROBE_NAME,
            std::ptr::from_ref(&value).cast(),
            4,
        )
    };
    Ok(answer == 0)
}

/// Refuses network sockets as standard input, output or error; closes everything
/// else on exec.
///
/// # Errors
/// When there is one, or the kernel does not close.
pub fn close_descriptors() -> Result<(), LaunchError> {
    for descriptor in 0..=2 {
        if is_network_socket(descriptor) {
            return Err(LaunchError::InheritedSocket { descriptor });
        }
    }
    // At once, and not by the close-on-exec flag: the daemon's socket among them.
    // SAFETY: closes descriptors that this process does not use any more.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } != 0 {
        return Err(failed("closing inherited descriptors")(
            io::Error::last_os_error(),
        ));
    }
    Ok(())
}

fn is_network_socket(descriptor: i32) -> bool {
    // SAFETY: borrowed for this call only; where it is not open, the call says so.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let mut domain: libc::c_int = 0;
    let mut length: libc::socklen_t = 4;
    // SAFETY: value and length are valid for writing.
    let asked = unsafe {
        libc::getsockopt(
            descriptor.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            std::ptr::from_mut(&mut domain).cast(),
            &raw mut length,
        )
    };
    asked == 0 && domain != libc::AF_UNIX
}

/// Gives up every capability for good, and becomes `user` where one is named.
///
/// # Errors
/// When the kernel does not.
pub fn drop_privileges(user: Option<&User>) -> Result<(), LaunchError> {
    // The bounding set first, since dropping from it needs a capability. Without that
    // capability there is nothing that could be dropped, and no_new_privs keeps the
    // process from gaining by exec what it does not have.
    let may_drop = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(capabilities("reading capabilities"))?;
    if may_drop {
        for capability in
            caps::read(None, CapSet::Bounding).map_err(capabilities("reading the bounding set"))?
        {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(capabilities("dropping a capability from the bounding set"))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(capabilities("clearing ambient capabilities"))?;
    if let Some(user) = user {
        become_user(user)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(capabilities("clearing capabilities"))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(failed("setting no_new_privs"))?;
    if may_drop
        && !caps::read(None, CapSet::Bounding)
            .map_err(capabilities("reading the bounding set"))?
            .is_empty()
    {
        return Err(failed("emptying the bounding set")(io::Error::from(
            io::ErrorKind::PermissionDenied,
        )));
    }
    Ok(())
}

fn become_user(user: &User) -> Result<(), LaunchError> {
    let name = CString::new(user.name.as_bytes())
        .map_err(|_| failed("naming the user")(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let groups =
        nix::unistd::getgrouplist(&name, user.gid).map_err(failed("reading the user's groups"))?;
    let is_other = Uid::current() != user.uid || Uid::effective() != user.uid;
    if is_other || Uid::effective().is_root() {
        setgroups(&groups).map_err(failed("setting groups"))?;
        setresgid(user.gid, user.gid, user.gid).map_err(failed("setting the group"))?;
        setresuid(user.uid, user.uid, user.uid).map_err(failed("setting the user"))?;
    }
    if Uid::current() != user.uid
        || Uid::effective() != user.uid
        || Gid::effective() != user.gid && is_other
    {
        return Err(failed("becoming the user")(io::Error::from(
            io::ErrorKind::PermissionDenied,
        )));
    }
    Ok(())
}

fn capabilities(doing: &'static str) -> impl FnOnce(caps::errors::CapsError) -> LaunchError {
    move |error| LaunchError::System {
        doing,
        source: io::Error::other(error.to_string()),
    }
}

//! The `bpf` calls that aya does not have: links by attach type, and replacing the
//! program of one in place.
//!
//! aya 0.14 neither pins the link of a `setsockopt` program nor replaces a cgroup
//! program atomically; both are one system call, and doing all hooks the same way is
//! shorter than doing one differently.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::bpf_insn;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const SOCK_ADDR: u32 = 18;
/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP_LINK: u32 = 3;

/// `enum bpf_attach_type`, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    Ingress = 0,
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Setsockopt = 22,
    Getpeername4 = 29,
    Getpeername6 = 30,
    UnixConnect = 49,
    UnixSendmsg = 50,
}

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) program: u32,
    /// 0 once the cgroup is gone.
    pub(super) cgroup_id: u64,
    pub(super) attach_type: u32,
}

/// Loads a program for socket addresses that aya has no name for. The error holds the end
/// of what the verifier says.
pub(super) fn load_sock_addr(
    instructions: &[bpf_insn],
    attach_type: AttachType,
    name: &str,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let mut attr = Attr {
        kind: SOCK_ADDR,
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        attach_type: attach_type as u32,
        ..Attr::default()
    };
    for (to, byte) in attr.name.iter_mut().zip(name.bytes().take(15)) {
        *to = byte;
    }
    if let Ok(program) = bpf(BPF_PROG_LOAD, &mut attr) {
        return descriptor(program);
    }
    let mut log = vec![0u8; 1 << 20];
    attr.log_level = 1;
    attr.log_size = 1 << 20;
    attr.log = log.as_mut_ptr() as u64;
    match bpf(BPF_PROG_LOAD, &mut attr) {
        Ok(program) => descriptor(program),
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let said = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned();
            let mut last: Vec<&str> = said.lines().rev().take(4).collect();
            last.reverse();
            Err(io::Error::new(
                error.kind(),
                format!("{error}: {}", last.join("; ")),
            ))
        }
    }
}

/// Attaches a program to a cgroup, beside what else is there.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr {
        program: number(program),
        target: number(cgroup),
        attach_type: attach_type as u32,
        flags: 0,
    };
    descriptor(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Replaces a link's program; there is no moment without one.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let mut attr = Attr {
        link: number(link),
        program: number(program),
        flags: 0,
        old_program: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attr).map(|_| ())
}

/// The network namespace of a socket, as the programs name it.
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: both are as long as is said.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a link is; an error when it is none of a cgroup.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        cgroup_id: u64,
        attach_type: u32,
        // The kernel fills as much as it knows; some kernels know more.
        rest: [u32; 17],
    }
    #[repr(C)]
    struct Attr {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attr = Attr {
        descriptor: number(link),
        length: u32::try_from(size_of::<Info>()).unwrap_or_default(),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    if info.kind != CGROUP_LINK {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the pin is no link to a cgroup",
        ));
    }
    Ok(LinkInfo {
        program: info.program,
        cgroup_id: info.cgroup_id,
        attach_type: info.attach_type,
    })
}

/// Ids of the programs that are attached at this very cgroup.
pub(super) fn attached(cgroup: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attr {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        attach_flags_of: u64,
    }
    let mut programs = [0u32; 64];
    let mut attr = Attr {
        target: number(cgroup),
        attach_type: attach_type as u32,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: 64,
        padding: 0,
        attach_flags_of: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.count).unwrap_or_default();
    Ok(programs.iter().take(count).copied().collect())
}

/// Pins an object.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = PathAttr {
        path: path.as_ptr() as u64,
        descriptor: number(object),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(|_| ())
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = PathAttr {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    descriptor(bpf(BPF_OBJ_GET, &mut attr)?)
}

/// Whether a pin is a link that stands at the living cgroup.
pub(super) fn stands(pin: &Path, cgroup_id: u64, attach_type: AttachType) -> bool {
    open_pin(pin)
        .and_then(|link| link_info(link.as_fd()))
        .is_ok_and(|info| info.cgroup_id == cgroup_id && info.attach_type == attach_type as u32)
}

#[repr(C)]
struct PathAttr {
    path: u64,
    descriptor: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    u32::try_from(descriptor.as_raw_fd()).unwrap_or(u32::MAX)
}

fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(returned).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel made this descriptor just now, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is the kernel's union as far as this command reads it, and its
    // size says so; what it points to lives in the caller.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

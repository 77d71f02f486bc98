//! The hooks that a daemon pinned, taken out of force and put back.
//!
//! A link's program is replaced by one that passes everything, in place and at once, as a
//! daemon replaces an older one's. The link and its pin stay, so nobody is the wiser.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// `r0 = 1; exit`: "go on" for every hook.
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// The pins of a daemon.
#[derive(Debug)]
pub struct Hooks {
    links: PathBuf,
}

/// Hooks that are out of force until this is dropped.
#[derive(Debug, Default)]
#[must_use = "they are put back when this is dropped"]
pub struct Out {
    /// Links, and the programs that belong there.
    replaced: Vec<(OwnedFd, OwnedFd)>,
}

impl Drop for Out {
    fn drop(&mut self) {
        for (link, program) in &self.replaced {
            let back = update(link, program);
            assert!(back.is_ok() || std::thread::panicking(), "{back:?}");
        }
    }
}

impl Hooks {
    /// Those of the daemon with this runtime folder.
    #[must_use]
    pub fn of(runtime_dir: &Path) -> Self {
        Self {
            links: runtime_dir.join("bpf/links"),
        }
    }

    /// Whether this kernel has a hook.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.links.join(name).exists()
    }

    /// Takes hooks out of force, by the names of their pins.
    ///
    /// # Errors
    /// When one is not there, or the kernel does not replace it.
    pub fn take_out<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Out> {
        let mut out = Out::default();
        for name in names {
            let pair = self.replace(name);
            out.replaced
                .push(pair.with_context(|| format!("taking {name} out"))?);
        }
        Ok(out)
    }

    fn replace(&self, name: &str) -> Result<(OwnedFd, OwnedFd)> {
        let path = CString::new(self.links.join(name).as_os_str().as_bytes())?;
        let link = get(&path)?;
        let about: LinkInfo = info(&link)?;
        let program = by_id(about.program)?;
        let kind: ProgramInfo = info(&program)?;
        update(&link, &load(kind.kind, about.attach_type)?)?;
        Ok((link, program))
    }
}

/// The beginning of `struct bpf_link_info`, for a cgroup's.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    cgroup: u64,
    attach_type: u32,
    rest: u32,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
}

fn get(path: &CString) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let mut attr = Attr {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    descriptor(bpf(BPF_OBJ_GET, &mut attr)?)
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    descriptor(bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)?)
}

fn info<T: Default>(of: &OwnedFd) -> io::Result<T> {
    #[repr(C)]
    struct Attr {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut about = T::default();
    let mut attr = Attr {
        descriptor: of.as_raw_fd().unsigned_abs(),
        length: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: (&raw mut about) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(about)
}

fn load(kind: u32, attach_type: u32) -> io::Result<OwnedFd> {
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
        kind,
        count: 2,
        instructions: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type,
        ..Attr::default()
    };
    descriptor(bpf(BPF_PROG_LOAD, &mut attr)?)
}

fn update(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let numbers = [link, program].map(|one| one.as_raw_fd().unsigned_abs());
    let mut attr = [numbers[0], numbers[1], 0, 0];
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is valid for its size, and what it points at lives in the
    // caller.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

fn descriptor(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

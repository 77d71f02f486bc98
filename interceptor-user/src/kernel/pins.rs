//! The bpffs of our own, and who may use it.
//!
//! Mounted with mode 0700 below the runtime folder: the usual `/sys/fs/bpf` is open
//! to whoever may write there, and a pin that is removed is a hook that is gone.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{FsType, statfs};

use super::KernelError;

const BPF_FS: FsType = FsType(0xcafe_4a11);

/// The bpffs of a runtime folder.
pub(super) fn folder(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("bpf")
}

/// Whether a bpffs is mounted at a path.
pub(super) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS)
}

/// Keeps every other daemon off this runtime folder for as long as the file lives.
pub(super) fn lock(runtime_dir: &Path) -> Result<File, KernelError> {
    fs::create_dir_all(runtime_dir).map_err(KernelError::io("making", runtime_dir))?;
    let path = runtime_dir.join("kernel.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(KernelError::io("opening", &path))?;
    // SAFETY: no memory is involved. The lock belongs to the open file and ends with it.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(file);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Err(KernelError::InUse { path }),
        error => Err(KernelError::io("locking", &path)(error)),
    }
}

/// Mounts the bpffs where it is not mounted yet.
pub(super) fn mounted(runtime_dir: &Path) -> Result<PathBuf, KernelError> {
    let path = folder(runtime_dir);
    fs::create_dir_all(&path).map_err(KernelError::io("making", &path))?;
    if !is_bpffs(&path) {
        mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=0700"),
        )
        .map_err(|errno| KernelError::io("mounting a bpffs at", &path)(errno.into()))?;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
        .map_err(KernelError::io("setting the mode of", &path))?;
    Ok(path)
}

/// Unmounts the bpffs. With it go all pins, and with the pins the hooks.
pub(super) fn unmount(runtime_dir: &Path) -> Result<(), KernelError> {
    let path = folder(runtime_dir);
    // Unpinned first, so that a mount that somebody keeps open keeps no hook.
    if is_bpffs(&path) {
        remove_pins(&path)?;
    }
    while is_bpffs(&path) {
        umount2(&path, MntFlags::MNT_DETACH)
            .map_err(|errno| KernelError::io("unmounting", &path)(errno.into()))?;
    }
    match fs::remove_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::io("removing", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes the pins that are ours; some kernels put iterators of their own beside them,
/// which nobody may remove.
fn remove_pins(path: &Path) -> Result<(), KernelError> {
    for entry in fs::read_dir(path).map_err(KernelError::io("reading", path))? {
        let folder = entry.map_err(KernelError::io("reading", path))?.path();
        if !folder.is_dir() {
            continue;
        }
        for pin in fs::read_dir(&folder).map_err(KernelError::io("reading", &folder))? {
            let pin = pin.map_err(KernelError::io("reading", &folder))?.path();
            fs::remove_file(&pin).map_err(KernelError::io("removing", &pin))?;
        }
        fs::remove_dir(&folder).map_err(KernelError::io("removing", &folder))?;
    }
    Ok(())
}

/// Whether this process sees the same mounts as the first one. Where it does not,
/// its mounts, pins included, may end with it.
pub(super) fn shares_mounts_with_init() -> bool {
    let ours = fs::read_link("/proc/self/ns/mnt");
    let first = fs::read_link("/proc/1/ns/mnt");
    match (ours, first) {
        (Ok(ours), Ok(first)) => ours == first,
        _ => true,
    }
}

//! The unified hierarchy: where it is, what is in it.
//!
//! Some hosts mount cgroup2 at `/sys/fs/cgroup`, some beside the old hierarchies at
//! `/sys/fs/cgroup/unified`; `/proc/self/mountinfo` knows.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::KernelError;

/// Where cgroup2 is mounted.
///
/// # Errors
/// When it is not.
pub fn root() -> Result<PathBuf, KernelError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(KernelError::io("reading", path))?;
    root_in(&text).ok_or(KernelError::NoCgroup2)
}

/// The cgroup2 mount in a `mountinfo`: the whole hierarchy before a part of it.
fn root_in(mountinfo: &str) -> Option<PathBuf> {
    let mounts = || {
        mountinfo.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split(' ').next()? == "cgroup2").then_some(())?;
            let mut fields = before.split(' ').skip(3);
            Some((fields.next()?, fields.next()?))
        })
    };
    mounts()
        .find(|(root, _)| *root == "/")
        .or_else(|| mounts().next())
        .map(|(_, at)| PathBuf::from(unescape(at)))
}

/// `mountinfo` writes blanks and the like as three octal digits.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// The path of a child, whose name must be one plain component.
///
/// # Errors
/// When the name is anything else.
pub fn child(parent: &Path, name: &str) -> Result<PathBuf, KernelError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(KernelError::CgroupName {
            name: name.to_owned(),
        });
    }
    Ok(parent.join(name))
}

/// Makes a cgroup where there is none; root's alone to write.
///
/// # Errors
/// When the kernel does not make it.
pub fn make(path: &Path) -> Result<(), KernelError> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(KernelError::io("making the cgroup", path)(error)),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(KernelError::io("setting the mode of", path))
}

/// A cgroup's id, which is its folder's inode.
///
/// # Errors
/// When it is not there.
pub fn id(path: &Path) -> Result<u64, KernelError> {
    Ok(fs::metadata(path)
        .map_err(KernelError::io("looking at", path))?
        .ino())
}

/// Whether a process is left in a cgroup or below it.
///
/// # Errors
/// When it cannot be read.
pub fn is_populated(path: &Path) -> Result<bool, KernelError> {
    let events = path.join("cgroup.events");
    let text = fs::read_to_string(&events).map_err(KernelError::io("reading", &events))?;
    Ok(text.lines().any(|line| line == "populated 1"))
}

/// Moves a process, with all its threads, into a cgroup.
///
/// # Errors
/// When the kernel does not.
pub fn place(path: &Path, pid: u32) -> Result<(), KernelError> {
    let procs = path.join("cgroup.procs");
    fs::OpenOptions::new()
        .write(true)
        .open(&procs)
        .and_then(|mut file| write!(file, "{pid}"))
        .map_err(KernelError::io("moving a process into", &procs))
}

/// Stops everything in a cgroup and below it, or lets it go on.
///
/// # Errors
/// When the kernel does not.
pub fn freeze(path: &Path, stop: bool) -> Result<(), KernelError> {
    let freeze = path.join("cgroup.freeze");
    fs::write(&freeze, if stop { "1" } else { "0" }).map_err(KernelError::io("writing", &freeze))
}

/// Whether everything in a cgroup has stopped.
///
/// # Errors
/// When it cannot be read.
pub fn is_frozen(path: &Path) -> Result<bool, KernelError> {
    let events = path.join("cgroup.events");
    let text = fs::read_to_string(&events).map_err(KernelError::io("reading", &events))?;
    Ok(text.lines().any(|line| line == "frozen 1"))
}

/// A process's cgroup2, as a path that begins at the mount (`/a/b`).
///
/// # Errors
/// When the process is gone.
pub fn of_process(pid: u32) -> Result<String, KernelError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).map_err(KernelError::io("reading", &path))?;
    unified(&text).ok_or(KernelError::NoCgroup2)
}

/// The cgroup2 line of a `/proc/PID/cgroup`.
fn unified(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

/// Removes a cgroup and those below it, none of which may have processes.
///
/// # Errors
/// When one cannot be removed.
pub fn remove_tree(path: &Path) -> Result<(), KernelError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(KernelError::io("reading", path)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(KernelError::io("reading", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).map_err(KernelError::io("removing the cgroup", path))
}

/// The folder of a cgroup by its id, looked for below `parent`.
#[must_use]
pub fn by_id(parent: &Path, wanted: u64) -> Option<PathBuf> {
    tree(parent).find(|path| fs::metadata(path).is_ok_and(|meta| meta.ino() == wanted))
}

/// A cgroup and those below it.
pub fn tree(parent: &Path) -> impl Iterator<Item = PathBuf> {
    let mut waiting = vec![parent.to_owned()];
    std::iter::from_fn(move || {
        let path = waiting.pop()?;
        waiting.extend(children(&path));
        Some(path)
    })
}

/// The cgroups just below one.
#[must_use]
pub fn children(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The processes in a cgroup and below it.
#[must_use]
pub fn processes(parent: &Path) -> Vec<u32> {
    tree(parent)
        .flat_map(|path| {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn cgroup2_is_found_beside_the_old_hierarchies_and_alone() {
        assert_eq!(root_in(BOTH), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let alone = "25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(alone), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(root_in("1 2 0:3 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn the_whole_hierarchy_is_preferred_to_a_part_of_it() {
        let text = "\
40 31 0:38 /some/part /a rw - cgroup2 cgroup2 rw
41 31 0:38 / /b\\040c rw - cgroup2 cgroup2 rw
";
        assert_eq!(root_in(text), Some(PathBuf::from("/b c")));
    }

    #[test]
    fn a_cgroups_name_never_leads_elsewhere() {
        let parent = Path::new("/sys/fs/cgroup");
        assert!(child(parent, "interceptor").is_ok());
        for name in ["", "..", ".hidden", "a/b", "/etc", "a\nb", &"x".repeat(201)] {
            assert!(child(parent, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_unified_line_is_the_one_without_controllers() {
        let text = "9:name=systemd:/x\n4:memory:/process_api\n0::/interceptor/psql-1 (deleted)\n";
        assert_eq!(unified(text), Some("/interceptor/psql-1".to_owned()));
        assert_eq!(unified("4:memory:/\n"), None);
    }
}

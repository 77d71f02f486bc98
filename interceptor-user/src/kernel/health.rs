//! What interception needs of a host, whether it is there, and the fix.
//!
//! Looks and changes nothing. What only root may see is said to be unseen, not well.

use std::fs;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use serde::Serialize;

use super::attach::{HOOKS, UNIX_HOOKS, release, version};
use super::{OLDEST_KERNEL, Options, attached, cgroup, pins, sys};

/// The first kernel that shows Unix sockets to programs.
const UNIX_KERNEL: (u32, u32) = (6, 7);

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, or could not be seen; worth knowing.
    Warn,
    /// Keeps interception from working.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How well it is.
    pub state: State,
    /// What was found.
    pub says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// Something that is well.
    #[must_use]
    pub fn ok(name: &'static str, says: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            says: says.into(),
            fix: None,
        }
    }

    /// Something worth knowing.
    #[must_use]
    pub fn warn(name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warn,
            says: says.into(),
            fix: Some(fix.into()),
        }
    }

    /// Something that must be put right.
    #[must_use]
    pub fn fail(name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Fail,
            says: says.into(),
            fix: Some(fix.into()),
        }
    }
}

/// Looks at everything that interception needs.
#[must_use]
pub fn look(options: &Options) -> Vec<Finding> {
    vec![
        kernel(&release()),
        cgroup2(),
        btf(Path::new("/sys/kernel/btf/vmlinux")),
        bpffs(&fs::read_to_string("/proc/filesystems").unwrap_or_default()),
        capabilities(),
        mounts(),
        programs(options),
        others(options),
        unix(options, &release()),
    ]
}

fn kernel(release: &str) -> Finding {
    let (major, minor) = OLDEST_KERNEL;
    match version(release) {
        Some(found) if found >= OLDEST_KERNEL => Finding::ok("kernel", format!("Linux {release}")),
        _ => Finding::fail(
            "kernel",
            format!("Linux {release}"),
            format!(
                "interception needs Linux {major}.{minor} or newer; `listeners` in the configuration work without it"
            ),
        ),
    }
}

fn cgroup2() -> Finding {
    match cgroup::root() {
        Ok(root) => Finding::ok("cgroup2", format!("mounted at {}", root.display())),
        Err(error) => Finding::fail(
            "cgroup2",
            error.to_string(),
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    }
}

fn btf(path: &Path) -> Finding {
    if path.exists() {
        Finding::ok("btf", "the kernel describes its types")
    } else {
        Finding::warn(
            "btf",
            format!("{} is not there", path.display()),
            "a kernel with CONFIG_DEBUG_INFO_BTF=y; distributions' kernels have it",
        )
    }
}

fn bpffs(filesystems: &str) -> Finding {
    let known = filesystems
        .lines()
        .any(|line| line.split_whitespace().last() == Some("bpf"));
    if known {
        Finding::ok("bpffs", "the kernel has it, so hooks outlive the daemon")
    } else {
        Finding::fail(
            "bpffs",
            "the kernel does not know the file system `bpf`",
            "a kernel with CONFIG_BPF_SYSCALL=y",
        )
    }
}

fn capabilities() -> Finding {
    let needed = [
        Capability::CAP_BPF,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_SYS_ADMIN,
    ];
    let missing: Vec<String> = needed
        .into_iter()
        .filter(|capability| {
            !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or_default()
        })
        .map(|capability| capability.to_string())
        .collect();
    if missing.is_empty() {
        Finding::ok("capabilities", "this user may load and attach programs")
    } else {
        Finding::warn(
            "capabilities",
            format!("this user lacks {}", missing.join(", ")),
            "start `interceptor run` (and this command, to see all) as root",
        )
    }
}

fn mounts() -> Finding {
    if pins::shares_mounts_with_init() {
        Finding::ok("mounts", "pins are seen by the whole host")
    } else {
        Finding::fail(
            "mounts",
            "this process has a mount namespace of its own: pins would vanish with it",
            "in a systemd unit, leave out PrivateMounts=, PrivateTmp=, ProtectSystem= and the like",
        )
    }
}

/// What stands at the agents' cgroup.
fn programs(options: &Options) -> Finding {
    const NAME: &str = "programs";
    let folder = pins::folder(&options.runtime_dir);
    let restart = "start `interceptor run`: it attaches what is missing";
    let Ok(agents) = cgroup::root().and_then(|root| cgroup::child(&root, &options.cgroup)) else {
        return Finding::fail(
            NAME,
            "there is no cgroup to stand at",
            "see cgroup2 above, or `intercept.cgroup` in the configuration",
        );
    };
    if !nix::unistd::geteuid().is_root() {
        return Finding::warn(
            NAME,
            format!("only root may look into {}", folder.display()),
            "run this command as root",
        );
    }
    if !pins::is_bpffs(&folder) {
        return Finding::warn(NAME, "nothing is attached", restart);
    }
    let id = cgroup::id(&agents).unwrap_or_default();
    let missing: Vec<&str> = HOOKS
        .iter()
        .filter(|hook| !sys::stands(&links(&folder).join(hook.name), id, hook.attach_type))
        .map(|hook| hook.name)
        .collect();
    if missing.is_empty() {
        Finding::ok(
            NAME,
            format!("all {} stand at {}", HOOKS.len(), agents.display()),
        )
    } else {
        Finding::fail(
            NAME,
            format!(
                "not in force at {}: {}",
                agents.display(),
                missing.join(", ")
            ),
            restart,
        )
    }
}

/// What stands at cgroups that something else made.
fn others(options: &Options) -> Finding {
    const NAME: &str = "attached";
    let folder = pins::folder(&options.runtime_dir);
    if !nix::unistd::geteuid().is_root() {
        return Finding::warn(
            NAME,
            format!("only root may look into {}", folder.display()),
            "run this command as root",
        );
    }
    let folders: Vec<_> = attached::folders(&folder).collect();
    let broken: Vec<String> = folders
        .iter()
        .filter(|(id, links)| !attached::is_whole(links, *id))
        .map(|(id, _)| id.to_string())
        .collect();
    if broken.is_empty() {
        Finding::ok(NAME, format!("cgroups of others: {}", folders.len()))
    } else {
        Finding::warn(
            NAME,
            format!(
                "gone, or not in force, at the cgroups with ids {}",
                broken.join(", ")
            ),
            "start `interceptor run`: it attaches what is missing and clears away what is gone",
        )
    }
}

/// Whether Unix sockets are seen.
fn unix(options: &Options, release: &str) -> Finding {
    const NAME: &str = "unix sockets";
    let folder = pins::folder(&options.runtime_dir);
    if version(release).is_none_or(|found| found < UNIX_KERNEL) {
        let (major, minor) = UNIX_KERNEL;
        return Finding::warn(
            NAME,
            format!("Linux {release} shows them to no program: agents reach what their user may"),
            format!("Linux {major}.{minor} or newer; or give agents a user that may reach none"),
        );
    }
    if !nix::unistd::geteuid().is_root() || !pins::is_bpffs(&folder) {
        return Finding::warn(
            NAME,
            "whether they are seen is not known",
            "start `interceptor run`, and run this command as root",
        );
    }
    let id = cgroup::root()
        .and_then(|root| cgroup::child(&root, &options.cgroup))
        .and_then(|agents| cgroup::id(&agents))
        .unwrap_or_default();
    match UNIX_HOOKS
        .iter()
        .all(|hook| hook.stands(&links(&folder), id))
    {
        true => Finding::ok(NAME, "what agents connect to is decided by its name"),
        false => Finding::warn(
            NAME,
            "they are not seen: agents reach what their user may",
            "the daemon's log says why, where it started",
        ),
    }
}

fn links(folder: &Path) -> PathBuf {
    folder.join("links")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_1_fail_and_later_ones_do_not() {
        for (release, state) in [
            ("5.15.0-91-generic", State::Fail),
            ("6.0.19", State::Fail),
            ("6.1.0-18-amd64", State::Ok),
            ("6.18.44", State::Ok),
            ("7.0-rc1", State::Ok),
            ("", State::Fail),
            ("strange", State::Fail),
        ] {
            assert_eq!(kernel(release).state, state, "{release}");
        }
    }

    #[test]
    fn whatever_is_not_well_comes_with_its_fix() {
        for finding in [
            kernel("4.19"),
            btf(Path::new("/nowhere")),
            bpffs("nodev\tsysfs\n"),
        ] {
            assert_ne!(finding.state, State::Ok);
            assert!(finding.fix.is_some(), "{finding:?}");
        }
        assert_eq!(bpffs("nodev\tsysfs\nnodev\tbpf\n").state, State::Ok);
    }
}

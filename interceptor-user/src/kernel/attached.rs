//! The hooks at cgroups that something else made: a service's, a container's, a user's.
//!
//! Each has a folder of pins of its own, `links-ID` with the cgroup's id, beside the
//! agents'. What is pinned is what is in force: a daemon that starts reads the folders and
//! brings its own programs into the links. A cgroup that was removed takes its hooks with
//! it, and its folder is cleared away when it is next looked at.
//!
//! What this does not do: it neither makes nor removes such a cgroup, nor moves a process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::attach::{HOOKS, Hook, UNIX_HOOKS, attach};
use super::sys::{self, AttachType};
use super::{Kernel, KernelError, OpenTcp, cgroup, open};

const PREFIX: &str = "links-";

impl Kernel {
    /// Brings the hooks into force at a cgroup that is there; says which connections it had
    /// open, and has no more. Where the hooks stand already they stay.
    ///
    /// # Errors
    /// When the cgroup may not be attached, or the kernel does not attach. Nothing stands
    /// there then that did not before.
    pub fn attach_to(&self, path: &Path) -> Result<Vec<OpenTcp>, KernelError> {
        let id = self.may_attach(path)?;
        let dir = File::open(path).map_err(KernelError::io("opening", path))?;
        let links = self.folder.join(format!("{PREFIX}{id}"));
        if self.attached().contains(&id)
            && self
                .programs
                .iter()
                .all(|(hook, _)| hook.stands(&links, id))
        {
            return Ok(Vec::new());
        }
        self.check_alone_at(path)?;
        // Before, since from then on there are such as may be.
        let open = self.open_tcp(path);
        let done = stand(&self.programs, &dir, path, id, &links);
        if done.is_err() {
            let _ = take_out(&links);
        }
        done.map(|()| open::end_all(open))
    }

    /// Takes the hooks at a cgroup out of force; whether they stood there.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_from(&self, id: u64) -> Result<bool, KernelError> {
        take_out(&self.folder.join(format!("{PREFIX}{id}")))
    }

    /// Ids of the cgroups of others at which the hooks are pinned.
    #[must_use]
    pub fn attached(&self) -> BTreeSet<u64> {
        folders(&self.folder).map(|(id, _)| id).collect()
    }

    /// The id of a cgroup that may be attached, as far as its place says.
    ///
    /// # Errors
    /// Where the hooks would redirect the daemon itself, or stand above or below those of
    /// `exec`.
    pub fn may_attach(&self, path: &Path) -> Result<u64, KernelError> {
        let refuse = |why: &'static str| KernelError::MayNotAttach {
            path: path.to_owned(),
            why,
        };
        let id = cgroup::id(path)?;
        if path == self.cgroup_root {
            return Err(refuse(
                "it is the root of all cgroups, this daemon's included",
            ));
        }
        let inside = path
            .strip_prefix(&self.cgroup_root)
            .map_err(|_| refuse("it is not below the cgroup2 mount"))?;
        if inside
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
            || !path.join("cgroup.procs").exists()
        {
            return Err(refuse("it is no cgroup"));
        }
        if overlap(path, &self.agents_cgroup) {
            return Err(refuse("it holds, or is below, the cgroup of `exec`"));
        }
        let own = cgroup::of_process(std::process::id())?;
        let own = self.cgroup_root.join(own.trim_start_matches('/'));
        if overlap(path, &own)
            || overlap(path, &self.proxy_cgroup)
            || overlap(path, &self.listeners_cgroup)
        {
            return Err(refuse(
                "it holds, or is below, this daemon's own cgroup, whose connections would be redirected to itself",
            ));
        }
        Ok(id)
    }

    /// Refuses a second redirection: other programs at the cgroup itself or below it, and
    /// ours at any cgroup above it.
    fn check_alone_at(&self, path: &Path) -> Result<(), KernelError> {
        let stands = |at: &Path, ours: bool| -> Result<(), KernelError> {
            let Ok(dir) = File::open(at) else {
                return Ok(());
            };
            for (name, kind) in [
                ("connect_v4", AttachType::Connect4),
                ("connect_v6", AttachType::Connect6),
            ] {
                let own = sys::open_pin(&self.folder.join("links").join(name))
                    .and_then(|link| sys::link_info(link.as_fd()))
                    .map(|info| info.program)
                    .ok();
                let programs = sys::attached(dir.as_fd(), kind)
                    .map_err(KernelError::io("asking for the programs at", at))?;
                if programs.iter().any(|one| Some(*one) == own) {
                    return Err(KernelError::Overlaps {
                        path: path.to_owned(),
                        at: at.to_owned(),
                    });
                }
                if !ours && !programs.is_empty() {
                    return Err(KernelError::Foreign {
                        path: path.to_owned(),
                        at: at.to_owned(),
                        programs,
                    });
                }
            }
            Ok(())
        };
        for at in path
            .ancestors()
            .skip(1)
            .take_while(|at| at.starts_with(&self.cgroup_root))
        {
            stands(at, true)?;
        }
        // What was left unfinished here is ours, and is finished now.
        let links = cgroup::id(path).map(|id| self.folder.join(format!("{PREFIX}{id}")))?;
        for at in cgroup::tree(path) {
            if at != path || !links.exists() {
                stands(&at, false)?;
            }
        }
        Ok(())
    }
}

/// Whether one of two cgroups is the other, or holds it.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Brings all hooks into force at one cgroup.
fn stand(
    programs: &[(&'static Hook, OwnedFd)],
    dir: &File,
    path: &Path,
    id: u64,
    links: &Path,
) -> Result<(), KernelError> {
    match fs::create_dir(links) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(KernelError::io("making", links)(error));
        }
        _ => {}
    }
    for (hook, program) in programs {
        attach(hook, program.as_fd(), dir, path, id, links)?;
    }
    Ok(())
}

/// Takes up what an earlier daemon pinned: its own programs are replaced by these. What
/// cannot be taken up stays as it is, and refuses.
pub(super) fn take_over(folder: &Path, root: &Path, programs: &[(&'static Hook, OwnedFd)]) {
    for (id, links) in folders(folder) {
        let Some(path) = cgroup::by_id(root, id) else {
            debug!(cgroup = id, "an attached cgroup is gone");
            if let Err(error) = take_out(&links) {
                warn!(%error, "pins of a cgroup that is gone stay");
            }
            continue;
        };
        let done = File::open(&path)
            .map_err(KernelError::io("opening", &path))
            .and_then(|dir| stand(programs, &dir, &path, id, &links));
        if let Err(error) = done {
            warn!(%error, cgroup = %path.display(), "an attached cgroup could not be taken over; it stays cut off");
        }
    }
}

/// The folders of pins, with the id of their cgroup.
pub(super) fn folders(folder: &Path) -> impl Iterator<Item = (u64, PathBuf)> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let id = name.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((id, entry.path()))
        })
}

/// Whether every hook that no kernel may lack stands at the living cgroup.
pub(super) fn is_whole(links: &Path, id: u64) -> bool {
    HOOKS.iter().all(|hook| hook.stands(links, id))
}

/// Removes one folder of pins, and so the hooks: the default-deny one last.
fn take_out(links: &Path) -> Result<bool, KernelError> {
    if !links.exists() {
        return Ok(false);
    }
    for hook in HOOKS.iter().chain(&UNIX_HOOKS).rev() {
        let pin = links.join(hook.name);
        for pin in [links.join(format!("{}_new", hook.name)), pin] {
            match fs::remove_file(&pin) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(KernelError::io("removing", &pin)(error));
                }
                _ => {}
            }
        }
    }
    fs::remove_dir(links)
        .map(|()| true)
        .map_err(KernelError::io("removing", links))
}

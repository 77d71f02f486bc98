//! Looking at processes, and moving them: here, or by the process that may.
//!
//! [`Here`] does it, with whatever rights this process has; the looker ([`crate::looker`])
//! is one of it behind a socket, which the daemon asks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::executable::{Executables, Key};
use super::gather::{self, GatherError, Wanted};
use super::lately::{Lately, Process};
use super::process::{self, Seen};
use super::sockets::OpenSocket;
use crate::kernel::{Kernel, KernelError, cgroup};
use crate::looker::{LookError, Looker};

/// Looks and moves by itself.
#[derive(Debug)]
pub struct Here {
    /// The cgroup2 mount.
    root: PathBuf,
    /// The cgroup of which agents' are children.
    agents: PathBuf,
    executables: Executables,
    lately: Lately,
}

impl Here {
    pub(crate) fn new(root: PathBuf, agents: PathBuf) -> Self {
        Self {
            root,
            agents,
            executables: Executables::default(),
            lately: Lately::default(),
        }
    }

    pub(crate) fn see(&self, pid: u32, cgroup_id: u64) -> Seen {
        if let Some(seen) = self.lately.seen(pid, cgroup_id) {
            return seen;
        }
        // Before it is looked at: what it was then is what it has to be still.
        let held = Process::hold(pid);
        let seen = process::see(pid, cgroup_id, &self.root, &self.executables);
        if let Some(held) = held {
            self.lately.keep(cgroup_id, held, &seen);
        }
        seen
    }

    /// How many processes of a cgroup have a network of their own. The proxy listens on the
    /// host's loopback; in another network namespace nobody does.
    pub(crate) fn foreign(&self, of: &Path) -> usize {
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = network("self");
        cgroup::processes(of)
            .into_iter()
            .filter(|pid| network(&pid.to_string()).is_some_and(|net| Some(net) != own))
            .count()
    }

    pub(crate) fn place(&self, to: &Path, pid: u32) -> Result<(), KernelError> {
        self.agents_own(to)?;
        cgroup::place(to, pid)
    }

    pub(crate) fn gather(
        &self,
        to: &Path,
        wanted: Wanted,
        held: &[PathBuf],
    ) -> Result<Vec<OpenSocket>, GatherError> {
        self.agents_own(to)?;
        let is_held = |path: &Path| held.iter().any(|held| path.starts_with(held));
        gather::gather(&self.root, to, &wanted, is_held)
    }

    /// Moves everything out of an agent's cgroup.
    pub(crate) fn release(&self, from: &Path, home: &Path) -> Result<(), KernelError> {
        self.agents_own(from)?;
        self.below_root(home)?;
        // Stopped, or what forks meanwhile is never out whole; they go on where they arrive.
        cgroup::freeze(from, true)?;
        gather::put_back(from, &std::collections::HashMap::new(), home);
        cgroup::freeze(from, false)
    }

    pub(crate) fn digests(&self) -> Vec<(Key, String)> {
        self.executables.hand_over()
    }

    pub(crate) fn take_digests(&self, made: Vec<(Key, String)>) {
        self.executables.take_over(made);
    }

    /// That a cgroup is an agent's of ours, and no way out of them.
    fn agents_own(&self, path: &Path) -> Result<(), KernelError> {
        match path.parent() == Some(&self.agents) && path.file_name().is_some() {
            true => Ok(()),
            false => Err(no_such(path)),
        }
    }

    fn below_root(&self, path: &Path) -> Result<(), KernelError> {
        let plain = path
            .components()
            .all(|part| part != std::path::Component::ParentDir);
        match plain && path.starts_with(&self.root) {
            true => Ok(()),
            false => Err(no_such(path)),
        }
    }
}

fn no_such(path: &Path) -> KernelError {
    KernelError::io("moving processes by", path)(io::ErrorKind::PermissionDenied.into())
}

/// Who looks.
#[derive(Clone, Debug)]
pub enum Look {
    /// This process.
    Here(Arc<Here>),
    /// The one that may.
    There(Arc<Looker>),
}

impl Look {
    /// This process, which has the rights that it takes.
    #[must_use]
    pub fn here(kernel: &Kernel) -> Self {
        let (root, agents) = (kernel.cgroup_root(), kernel.agents_cgroup());
        Self::Here(Arc::new(Here::new(root.to_owned(), agents.to_owned())))
    }

    pub(super) fn see(&self, pid: u32, cgroup_id: u64) -> Result<Seen, LookError> {
        match self {
            Self::Here(here) => Ok(here.see(pid, cgroup_id)),
            Self::There(looker) => looker.see(pid, cgroup_id),
        }
    }

    pub(super) fn foreign(&self, of: &Path) -> Result<usize, LookError> {
        match self {
            Self::Here(here) => Ok(here.foreign(of)),
            Self::There(looker) => looker.foreign(of),
        }
    }

    pub(super) fn place(&self, to: &Path, pid: u32) -> Result<(), LookError> {
        match self {
            Self::Here(here) => here.place(to, pid).map_err(said),
            Self::There(looker) => looker.place(to, pid),
        }
    }

    pub(super) fn gather(
        &self,
        to: &Path,
        wanted: Wanted,
        held: Vec<PathBuf>,
    ) -> Result<Vec<OpenSocket>, LookError> {
        match self {
            Self::Here(here) => here.gather(to, wanted, &held).map_err(said),
            Self::There(looker) => looker.gather(to, wanted, held),
        }
    }

    pub(super) fn release(&self, from: &Path, home: &Path) -> Result<(), LookError> {
        match self {
            Self::Here(here) => here.release(from, home).map_err(said),
            Self::There(looker) => looker.release(from, home),
        }
    }

    pub(crate) fn digests(&self) -> Result<Vec<(Key, String)>, LookError> {
        match self {
            Self::Here(here) => Ok(here.digests()),
            Self::There(looker) => looker.digests(),
        }
    }

    pub(crate) fn take_digests(&self, made: Vec<(Key, String)>) -> Result<(), LookError> {
        match self {
            Self::Here(here) => {
                here.take_digests(made);
                Ok(())
            }
            Self::There(looker) => looker.take_digests(made),
        }
    }
}

fn said(error: impl std::error::Error) -> LookError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    LookError::Refused(text)
}

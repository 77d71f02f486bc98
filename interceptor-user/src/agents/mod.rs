//! Runs of agents: their cgroups, and who a process is.
//!
//! A run is everything that one `exec` did, over all protocols. It has a cgroup of
//! its own below the agents' parent, so that the kernel's word on a socket's cgroup
//! is the proof of who it belongs to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use interceptor_policy::Principal;

use crate::kernel::{Kernel, Origin};

/// One run of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id; a UUIDv7.
    pub id: Arc<str>,
    /// Name of the agent.
    pub agent: String,
    /// Labels given with it.
    pub labels: BTreeMap<String, String>,
    /// Who asked for it.
    pub requested_by: u32,
    /// Absolute path of its cgroup.
    pub cgroup: PathBuf,
    /// Id (inode) of its cgroup.
    pub cgroup_id: u64,
}

/// Who is behind a flow.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For the rules.
    pub principal: Principal,
    /// The run it belongs to; `None` where the cgroup is none of a known run.
    pub run: Option<Arc<str>>,
    /// For the record: pid, start time, executable with digest, command line,
    /// users, cgroup, chain of parents; whatever could still be read.
    pub process: serde_json::Value,
}

/// Why a run could not be begun or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentsError {
    /// Not there yet.
    #[error("runs are not built yet")]
    Unbuilt,
}

/// The runs that are known, this daemon's and those that an earlier one began.
#[derive(Debug)]
pub struct Runs {}

impl Runs {
    /// Reads what an earlier daemon remembered below `<runtime_dir>/runs`.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(_kernel: &Kernel, _runtime_dir: &Path) -> Result<Self, AgentsError> {
        Err(AgentsError::Unbuilt)
    }

    /// Begins a run: makes its cgroup, owned by root and closed to the agent.
    ///
    /// # Errors
    /// When the name or a label cannot be used, or the cgroup cannot be made.
    pub fn begin(
        &self,
        _agent: &str,
        _labels: BTreeMap<String, String>,
        _requested_by: u32,
    ) -> Result<Run, AgentsError> {
        Err(AgentsError::Unbuilt)
    }

    /// Moves a process into a run's cgroup.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn place(&self, _run: &Run, _pid: u32) -> Result<(), AgentsError> {
        Err(AgentsError::Unbuilt)
    }

    /// Who is behind an origin. Reads `/proc` and may hash an executable once, so
    /// call it where blocking is allowed. A process that is gone still yields what
    /// the kernel said.
    #[must_use]
    pub fn identify(&self, _origin: &Origin) -> Identity {
        Identity {
            principal: Principal::default(),
            run: None,
            process: serde_json::Value::Null,
        }
    }

    /// The runs that have processes, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Run> {
        Vec::new()
    }

    /// Forgets the runs that are over (no process left) and removes their cgroups;
    /// says which. Call it every few seconds.
    ///
    /// # Errors
    /// When the cgroups cannot be read.
    pub fn sweep(&self) -> Result<Vec<Run>, AgentsError> {
        Ok(Vec::new())
    }
}

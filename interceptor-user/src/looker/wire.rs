//! What is said between the daemon and its looker.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::agents::{ExecutableKey, OpenSocket, Seen};

/// Where the looker may do what it is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The cgroup2 mount, and the cgroup of which agents' are children; `None` without
    /// interception.
    pub cgroups: Option<(PathBuf, PathBuf)>,
    /// Files that it opens for the daemon.
    pub files: BTreeSet<PathBuf>,
    /// Commands that it runs for the daemon.
    pub commands: BTreeSet<Vec<String>>,
    /// Whether capabilities are given up.
    pub capabilities: bool,
    /// Whether system calls are.
    pub seccomp: bool,
}

/// What the daemon asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// What a process is, where it is in this cgroup.
    See { pid: u32, cgroup_id: u64 },
    /// How many processes of a cgroup have a network of their own.
    Foreign { cgroup: PathBuf },
    /// Moves a process into an agent's cgroup.
    Place { to: PathBuf, pid: u32 },
    /// Moves a process, with those that descend from it, into an agent's cgroup.
    Gather {
        to: PathBuf,
        pid: u32,
        asker: u32,
        allow_open_sockets: bool,
        /// Cgroups nothing of which may be moved.
        held: Vec<PathBuf>,
    },
    /// Moves everything out of an agent's cgroup.
    Release { from: PathBuf, home: PathBuf },
    /// Digests that were made.
    Digests {},
    /// Digests that the looker before made.
    TakeDigests(Vec<(ExecutableKey, String)>),
    /// Opens a file that the configuration refers to.
    Open { path: PathBuf },
    /// Runs a command that the configuration refers to, for what it prints.
    Run { line: Vec<String> },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Seen(Seen),
    Count(usize),
    Sockets(Vec<OpenSocket>),
    Digests(Vec<(ExecutableKey, String)>),
    Done,
    /// A descriptor follows.
    Opened,
    /// The number of an error.
    NotOpened(i32),
    Printed(String),
    Refused(String),
}

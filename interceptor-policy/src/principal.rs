//! Who acts, as the kernel and verified tokens say.

use std::collections::BTreeMap;

/// Who acts. Never filled from what a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The name under which the operator knows the agent.
    pub agent: String,
    /// Login name of `uid`, where the host knows one.
    pub user: Option<String>,
    /// User id at the time of `connect`.
    pub uid: u32,
    /// Group name of the process's gid, where the host knows one.
    pub group: Option<String>,
    /// Names of all the process's groups, where the host knows them.
    pub groups: Vec<String>,
    /// Claims of a verified token; empty without one.
    pub claims: BTreeMap<String, String>,
    /// Absolute path of the executable.
    pub exe: Option<String>,
    /// Arguments, joined by single spaces.
    pub command_line: Option<String>,
    /// Path of the cgroup below the cgroup2 mount.
    pub cgroup: Option<String>,
    /// Systemd unit, where the cgroup names one.
    pub unit: Option<String>,
    /// Container id, where the cgroup names one.
    pub container: Option<String>,
    /// Labels given with `exec --label` or in the configuration.
    pub labels: BTreeMap<String, String>,
}

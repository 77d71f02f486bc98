//! What goes into attaching, and what comes out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agents::Run;
use crate::agents::selector::Selector;
use crate::kernel::OpenTcp;

/// An agent that is wanted under interception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Its name.
    pub agent: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How it is found.
    pub selector: Selector,
    /// User id of who asked for it; the daemon's own for the configuration's.
    pub requested_by: u32,
    /// Whether the configuration says so.
    #[serde(skip)]
    pub configured: bool,
}

/// Who is under interception, or waited for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Its name.
    pub agent: String,
    /// `exec`, or the selector's kind and value.
    pub selected: String,
    /// Whether the configuration says so.
    pub configured: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its run; `None` while it is waited for.
    pub run: Option<Arc<str>>,
    /// Its cgroup, as an absolute path.
    pub cgroup: Option<PathBuf>,
    /// Milliseconds since the epoch at which it came under interception.
    pub since_ms: Option<u64>,
    /// Processes in its cgroup.
    pub processes: usize,
    /// Sessions under way.
    pub sessions: usize,
    /// What the kernel reported of it as refused, since the daemon started.
    pub refused: u64,
    /// What its cgroup did, as the kernel counts it.
    #[serde(default)]
    pub coverage: crate::kernel::Covered,
    /// Why it is not under interception yet.
    pub waits: Option<String>,
}

/// What came of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// The agent's name.
    pub agent: String,
    /// Its run.
    pub run: Arc<str>,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// What became different.
#[derive(Clone, Debug)]
pub enum Change {
    /// A cgroup came under interception.
    Attached(Run),
    /// A cgroup is under interception no more.
    Detached(Run),
    /// A cgroup that was under interception is gone.
    Over(Run),
    /// Connections that it had open when it came under interception were ended.
    Ended(Run, Vec<OpenTcp>),
}

//! Runs of agents: their cgroups, and who a process is.
//!
//! A run is everything that one `exec` did, over all protocols. It has a cgroup of
//! its own below the agents' parent, so that the kernel's word on a socket's cgroup
//! is the proof of who it belongs to. What runs already, or is started by something
//! else, is a run as well: of a cgroup that is not ours ([`attached`]), which a
//! [`selector`] names, or of one into which a process is moved ([`gather`]).
//!
//! What is known of runs is also in `<runtime_dir>/runs`, a file each: a daemon that
//! takes the pins over from a dead one must know the dead one's runs, or their agents
//! would be nobody's.
//!
//! What this room does not do: it intercepts nothing ([`crate::kernel`] does), and it
//! believes nothing that an agent says of itself.

mod accounts;
pub mod attached;
pub mod command_line;
pub mod confine;
mod coverage;
pub mod engines;
mod executable;
pub mod gather;
mod lately;
pub mod launch;
mod look;
mod names;
mod peer;
mod place;
mod process;
pub mod selector;
pub mod sockets;
pub mod ssh_trust;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use interceptor_policy::Principal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::executable::Key as ExecutableKey;
pub(crate) use self::gather::Wanted;
pub use self::look::{Here, Look};
pub(crate) use self::names::check_labels;
use self::names::check_name;
pub use self::names::name_of_command;
pub use self::peer::Peer;
pub(crate) use self::process::Seen;
use self::selector::Selector;
pub use self::sockets::OpenSocket;
use crate::kernel::{Kernel, KernelError, Origin, cgroup};
use crate::looker::LookError;

/// How long a run may stay without its first process.
const STARTING: Duration = Duration::from_secs(30);
/// How many runs there may be at once.
const MOST_RUNS: usize = 10_000;

/// Agent name of a socket whose cgroup is none of a known run.
pub const UNKNOWN: &str = "unknown";

/// One run of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id; a UUIDv7.
    pub id: Arc<str>,
    /// Name of the agent.
    pub agent: String,
    /// Labels given with it.
    pub labels: BTreeMap<String, String>,
    /// User id of who asked for it.
    pub requested_by: u32,
    /// Absolute path of its cgroup.
    pub cgroup: PathBuf,
    /// Id (inode) of its cgroup.
    pub cgroup_id: u64,
    /// How it was chosen; `None` where `exec` began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<Selected>,
}

/// How a run that `exec` did not begin was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// By what.
    pub by: Selector,
    /// Whether the configuration says so, and not a command.
    pub configured: bool,
    /// The cgroup that its processes were moved out of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
}

impl Run {
    /// Milliseconds since the epoch at which it began.
    #[must_use]
    pub fn begun_ms(&self) -> u64 {
        let time = Uuid::parse_str(&self.id)
            .ok()
            .and_then(|id| id.get_timestamp());
        time.map_or(0, |time| {
            let (seconds, nanos) = time.to_unix();
            seconds * 1_000 + u64::from(nanos) / 1_000_000
        })
    }
}

/// Who is behind a flow.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For the rules.
    pub principal: Principal,
    /// The run it belongs to; `None` where the cgroup is none of a known run.
    pub run: Option<Arc<str>>,
    /// Id of that run's cgroup; what is counted for a run, or kept for it, goes by this
    /// one, since what is attached may make cgroups below its own.
    pub cgroup: Option<u64>,
    /// For the record: pid, start time, executable with digest, command line,
    /// users, cgroup, chain of parents; whatever could still be read.
    pub process: Arc<serde_json::Value>,
}

/// Why a run could not be begun or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentsError {
    /// The agent's name.
    #[error(
        "`{name}` cannot name an agent: up to 64 letters, digits, `-`, `_` and `.`, not beginning with a dot"
    )]
    Name {
        /// The name, cut off at its longest.
        name: String,
    },
    /// A label.
    #[error(
        "label `{key}`: keys and values have at most 256 bytes and no control characters, and keys are not empty"
    )]
    Label {
        /// Its key, cut off at its longest.
        key: String,
    },
    /// Labels.
    #[error("{count} labels; at most 32 can be given")]
    TooManyLabels {
        /// How many.
        count: usize,
    },
    /// Runs.
    #[error("{count} runs are going on; no more can be begun")]
    TooManyRuns {
        /// How many.
        count: usize,
    },
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] KernelError),
    /// It was not looked at a process, or it was not moved.
    #[error(transparent)]
    Look(#[from] LookError),
    /// What is remembered of runs.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl AgentsError {
    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

/// The runs that are known, this daemon's and those that an earlier one began.
#[derive(Debug)]
pub struct Runs {
    agents: PathBuf,
    cgroup_root: PathBuf,
    folder: PathBuf,
    /// By id of the cgroup.
    known: Mutex<HashMap<u64, Known>>,
    /// The cgroup of its run, of each counted cgroup that is below one; see `coverage`.
    tops: Mutex<HashMap<u64, u64>>,
    pub(crate) look: Look,
}

#[derive(Clone, Debug)]
struct Known {
    run: Run,
    begun: Instant,
    placed: bool,
    /// What the kernel reported of it as refused.
    refused: u64,
}

impl Runs {
    /// Reads what an earlier daemon remembered below `<runtime_dir>/runs`.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(kernel: &Kernel, runtime_dir: &Path, look: Look) -> Result<Self, AgentsError> {
        Self::at(
            kernel.agents_cgroup(),
            kernel.cgroup_root(),
            runtime_dir,
            &kernel.attached(),
            look,
        )
    }

    fn at(
        agents: &Path,
        cgroup_root: &Path,
        runtime_dir: &Path,
        attached: &BTreeSet<u64>,
        look: Look,
    ) -> Result<Self, AgentsError> {
        let folder = runtime_dir.join("runs");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(AgentsError::file("making", &folder))?;
        let runs = Self {
            agents: agents.to_owned(),
            cgroup_root: cgroup_root.to_owned(),
            known: Mutex::new(HashMap::new()),
            tops: Mutex::new(HashMap::new()),
            look,
            folder,
        };
        runs.recall(attached)?;
        Ok(runs)
    }

    /// Takes up the runs whose cgroup is still the one they had; forgets the rest.
    fn recall(&self, attached: &BTreeSet<u64>) -> Result<(), AgentsError> {
        let entries =
            fs::read_dir(&self.folder).map_err(AgentsError::file("reading", &self.folder))?;
        for entry in entries {
            let path = entry
                .map_err(AgentsError::file("reading", &self.folder))?
                .path();
            let run = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Run>(&bytes).ok())
                .filter(|run| !self.is_others(run) || attached.contains(&run.cgroup_id))
                .filter(|run| cgroup::id(&run.cgroup).is_ok_and(|id| id == run.cgroup_id));
            match run {
                Some(run) => {
                    let known = Known {
                        begun: Instant::now(),
                        placed: true,
                        refused: 0,
                        run,
                    };
                    self.known().insert(known.run.cgroup_id, known);
                }
                None => {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(())
    }

    /// Begins a run: makes its cgroup, owned by root and closed to the agent.
    ///
    /// # Errors
    /// When the name or a label cannot be used, or the cgroup cannot be made.
    pub fn begin(
        &self,
        agent: &str,
        labels: BTreeMap<String, String>,
        requested_by: u32,
    ) -> Result<Run, AgentsError> {
        self.begin_as(agent, labels, requested_by, None)
    }

    /// Begins a run that was chosen by a process.
    fn begin_as(
        &self,
        agent: &str,
        labels: BTreeMap<String, String>,
        requested_by: u32,
        selected: Option<Selected>,
    ) -> Result<Run, AgentsError> {
        self.check(agent, &labels)?;
        let id = Uuid::now_v7().to_string();
        let path = cgroup::child(&self.agents, &format!("{agent}-{id}"))?;
        cgroup::make(&path)?;
        let run = Run {
            id: id.into(),
            agent: agent.to_owned(),
            labels,
            requested_by,
            cgroup_id: cgroup::id(&path)?,
            cgroup: path,
            selected,
        };
        if let Err(error) = self.remember(&run) {
            let _ = cgroup::remove_tree(&run.cgroup);
            return Err(error);
        }
        self.enter(&run, false);
        Ok(run)
    }

    /// Makes a run of a cgroup that something else made. Ours are the name and the pins;
    /// the cgroup is never removed.
    fn adopt(
        &self,
        agent: &str,
        labels: BTreeMap<String, String>,
        requested_by: u32,
        path: &Path,
        selected: Selected,
    ) -> Result<Run, AgentsError> {
        self.check(agent, &labels)?;
        let run = Run {
            id: Uuid::now_v7().to_string().into(),
            agent: agent.to_owned(),
            labels,
            requested_by,
            cgroup_id: cgroup::id(path)?,
            cgroup: path.to_owned(),
            selected: Some(selected),
        };
        self.remember(&run)?;
        self.enter(&run, true);
        Ok(run)
    }

    fn check(&self, agent: &str, labels: &BTreeMap<String, String>) -> Result<(), AgentsError> {
        check_name(agent)?;
        check_labels(labels)?;
        let count = self.known().len();
        if count >= MOST_RUNS {
            return Err(AgentsError::TooManyRuns { count });
        }
        Ok(())
    }

    fn enter(&self, run: &Run, placed: bool) {
        let known = Known {
            begun: Instant::now(),
            placed,
            refused: 0,
            run: run.clone(),
        };
        self.known().insert(run.cgroup_id, known);
    }

    /// Forgets a run; its cgroup stays.
    fn forget(&self, run: &Run) {
        self.known().remove(&run.cgroup_id);
        let _ = fs::remove_file(self.file(run));
    }

    /// Whether a run's cgroup is not one that we made.
    fn is_others(&self, run: &Run) -> bool {
        run.cgroup.parent() != Some(&self.agents)
    }

    /// The run whose cgroup a path is, or is below.
    #[must_use]
    pub fn at_path(&self, path: &Path) -> Option<Run> {
        self.known()
            .values()
            .find(|known| path.starts_with(&known.run.cgroup))
            .map(|known| known.run.clone())
    }

    /// Whether a process is under interception.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn holds(&self, pid: u32) -> Result<bool, AgentsError> {
        let path = cgroup::of_process(pid)?;
        let path = self.cgroup_root.join(path.trim_start_matches('/'));
        Ok(path.starts_with(&self.agents) || self.at_path(&path).is_some())
    }

    /// Notes what the kernel reported as refused; says whose it is.
    pub fn refused(&self, cgroup_id: u64, count: u64) -> Option<Run> {
        let run = self.of_cgroup(cgroup_id)?;
        if let Some(known) = self.known().get_mut(&run.cgroup_id) {
            known.refused = known.refused.saturating_add(count);
        }
        Some(run)
    }

    /// What the kernel reported of a run as refused, since this daemon started.
    fn refusals(&self, run: &Run) -> u64 {
        self.known()
            .get(&run.cgroup_id)
            .map_or(0, |known| known.refused)
    }

    /// Moves a process into a run's cgroup.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn place(&self, run: &Run, pid: u32) -> Result<(), AgentsError> {
        self.look.place(&run.cgroup, pid)?;
        self.placed(run);
        Ok(())
    }

    fn placed(&self, run: &Run) {
        if let Some(known) = self.known().get_mut(&run.cgroup_id) {
            known.placed = true;
        }
    }

    /// The run that a cgroup belongs to: its own, or that of a cgroup above it.
    #[must_use]
    pub fn of_cgroup(&self, cgroup_id: u64) -> Option<Run> {
        if let Some(known) = self.known().get(&cgroup_id) {
            return Some(known.run.clone());
        }
        // An id is given once.
        let top = self.tops().get(&cgroup_id).copied();
        if let Some(known) = top.and_then(|top| self.known().get(&top).cloned()) {
            return Some(known.run);
        }
        // Below one of ours, or one of others' (a container's systemd makes some). The lock
        // is not held for the walk.
        let others = self.list().into_iter().filter(|run| self.is_others(run));
        let tops = others.map(|run| run.cgroup).chain([self.agents.clone()]);
        let path = tops
            .filter_map(|top| cgroup::by_id(&top, cgroup_id))
            .next()?;
        self.at_path(&path)
    }

    /// The same of one whose path was seen, so that nothing is to be looked for however
    /// many there are.
    fn of_seen(&self, cgroup_id: u64, path: &str) -> Option<Run> {
        let own = self.known().get(&cgroup_id).map(|known| known.run.clone());
        own.or_else(|| {
            let path = self.cgroup_root.join(path.trim_start_matches('/'));
            let above = path.ancestors().skip(1);
            above
                .take_while(|path| path.starts_with(&self.cgroup_root))
                .find_map(|path| {
                    let id = cgroup::id(path).ok()?;
                    self.known().get(&id).map(|known| known.run.clone())
                })
        })
    }

    /// The id of the cgroup of the run that a cgroup belongs to, as in [`Identity::cgroup`].
    #[must_use]
    pub fn top(&self, cgroup_id: u64) -> Option<u64> {
        self.of_cgroup(cgroup_id).map(|run| run.cgroup_id)
    }

    /// Who is behind an origin. Reads `/proc` and may hash an executable once, so
    /// call it where blocking is allowed. A process that is gone still yields what
    /// the kernel said.
    ///
    /// # Errors
    /// When it cannot be looked: nobody is taken for somebody else.
    pub fn identify(&self, origin: &Origin) -> Result<Identity, LookError> {
        let seen = self.look.see(origin.pid, origin.cgroup_id)?;
        let found = process::known(origin, seen);
        let run = match &found.cgroup {
            Some(path) => self.of_seen(origin.cgroup_id, path),
            None => self.of_cgroup(origin.cgroup_id),
        };
        let cgroup = match (&run, &found.cgroup) {
            (_, Some(cgroup)) => Some(cgroup.clone()),
            (Some(run), None) => run
                .cgroup
                .strip_prefix(&self.cgroup_root)
                .ok()
                .map(|path| format!("/{}", path.display())),
            (None, None) => None,
        };
        let mut process = found.json;
        if let Some(run) = &run {
            process.insert("agent".to_owned(), run.agent.clone().into());
            process.insert("requested_by".to_owned(), run.requested_by.into());
        }
        if let Some(cgroup) = &cgroup {
            process.insert("cgroup".to_owned(), cgroup.clone().into());
        }
        let unit = cgroup.as_deref().and_then(place::unit);
        let container = cgroup.as_deref().and_then(place::container);
        for (key, value) in [("unit", &unit), ("container", &container)] {
            if let Some(value) = value {
                process.insert(key.to_owned(), value.clone().into());
            }
        }
        let principal = Principal {
            agent: run
                .as_ref()
                .map_or_else(|| UNKNOWN.to_owned(), |run| run.agent.clone()),
            user: found.user,
            uid: origin.uid,
            group: found.group,
            groups: found.groups,
            claims: BTreeMap::new(),
            exe: found.exe,
            command_line: found.command_line,
            cgroup,
            unit,
            container,
            labels: run
                .as_ref()
                .map(|run| run.labels.clone())
                .unwrap_or_default(),
        };
        Ok(Identity {
            principal,
            cgroup: run.as_ref().map(|run| run.cgroup_id),
            run: run.map(|run| run.id),
            process: Arc::new(serde_json::Value::Object(process)),
        })
    }

    /// Who is behind a connection over a Unix socket, as the kernel says of its other end.
    /// Blocks as [`Runs::identify`] does.
    ///
    /// # Errors
    /// As [`Runs::identify`].
    pub fn identify_peer(&self, peer: &Peer) -> Result<Identity, LookError> {
        let pid = peer.pid;
        let cgroup_id = cgroup::of_process(pid)
            .and_then(|path| cgroup::id(&self.cgroup_root.join(path.trim_start_matches('/'))));
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let mut origin = Origin {
            // Where it goes is no matter of who it is.
            address: (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            pid,
            uid: peer.uid,
            gid: peer.gid,
            comm: comm.trim_end().replace(char::is_control, "\u{fffd}"),
            cgroup_id: cgroup_id.unwrap_or_default(),
        };
        let identity = self.identify(&origin)?;
        if peer.is_there() {
            return Ok(identity);
        }
        // What was read may be of another process, to which the number went.
        origin.comm.clear();
        origin.cgroup_id = 0;
        self.identify(&origin)
    }

    /// The runs that are going on, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = self
            .known()
            .values()
            .map(|known| known.run.clone())
            .collect();
        // Ids begin with the time.
        runs.sort_by(|a, b| a.id.cmp(&b.id));
        runs
    }

    /// Forgets the runs that are over (no process left) and removes their cgroups;
    /// says which. Call it every few seconds.
    ///
    /// # Errors
    /// When a cgroup cannot be removed; those before it are gone.
    pub fn sweep(&self) -> Result<Vec<Run>, AgentsError> {
        let candidates: Vec<Run> = self
            .known()
            .values()
            .filter(|known| known.placed || known.begun.elapsed() > STARTING)
            .map(|known| known.run.clone())
            // Those of others end with their cgroup, empty or not: see `attached`.
            .filter(|run| !self.is_others(run))
            .collect();
        let mut over = Vec::new();
        for run in candidates {
            match cgroup::is_populated(&run.cgroup) {
                Ok(true) => continue,
                Ok(false) => cgroup::remove_tree(&run.cgroup)?,
                // Gone already, or another cgroup's by now.
                Err(_) => {}
            }
            self.forget(&run);
            over.push(run);
        }
        Ok(over)
    }

    /// Writes a run down before anything runs in it.
    fn remember(&self, run: &Run) -> Result<(), AgentsError> {
        let path = self.file(run);
        let failed = |source| AgentsError::file("writing", &path)(source);
        let bytes = serde_json::to_vec(run).map_err(|error| failed(error.into()))?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(failed)
    }

    fn file(&self, run: &Run) -> PathBuf {
        self.folder.join(format!("{}.json", run.id))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

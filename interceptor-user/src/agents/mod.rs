//! Runs of agents: their cgroups, and who a process is.
//!
//! A run is everything that one `exec` did, over all protocols. It has a cgroup of
//! its own below the agents' parent, so that the kernel's word on a socket's cgroup
//! is the proof of who it belongs to.
//!
//! What is known of runs is also in `<runtime_dir>/runs`, a file each: a daemon that
//! takes the pins over from a dead one must know the dead one's runs, or their agents
//! would be nobody's.
//!
//! What this room does not do: it intercepts nothing ([`crate::kernel`] does), and it
//! believes nothing that an agent says of itself.

pub mod command_line;
mod executable;
pub mod launch;
mod place;
mod process;
pub mod ssh_trust;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use interceptor_policy::Principal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::executable::Executables;
use crate::kernel::{Kernel, KernelError, Origin, cgroup};

/// How long a run may stay without its first process.
const STARTING: Duration = Duration::from_secs(30);
/// How many runs there may be at once.
const MOST_RUNS: usize = 10_000;
/// Longest name of an agent.
const LONGEST_NAME: usize = 64;
/// How many labels a run may have, and how long key and value may be.
const MOST_LABELS: usize = 32;
const LONGEST_LABEL: usize = 256;

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
    executables: Executables,
}

#[derive(Clone, Debug)]
struct Known {
    run: Run,
    begun: Instant,
    placed: bool,
}

impl Runs {
    /// Reads what an earlier daemon remembered below `<runtime_dir>/runs`.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(kernel: &Kernel, runtime_dir: &Path) -> Result<Self, AgentsError> {
        Self::at(kernel.agents_cgroup(), kernel.cgroup_root(), runtime_dir)
    }

    fn at(agents: &Path, cgroup_root: &Path, runtime_dir: &Path) -> Result<Self, AgentsError> {
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
            executables: Executables::default(),
            folder,
        };
        runs.recall()?;
        Ok(runs)
    }

    /// Takes up the runs whose cgroup is still the one they had; forgets the rest.
    fn recall(&self) -> Result<(), AgentsError> {
        let entries =
            fs::read_dir(&self.folder).map_err(AgentsError::file("reading", &self.folder))?;
        for entry in entries {
            let path = entry
                .map_err(AgentsError::file("reading", &self.folder))?
                .path();
            let run = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Run>(&bytes).ok())
                .filter(|run| run.cgroup.parent() == Some(&self.agents))
                .filter(|run| cgroup::id(&run.cgroup).is_ok_and(|id| id == run.cgroup_id));
            match run {
                Some(run) => {
                    let known = Known {
                        begun: Instant::now(),
                        placed: true,
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
        check_name(agent)?;
        check_labels(&labels)?;
        let count = self.known().len();
        if count >= MOST_RUNS {
            return Err(AgentsError::TooManyRuns { count });
        }
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
        };
        if let Err(error) = self.remember(&run) {
            let _ = cgroup::remove_tree(&run.cgroup);
            return Err(error);
        }
        let known = Known {
            begun: Instant::now(),
            placed: false,
            run: run.clone(),
        };
        self.known().insert(run.cgroup_id, known);
        Ok(run)
    }

    /// Moves a process into a run's cgroup.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn place(&self, run: &Run, pid: u32) -> Result<(), AgentsError> {
        cgroup::place(&run.cgroup, pid)?;
        if let Some(known) = self.known().get_mut(&run.cgroup_id) {
            known.placed = true;
        }
        Ok(())
    }

    /// The run that a cgroup belongs to: its own, or that of a cgroup above it.
    #[must_use]
    pub fn of_cgroup(&self, cgroup_id: u64) -> Option<Run> {
        if let Some(known) = self.known().get(&cgroup_id) {
            return Some(known.run.clone());
        }
        let path = cgroup::by_id(&self.agents, cgroup_id)?;
        self.known()
            .values()
            .find(|known| path.starts_with(&known.run.cgroup))
            .map(|known| known.run.clone())
    }

    /// Who is behind an origin. Reads `/proc` and may hash an executable once, so
    /// call it where blocking is allowed. A process that is gone still yields what
    /// the kernel said.
    #[must_use]
    pub fn identify(&self, origin: &Origin) -> Identity {
        let run = self.of_cgroup(origin.cgroup_id);
        let found = process::look_at(origin, &self.cgroup_root, &self.executables);
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
        Identity {
            principal,
            run: run.map(|run| run.id),
            process: Arc::new(serde_json::Value::Object(process)),
        }
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
            .collect();
        let mut over = Vec::new();
        for run in candidates {
            match cgroup::is_populated(&run.cgroup) {
                Ok(true) => continue,
                Ok(false) => cgroup::remove_tree(&run.cgroup)?,
                // Gone already, or another cgroup's by now.
                Err(_) => {}
            }
            self.known().remove(&run.cgroup_id);
            let _ = fs::remove_file(self.file(&run));
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

/// Makes a usable name of a command's: what cannot stand in one becomes `-`.
#[must_use]
pub fn name_of_command(command: &str) -> String {
    let base = command.rsplit('/').next().unwrap_or_default();
    let name: String = base
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .take(LONGEST_NAME)
        .collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() {
        "agent".to_owned()
    } else {
        name.to_owned()
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn check_name(name: &str) -> Result<(), AgentsError> {
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || name.starts_with('.')
        || !name.chars().all(is_plain)
    {
        return Err(AgentsError::Name {
            name: name.chars().take(LONGEST_NAME).collect(),
        });
    }
    Ok(())
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), AgentsError> {
    if labels.len() > MOST_LABELS {
        return Err(AgentsError::TooManyLabels {
            count: labels.len(),
        });
    }
    let usable = |text: &str| text.len() <= LONGEST_LABEL && !text.chars().any(char::is_control);
    match labels
        .iter()
        .find(|(key, value)| key.is_empty() || !usable(key) || !usable(value))
    {
        Some((key, _)) => Err(AgentsError::Label {
            key: key.chars().take(LONGEST_LABEL).collect(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain folders stand in for cgroups where only names and files matter.
    fn runs(place: &Path) -> Runs {
        let root = place.join("root");
        let agents = root.join("agents");
        fs::create_dir_all(&agents).unwrap();
        Runs::at(&agents, &root, &place.join("run")).unwrap()
    }

    fn origin(cgroup_id: u64) -> Origin {
        Origin {
            address: "10.0.0.5:5432".parse().unwrap(),
            pid: u32::MAX,
            uid: 65_534,
            gid: 65_534,
            comm: "psql".to_owned(),
            cgroup_id,
        }
    }

    #[test]
    fn a_process_that_is_gone_is_still_who_the_kernel_said() {
        let place = tempfile::tempdir().unwrap();
        let runs = runs(place.path());
        let labels = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
        let run = runs.begin("deploy-bot", labels.clone(), 1000).unwrap();
        let identity = runs.identify(&origin(run.cgroup_id));
        assert_eq!(identity.principal.agent, "deploy-bot");
        assert_eq!(identity.principal.labels, labels);
        assert_eq!(identity.principal.uid, 65_534);
        assert_eq!(identity.run, Some(run.id.clone()));
        assert_eq!(
            identity.principal.cgroup,
            Some(format!("/agents/deploy-bot-{}", run.id))
        );
        assert_eq!(identity.process["comm"], "psql");
        assert_eq!(identity.process["gone"], true);
    }

    #[test]
    fn a_socket_of_no_known_run_is_nobodys() {
        let place = tempfile::tempdir().unwrap();
        let identity = runs(place.path()).identify(&origin(1));
        assert_eq!(identity.principal.agent, UNKNOWN);
        assert_eq!(identity.run, None);
    }

    #[test]
    fn a_restarted_daemon_knows_the_runs_of_the_one_before() {
        let place = tempfile::tempdir().unwrap();
        let run = runs(place.path())
            .begin("coder", BTreeMap::new(), 1000)
            .unwrap();
        let gone = runs(place.path())
            .begin("gone", BTreeMap::new(), 1000)
            .unwrap();
        fs::remove_dir(&gone.cgroup).unwrap();
        let later = runs(place.path());
        assert_eq!(later.list(), vec![run.clone()]);
        assert_eq!(later.of_cgroup(run.cgroup_id), Some(run));
        assert_eq!(
            fs::read_dir(place.path().join("run/runs")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_run_whose_cgroup_was_made_anew_is_another_one() {
        let place = tempfile::tempdir().unwrap();
        let run = runs(place.path())
            .begin("coder", BTreeMap::new(), 1000)
            .unwrap();
        fs::remove_dir(&run.cgroup).unwrap();
        fs::create_dir(place.path().join("root/agents/between")).unwrap();
        fs::create_dir(&run.cgroup).unwrap();
        if cgroup::id(&run.cgroup).unwrap() != run.cgroup_id {
            assert_eq!(runs(place.path()).list(), vec![]);
        }
    }

    #[test]
    fn names_and_labels_that_could_lead_elsewhere_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let runs = runs(place.path());
        for name in ["", "..", "a/b", "a b", "a\n", "ü", &"x".repeat(65)] {
            let refused = runs.begin(name, BTreeMap::new(), 0);
            assert!(matches!(refused, Err(AgentsError::Name { .. })), "{name:?}");
        }
        let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for bad in [
            label("", "v"),
            label("k", "a\nb"),
            label("k", &"x".repeat(257)),
        ] {
            assert!(matches!(
                runs.begin("a", bad, 0),
                Err(AgentsError::Label { .. })
            ));
        }
        let many = (0..33).map(|n| (n.to_string(), String::new())).collect();
        assert!(matches!(
            runs.begin("a", many, 0),
            Err(AgentsError::TooManyLabels { count: 33 })
        ));
    }

    #[test]
    fn every_command_gives_a_usable_name() {
        for (command, name) in [
            ("/usr/bin/python3.11", "python3.11"),
            ("psql", "psql"),
            ("./my agent", "my-agent"),
            ("/bin/[", "-"),
            ("..", "agent"),
            ("/", "agent"),
            (".hidden", "hidden"),
        ] {
            assert_eq!(name_of_command(command), name);
            assert!(check_name(&name_of_command(command)).is_ok(), "{command}");
        }
    }
}

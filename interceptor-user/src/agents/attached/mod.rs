//! Agents that `exec` did not start: who is wanted under interception, and who is.
//!
//! A *want* names an agent and says by which selector it is found; the configuration has
//! some, `attach` adds others, which are remembered in `<state_dir>/attached` until
//! `detach`. [`Attachments::reconcile`] is called again and again: a unit that starts
//! later, or whose cgroup was made anew, is attached then. Each cgroup that is attached is
//! a run of its own.
//!
//! `want` has what goes in and out, `release` is the way back, `process` is for one
//! process and its descendants.
//!
//! What this room does not do: it does not see a cgroup at the moment it is made. Between
//! that and the next look its processes connect directly; the documents say how a unit is
//! kept from starting before.

mod process;
mod release;
mod want;
mod watch;

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail, ensure};
use tracing::{info, warn};

use super::engines::{Engines, Sought};
use super::selector::{self, Selector};
use super::{Run, Runs, Selected};
use crate::kernel::{Kernel, OpenTcp, cgroup};

pub use want::{AgentFacts, Attached, Change, Want};
pub use watch::watch;

/// Who is wanted, and what is done about it. One thing at a time.
#[derive(Debug)]
pub struct Attachments {
    kernel: Arc<Kernel>,
    runs: Arc<Runs>,
    folder: PathBuf,
    configured: Vec<Want>,
    engines: Engines,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What `attach` asked for.
    asked: Vec<Want>,
    /// Who is not there yet, and why.
    waiting: HashMap<Selector, String>,
}

impl Attachments {
    /// Reads what `attach` was asked before, below `<state_dir>/attached`.
    ///
    /// # Errors
    /// When that cannot be read: agents that are not known would go without interception.
    pub fn open(
        kernel: Arc<Kernel>,
        runs: Arc<Runs>,
        state_dir: &Path,
        mut configured: Vec<Want>,
        engines: Engines,
    ) -> anyhow::Result<Self> {
        for want in &mut configured {
            want.selector.normalize(kernel.cgroup_root());
        }
        let folder = folder(state_dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("making {}", folder.display()))?;
        let mut asked: Vec<Want> = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "json") {
                let bytes = fs::read(&path)?;
                let want = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is no agent", path.display()))?;
                asked.push(want);
            }
        }
        // The configuration's word counts, where both have one.
        asked.retain(|want| {
            configured
                .iter()
                .all(|other| other.selector != want.selector)
        });
        Ok(Self {
            kernel,
            runs,
            folder,
            configured,
            engines,
            state: Mutex::new(State {
                asked,
                waiting: HashMap::new(),
            }),
        })
    }

    /// Attaches who is wanted and there, and lets go who is not wanted any more. Reads and
    /// writes the cgroup tree: call it where blocking is allowed.
    pub fn reconcile(&self) -> Vec<Change> {
        let mut state = self.lock();
        let mut changes = self.clear(&state);
        let wants: Vec<Want> = self
            .configured
            .iter()
            .chain(&state.asked)
            .cloned()
            .collect();
        for want in wants {
            match self.bring(&want, &mut changes) {
                Ok(()) => {
                    state.waiting.remove(&want.selector);
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    let before = state.waiting.insert(want.selector.clone(), why.clone());
                    // Said once, not twice a second.
                    if before.as_ref() != Some(&why) {
                        info!(agent = %want.agent, "waits for its cgroup: {why}");
                    }
                }
            }
        }
        changes
    }

    /// Ends the runs whose cgroup is gone, and those that the configuration named before.
    fn clear(&self, state: &State) -> Vec<Change> {
        let mut changes = Vec::new();
        for run in self.others() {
            let Some(selected) = &run.selected else {
                continue;
            };
            let lives = cgroup::id(&run.cgroup).is_ok_and(|id| id == run.cgroup_id);
            let wanted = self
                .configured
                .iter()
                .chain(&state.asked)
                .any(|want| want.selector == selected.by);
            if lives && wanted {
                continue;
            }
            match self.kernel.detach_from(run.cgroup_id) {
                Ok(_) => {
                    self.runs.forget(&run);
                    changes.push(if lives {
                        Change::Detached(run)
                    } else {
                        Change::Over(run)
                    });
                }
                Err(error) => warn!(%error, agent = %run.agent, "could not be let go"),
            }
        }
        changes
    }

    /// Brings the cgroups of a want under interception, where they are not; a label's and a
    /// name's are as many as the engines say.
    fn bring(&self, want: &Want, changes: &mut Vec<Change>) -> anyhow::Result<()> {
        let Some(paths) = self.by_engine(want)? else {
            changes.extend(self.bring_one(want, None)?);
            return Ok(());
        };
        let mut done = Ok(());
        for path in &paths {
            match self.bring_one(want, Some(path)) {
                Ok(change) => changes.extend(change),
                Err(error) => done = Err(error),
            }
        }
        done
    }

    /// What only an engine knows.
    fn by_engine(&self, want: &Want) -> anyhow::Result<Option<Vec<PathBuf>>> {
        let root = self.kernel.cgroup_root();
        match &want.selector {
            Selector::Container(text) if Sought::parse(text).is_some() => {
                let paths = self.engines.cgroups(root, text)?;
                for path in &paths {
                    selector::held(root, path)?;
                }
                Ok(Some(paths))
            }
            _ => Ok(None),
        }
    }

    fn bring_one(&self, want: &Want, at: Option<&Path>) -> anyhow::Result<Vec<Change>> {
        let known = self.others().into_iter().find(|run| {
            run.selected
                .as_ref()
                .is_some_and(|selected| selected.by == want.selector)
                && at.is_none_or(|at| at == run.cgroup)
                && cgroup::id(&run.cgroup).is_ok_and(|id| id == run.cgroup_id)
        });
        let path = match &known {
            // The pins may have been taken away; the kernel is asked below.
            Some(run) => run.cgroup.clone(),
            None => match at {
                Some(at) => at.to_owned(),
                None => want.selector.resolve(self.kernel.cgroup_root())?,
            },
        };
        let selected = Selected {
            by: want.selector.clone(),
            configured: want.configured,
            from: None,
        };
        let same = known.as_ref().is_some_and(|run| {
            run.agent == want.agent
                && run.labels == want.labels
                && run.selected.as_ref() == Some(&selected)
        });
        if let (true, Some(run)) = (same, &known) {
            return Ok(ended(run, self.kernel.attach_to(&path)?));
        }
        if let Some(run) = &known {
            // Another name for what is under interception already: no moment without.
            self.runs.forget(run);
        } else if let Some(other) = self.runs.at_path(&path) {
            bail!(
                "the cgroup {} may not be attached: agent {:?} is under interception there already ({})",
                path.display(),
                other.agent,
                how(&other)
            );
        }
        // Written down first: a cgroup that is attached and nobody's would be cut off.
        let labels = want.labels.clone();
        let run = self
            .runs
            .adopt(&want.agent, labels, want.requested_by, &path, selected)?;
        let open = match self.kernel.attach_to(&path) {
            Ok(open) => open,
            Err(error) => {
                self.runs.forget(&run);
                return Err(error.into());
            }
        };
        let mut changes = ended(&run, open);
        changes.insert(0, Change::Attached(run));
        Ok(changes)
    }

    /// Does what `attach` asks. `asker` is the process that does.
    ///
    /// # Errors
    /// When it cannot be done; then nothing is different.
    pub fn attach(
        &self,
        mut want: Want,
        asker: u32,
        allow_open_sockets: bool,
    ) -> anyhow::Result<(Attached, Vec<Change>)> {
        super::check_name(&want.agent)?;
        super::check_labels(&want.labels)?;
        want.selector.check()?;
        want.selector.normalize(self.kernel.cgroup_root());
        if let Selector::Pid(pid) = want.selector {
            let (attached, change) = self.attach_process(&want, pid, asker, allow_open_sockets)?;
            return Ok((attached, change.into_iter().collect()));
        }
        let mut state = self.lock();
        let before = self
            .configured
            .iter()
            .chain(&state.asked)
            .find(|other| other.selector == want.selector)
            .cloned();
        let (want, is_new) = match before {
            Some(other) => {
                let same = other.agent == want.agent
                    && (want.labels.is_empty() || want.labels == other.labels);
                ensure!(
                    same,
                    "{} is agent {:?} already, with labels {:?}; detach it first",
                    other.selector,
                    other.agent,
                    other.labels
                );
                (other, false)
            }
            None => (want, true),
        };
        let paths = match self.by_engine(&want)? {
            Some(paths) => paths,
            None => vec![want.selector.resolve(self.kernel.cgroup_root())?],
        };
        for path in &paths {
            self.kernel.may_attach(path)?;
            self.not_the_askers(path, asker)?;
        }
        let mut changes = Vec::new();
        let mut done = self.bring(&want, &mut changes);
        if is_new && done.is_ok() {
            done = self.remember(&want);
        }
        if let Err(error) = done {
            for change in &changes {
                if let Change::Attached(run) = change {
                    let _ = self.kernel.detach_from(run.cgroup_id);
                    self.runs.forget(run);
                }
            }
            return Err(error);
        }
        let run = paths
            .first()
            .and_then(|path| self.runs.at_path(path))
            .context("the cgroup is gone again")?;
        if is_new {
            state.asked.push(want);
        }
        let mut warnings = Vec::new();
        for run in paths.iter().filter_map(|path| self.runs.at_path(path)) {
            self.foreign_networks(&run, &mut warnings);
        }
        if paths.len() > 1 {
            warnings.push(format!(
                "{} containers are meant, each a run of its own: `interceptor agents` lists them",
                paths.len()
            ));
        }
        if !changes.is_empty() {
            let ended = changes.iter().map(|change| match change {
                Change::Ended(_, open) => open.len(),
                _ => 0,
            });
            warnings.push(format!(
                "connections that its processes had open are cut off ({} were ended), and so is whoever was connected to a server of theirs",
                ended.sum::<usize>()
            ));
        }
        Ok((attached(run, warnings), changes))
    }

    /// What is said of processes to whose network the daemon does not listen.
    fn foreign_networks(&self, run: &Run, warnings: &mut Vec<String>) {
        let elsewhere = match self.runs.look.foreign(&run.cgroup) {
            Ok(count) => count,
            Err(error) => {
                warnings.push(format!("its processes' networks are not known: {error}"));
                return;
            }
        };
        if elsewhere > 0 {
            warnings.push(format!(
                "{elsewhere} of its processes have a network namespace of their own, where this daemon does not listen: their connects are refused"
            ));
        }
    }

    /// An operator's shell that comes under interception could not ask for its release. A
    /// service's own command (`ExecStartPre=`) is another matter: it ends.
    fn not_the_askers(&self, path: &Path, asker: u32) -> anyhow::Result<()> {
        let own = cgroup::of_process(asker)?;
        let own = self.kernel.cgroup_root().join(own.trim_start_matches('/'));
        let is_service = path
            .extension()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("service"));
        ensure!(
            is_service || !own.starts_with(path),
            "the command that asks is in the cgroup {} itself, and could not ask for its release; ask from outside of it",
            path.display()
        );
        Ok(())
    }

    /// Whether a process is in the cgroup of a want that is in force already: what a
    /// service's own command may ask, since it changes nothing.
    #[must_use]
    pub fn in_force(&self, agent: &str, selector: &Selector, asker: u32) -> Option<Attached> {
        let path = cgroup::of_process(asker).ok()?;
        let path = self.kernel.cgroup_root().join(path.trim_start_matches('/'));
        let run = self.runs.at_path(&path)?;
        let mut selector = selector.clone();
        selector.normalize(self.kernel.cgroup_root());
        let same = run.agent == agent
            && run
                .selected
                .as_ref()
                .is_some_and(|selected| selected.by == selector);
        same.then(|| attached(run, Vec::new()))
    }

    /// Who is under interception, and who is waited for; oldest first. `sessions` counts
    /// those of a run.
    #[must_use]
    pub fn list(&self, sessions: impl Fn(&str) -> usize) -> Vec<AgentFacts> {
        let state = self.lock();
        let mut facts: Vec<AgentFacts> = self
            .runs
            .list()
            .into_iter()
            .map(|run| AgentFacts {
                selected: how(&run),
                configured: run.selected.as_ref().is_some_and(|how| how.configured),
                since_ms: Some(run.begun_ms()),
                processes: cgroup::processes(&run.cgroup).len(),
                sessions: sessions(&run.id),
                refused: self.runs.refusals(&run),
                coverage: self.runs.coverage(&self.kernel, &run),
                waits: None,
                agent: run.agent,
                labels: run.labels,
                run: Some(run.id),
                cgroup: Some(run.cgroup),
            })
            .collect();
        let waiting = self
            .configured
            .iter()
            .chain(&state.asked)
            .filter_map(|want| Some((want, state.waiting.get(&want.selector)?)));
        facts.extend(waiting.map(|(want, why)| AgentFacts {
            agent: want.agent.clone(),
            selected: want.selector.to_string(),
            configured: want.configured,
            labels: want.labels.clone(),
            run: None,
            cgroup: None,
            since_ms: None,
            processes: 0,
            sessions: 0,
            refused: 0,
            coverage: crate::kernel::Covered::default(),
            waits: Some(why.clone()),
        }));
        facts
    }

    /// The runs of cgroups that something else made.
    fn others(&self) -> Vec<Run> {
        let mut runs = self.runs.list();
        runs.retain(|run| self.runs.is_others(run));
        runs
    }

    fn remember(&self, want: &Want) -> anyhow::Result<()> {
        let path = self.file(want);
        let draft = path.with_extension("new");
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(&serde_json::to_vec(want)?)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// A file a selector, so that it is the same one however often it is asked for.
    fn file(&self, want: &Want) -> PathBuf {
        let name = blake3::hash(want.selector.to_string().as_bytes()).to_hex();
        self.folder
            .join(format!("{}.json", name.get(..32).unwrap_or(&name)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what `attach` asked for.
///
/// # Errors
/// When it cannot be removed.
pub fn forget_all(state_dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder(state_dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("attached")
}

fn attached(run: Run, warnings: Vec<String>) -> Attached {
    Attached {
        agent: run.agent,
        run: run.id,
        cgroup: run.cgroup,
        warnings,
    }
}

/// How a run was chosen, in words.
fn how(run: &Run) -> String {
    run.selected
        .as_ref()
        .map_or_else(|| "exec".to_owned(), |selected| selected.by.to_string())
}

/// Connections that a run had open, where it had any.
fn ended(run: &Run, open: Vec<OpenTcp>) -> Vec<Change> {
    match open.is_empty() {
        true => Vec::new(),
        false => vec![Change::Ended(run.clone(), open)],
    }
}

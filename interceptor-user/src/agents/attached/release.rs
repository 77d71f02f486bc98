//! Detaching.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::{Attachments, Want};
use crate::agents::Run;
use crate::agents::selector::Selector;
use crate::kernel::cgroup;

impl Attachments {
    /// Does what `detach` asks: by the agent's name, by selector, or by both.
    ///
    /// # Errors
    /// When there is nothing of the kind, or the configuration says otherwise.
    pub fn detach(
        &self,
        agent: Option<&str>,
        selector: Option<&Selector>,
    ) -> anyhow::Result<Vec<Run>> {
        let mut state = self.lock();
        let mut selector = selector.cloned();
        if let Some(selector) = &mut selector {
            selector.normalize(self.kernel.cgroup_root());
        }
        let selector = selector.as_ref();
        // A cgroup is named by its path, however it was found.
        let path = match selector {
            Some(Selector::Pid(pid)) => cgroup::of_process(*pid)
                .ok()
                .map(|path| self.kernel.cgroup_root().join(path.trim_start_matches('/')))
                // A process of a service does not stand for the service.
                .filter(|path| path.parent() == Some(self.kernel.agents_cgroup())),
            Some(selector) => selector.resolve(self.kernel.cgroup_root()).ok(),
            None => None,
        };
        let meant = |name: &str, by: &Selector, at: Option<&Path>| {
            agent.is_none_or(|agent| agent == name)
                && selector.is_none_or(|selector| {
                    selector == by || (path.is_some() && path.as_deref() == at)
                })
        };
        let runs: Vec<Run> = self
            .runs
            .list()
            .into_iter()
            .filter(|run| {
                run.selected
                    .as_ref()
                    .is_some_and(|selected| meant(&run.agent, &selected.by, Some(&run.cgroup)))
            })
            .collect();
        let wants: Vec<Want> = state
            .asked
            .iter()
            .filter(|want| {
                meant(&want.agent, &want.selector, None)
                    || runs.iter().any(|run| is_of(run, &want.selector))
            })
            .cloned()
            .collect();
        if let Some(want) = self.configured.iter().find(|want| {
            meant(&want.agent, &want.selector, None)
                || runs.iter().any(|run| is_of(run, &want.selector))
        }) {
            bail!(
                "agent {:?} ({}) is in the configuration: take it out of `intercept.agents` and start the daemon anew",
                want.agent,
                want.selector
            );
        }
        if runs.is_empty() && wants.is_empty() {
            if let Some(path) = &path
                && self.kernel.detach_from(cgroup::id(path)?)?
            {
                return Ok(Vec::new());
            }
            bail!(
                "nothing of the kind is attached: `interceptor agents` says who is. What `exec` began ends with its processes"
            );
        }
        for want in &wants {
            fs::remove_file(self.file(want))
                .or_else(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })
                .with_context(|| format!("forgetting agent {:?}", want.agent))?;
            state.asked.retain(|other| other != want);
            state.waiting.remove(&want.selector);
        }
        for run in &runs {
            self.release(run)?;
        }
        Ok(runs)
    }

    fn release(&self, run: &Run) -> anyhow::Result<()> {
        if self.runs.is_others(run) {
            self.kernel.detach_from(run.cgroup_id)?;
            self.runs.forget(run);
            return Ok(());
        }
        let from = run
            .selected
            .as_ref()
            .and_then(|selected| selected.from.clone());
        let home = from
            .filter(|from| from.is_dir())
            .unwrap_or_else(|| self.kernel.cgroup_root().to_owned());
        self.runs.look.release(&run.cgroup, &home)?;
        ensure!(
            cgroup::processes(&run.cgroup).is_empty(),
            "some processes of agent {:?} could not be moved to {}",
            run.agent,
            home.display()
        );
        // The sweep removes the cgroup.
        Ok(())
    }
}

fn is_of(run: &Run, selector: &Selector) -> bool {
    run.selected
        .as_ref()
        .is_some_and(|selected| selected.by == *selector)
}

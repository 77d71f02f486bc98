//! Attaching one process, with those that descend from it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::Context as _;
use tracing::warn;

use super::{Attached, Attachments, Change, Want, attached};
use crate::agents::{Selected, Wanted};
use crate::kernel::cgroup;

impl Attachments {
    /// Moves a process into a run's cgroup; nothing is moved where that cannot be done whole.
    pub(super) fn attach_process(
        &self,
        want: &Want,
        pid: u32,
        asker: u32,
        allow_open_sockets: bool,
    ) -> anyhow::Result<(Attached, Option<Change>)> {
        let _one_at_a_time = self.lock();
        let root = self.kernel.cgroup_root();
        let from = cgroup::of_process(pid).with_context(|| format!("there is no process {pid}"))?;
        let selected = Selected {
            by: want.selector.clone(),
            configured: false,
            from: Some(root.join(from.trim_start_matches('/'))),
        };
        let labels = want.labels.clone();
        let run = self
            .runs
            .begin_as(&want.agent, labels, want.requested_by, Some(selected))?;
        let wanted = Wanted {
            pid,
            asker,
            allow_open_sockets,
        };
        let held = self.runs.list().into_iter().map(|run| run.cgroup);
        let held = held
            .chain([self.kernel.agents_cgroup().to_owned()])
            .collect();
        let open = match self.runs.look.gather(&run.cgroup, wanted, held) {
            Ok(open) => open,
            Err(error) => {
                self.runs.forget(&run);
                if let Err(error) = cgroup::remove_tree(&run.cgroup) {
                    warn!(%error, "the cgroup of an attempt stays");
                }
                return Err(error.into());
            }
        };
        self.runs.placed(&run);
        let mut warnings: Vec<String> = open
            .iter()
            .map(|socket| format!("stays outside interception: {socket}"))
            .collect();
        if cgroup::processes(&run.cgroup).into_iter().any(is_roots) {
            warnings.push(
                "a process of it runs as root, which can move itself out of any cgroup".to_owned(),
            );
        }
        self.foreign_networks(&run, &mut warnings);
        Ok((attached(run.clone(), warnings), Some(Change::Attached(run))))
    }
}

fn is_roots(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == 0)
}

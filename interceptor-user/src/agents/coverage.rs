//! What a run did, its cgroups below included.
//!
//! The kernel counts for the cgroup that a socket was born in. A service or a container
//! makes cgroups below its own, and removes them: so it is looked every few seconds which
//! run the counted cgroups are of, and what is counted for one that is gone is added to its
//! run's. What began and ended between two looks is in the sum of all and of no run.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use super::{Run, Runs};
use crate::kernel::{Covered, Kernel, cgroup};

impl Runs {
    /// What a run did so far.
    #[must_use]
    pub fn coverage(&self, kernel: &Kernel, run: &Run) -> Covered {
        let mut sum = kernel.coverage_with_folded(run.cgroup_id);
        for id in self.below(run) {
            sum.add(&kernel.coverage(id).unwrap_or_default());
        }
        sum
    }

    /// What a run did in all, once it is over; makes room for another's.
    #[must_use]
    pub fn end_coverage(&self, kernel: &Kernel, run: &Run) -> Covered {
        let sum = self.coverage(kernel, run);
        for id in self.below(run) {
            kernel.forget_coverage(id);
        }
        kernel.forget_coverage(run.cgroup_id);
        self.tops()
            .retain(|id, top| *id != run.cgroup_id && *top != run.cgroup_id);
        sum
    }

    /// Notes whose the counted cgroups are, and adds up what those that are gone did. Walks
    /// cgroups: call it where blocking is allowed.
    pub fn gather_coverage(&self, kernel: &Kernel) {
        let runs = self.list();
        let own: HashSet<u64> = runs.iter().map(|run| run.cgroup_id).collect();
        let counted: Vec<u64> = kernel
            .covered()
            .into_iter()
            .filter(|id| !own.contains(id))
            .collect();
        if counted.is_empty() {
            return;
        }
        let mut live = HashMap::new();
        for run in &runs {
            for path in cgroup::tree(&run.cgroup).skip(1) {
                if let Ok(id) = cgroup::id(&path) {
                    live.insert(id, run.cgroup_id);
                }
            }
        }
        for id in counted {
            if let Some(top) = live.get(&id) {
                self.tops().insert(id, *top);
            } else {
                let top = self.tops().get(&id).copied();
                kernel.fold_coverage(id, top.unwrap_or_default());
            }
        }
    }

    /// The cgroups below a run's that are known to have been counted for, or are there.
    fn below(&self, run: &Run) -> HashSet<u64> {
        let mut ids: HashSet<u64> = self
            .tops()
            .iter()
            .filter(|(_, top)| **top == run.cgroup_id)
            .map(|(id, _)| *id)
            .collect();
        for path in cgroup::tree(&run.cgroup).skip(1) {
            ids.extend(cgroup::id(&path));
        }
        ids
    }

    pub(super) fn tops(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u64>> {
        self.tops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

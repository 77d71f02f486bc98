//! What each cgroup did, as the programs count it.
//!
//! The kernel counts a CPU apart, without a lock; here the CPUs are added up. Counts of a
//! cgroup are there until [`Kernel::forget_coverage`], over restarts of the daemon. What was
//! counted for cgroups that are gone stands beside their run's, under the run's id with
//! [`FOLDED`] set, where the kernel does not write.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use aya::maps::{MapData, MapError, PerCpuHashMap, PerCpuValues};
use interceptor_common::{
    COVERED_QUESTIONS, COVERED_REDIRECTED, COVERED_SAME, COVERED_UNIX, Coverage, Reason,
};
use serde::{Deserialize, Serialize};

use super::{Kernel, KernelError};

/// No cgroup's id has this bit.
const FOLDED: u64 = 1 << 63;

/// What a cgroup, or a run of an agent, did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// Connects over TCP that were redirected to the proxy.
    pub redirected: u64,
    /// Questions for names that the proxy's resolver got.
    pub questions: u64,
    /// Connects to Unix sockets that were redirected to the proxy.
    pub unix: u64,
    /// Connects and datagrams to Unix sockets of the agent's own, which are exempt.
    pub exempt: u64,
    /// Connects and datagrams to Unix sockets that the operator lets pass unjudged.
    pub unjudged: u64,
    /// What was refused at a call, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Packets that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl Covered {
    fn of(slots: &Coverage) -> Self {
        let slot = |at: usize| slots.get(at).copied().unwrap_or_default();
        let mut covered = Self {
            redirected: slot(COVERED_REDIRECTED),
            questions: slot(COVERED_QUESTIONS),
            unix: slot(COVERED_UNIX),
            exempt: slot(COVERED_SAME),
            unjudged: slot(Reason::UnixUnjudged as usize),
            ..Self::default()
        };
        for reason in Reason::ALL.into_iter().filter(|one| one.is_refusal()) {
            let count = slot(reason as usize);
            if count == 0 {
                continue;
            }
            let by = match reason {
                Reason::Egress | Reason::Ingress | Reason::FlowsFull => &mut covered.dropped,
                _ => &mut covered.refused,
            };
            by.insert(reason.name().to_owned(), count);
        }
        covered
    }

    /// Adds another's counts to these.
    pub fn add(&mut self, other: &Self) {
        self.redirected += other.redirected;
        self.questions += other.questions;
        self.unix += other.unix;
        self.exempt += other.exempt;
        self.unjudged += other.unjudged;
        for (mine, theirs) in [
            (&mut self.refused, &other.refused),
            (&mut self.dropped, &other.dropped),
        ] {
            for (reason, count) in theirs {
                *mine.entry(reason.clone()).or_default() += count;
            }
        }
    }

    /// All that was kept from leaving: refused and dropped.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.refused.values().chain(self.dropped.values()).sum()
    }
}

impl Kernel {
    /// What a cgroup did; nothing where it did nothing yet.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn coverage(&self, cgroup_id: u64) -> Result<Covered, KernelError> {
        let map = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        sum(&map, cgroup_id).map(|slots| Covered::of(&slots))
    }

    /// What a run's cgroup did, and those below it that are gone.
    pub(crate) fn coverage_with_folded(&self, cgroup_id: u64) -> Covered {
        let mut sum = self.coverage(cgroup_id).unwrap_or_default();
        sum.add(&self.coverage(cgroup_id | FOLDED).unwrap_or_default());
        sum
    }

    /// What all cgroups together did that are not forgotten.
    #[must_use]
    pub fn coverage_of_all(&self) -> Covered {
        let map = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<u64> = map.keys().filter_map(Result::ok).collect();
        let mut all = Covered::default();
        for id in ids {
            all.add(&Covered::of(&sum(&map, id).unwrap_or_default()));
        }
        all
    }

    /// The cgroups that did something.
    pub(crate) fn covered(&self) -> Vec<u64> {
        let map = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        map.keys()
            .filter_map(Result::ok)
            .filter(|id| id & FOLDED == 0)
            .collect()
    }

    /// Adds what a cgroup that is gone did to what is known of a run's; 0 where it is not
    /// known whose it was.
    pub(crate) fn fold_coverage(&self, cgroup_id: u64, run: u64) {
        let mut map = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        let key = run | FOLDED;
        let (Ok(gone), Ok(before)) = (sum(&map, cgroup_id), sum(&map, key)) else {
            return;
        };
        let mut slots = gone;
        for (slot, before) in slots.iter_mut().zip(before) {
            *slot = slot.wrapping_add(before);
        }
        let Ok(cpus) = aya::util::nr_cpus() else {
            return;
        };
        let mut values = vec![[0; 24]; cpus];
        if let Some(first) = values.first_mut() {
            *first = slots;
        }
        let written = PerCpuValues::try_from(values)
            .map_err(|_| ())
            .and_then(|values| map.insert(key, values, 0).map_err(|_| ()));
        // Kept where it is when there is no room for it elsewhere.
        if written.is_ok() {
            let _ = map.remove(&cgroup_id);
        }
    }

    /// Forgets what a cgroup did, so that there is room for another.
    pub fn forget_coverage(&self, cgroup_id: u64) {
        let mut map = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone already, where they are not there.
        let _ = map.remove(&cgroup_id);
        let _ = map.remove(&(cgroup_id | FOLDED));
    }
}

/// The counts of all CPUs, added up.
fn sum(
    map: &PerCpuHashMap<MapData, u64, Coverage>,
    cgroup_id: u64,
) -> Result<Coverage, KernelError> {
    let mut sum = [0u64; 24];
    match map.get(&cgroup_id, 0) {
        Ok(values) => {
            for slots in values.iter() {
                for (sum, slot) in sum.iter_mut().zip(slots) {
                    *sum = sum.wrapping_add(*slot);
                }
            }
            Ok(sum)
        }
        Err(MapError::KeyNotFound) => Ok(sum),
        Err(error) => Err(KernelError::map("reading what a cgroup did")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_and_what_was_dropped_are_told_apart() {
        let mut slots = [0; 24];
        slots[Reason::Egress as usize] = 3;
        slots[Reason::Datagram as usize] = 2;
        slots[Reason::UnixUnjudged as usize] = 5;
        slots[COVERED_REDIRECTED] = 7;
        let mut covered = Covered::of(&slots);
        assert_eq!(covered.dropped["egress"], 3);
        assert_eq!(covered.refused["datagram"], 2);
        assert_eq!((covered.held(), covered.unjudged), (5, 5));
        covered.add(&Covered::of(&slots));
        assert_eq!((covered.redirected, covered.held()), (14, 10));
    }
}

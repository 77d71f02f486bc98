//! What each cgroup did, as the programs count it.
//!
//! The kernel counts a CPU apart, without a lock; here the CPUs are added up. Counts of a
//! cgroup are there until [`Kernel::forget_coverage`], over restarts of the daemon.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use aya::maps::MapError;
use interceptor_common::{
    COVERED_QUESTIONS, COVERED_REDIRECTED, COVERED_SAME, COVERED_UNIX, Coverage, Reason,
};
use serde::{Deserialize, Serialize};

use super::{Kernel, KernelError};

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
        match map.get(&cgroup_id, 0) {
            Ok(values) => {
                let mut sum = [0u64; 24];
                for slots in values.iter() {
                    for (sum, slot) in sum.iter_mut().zip(slots) {
                        *sum = sum.wrapping_add(*slot);
                    }
                }
                Ok(Covered::of(&sum))
            }
            Err(MapError::KeyNotFound) => Ok(Covered::default()),
            Err(error) => Err(KernelError::map("reading what a cgroup did")(error)),
        }
    }

    /// What all cgroups together did that are not forgotten.
    #[must_use]
    pub fn coverage_of_all(&self) -> Covered {
        let mut sum = Covered::default();
        for id in self.covered() {
            sum.add(&self.coverage(id).unwrap_or_default());
        }
        sum
    }

    /// The cgroups that did something.
    #[must_use]
    pub fn covered(&self) -> Vec<u64> {
        let map = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        map.keys().filter_map(Result::ok).collect()
    }

    /// Forgets what a cgroup did, so that there is room for another.
    pub fn forget_coverage(&self, cgroup_id: u64) {
        let mut map = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone already, where it is not there.
        let _ = map.remove(&cgroup_id);
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

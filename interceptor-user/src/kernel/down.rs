//! What goes direct while no daemon listens, where the operator wants that.
//!
//! The kernel counts it by cgroup; the next daemon asks once, and tells it.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::PoisonError;

use interceptor_common::{Direct, WhenDown};

use super::{Kernel, KernelError, sys};

impl Kernel {
    /// Says where connects may go direct once nobody listens any more: in the network
    /// namespace of this listener; or nowhere, as is configured. What went direct before
    /// ends. Call behind [`Kernel::set_port`], or something may go direct in between, and on.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn set_when_down(&self, listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        let cookie = match self.goes_direct {
            true => sys::netns_cookie(listener).map_err(KernelError::io(
                "asking for the network namespace of",
                Path::new("a listener"),
            ))?,
            false => 0,
        };
        self.put_when_down(cookie)
    }

    pub(super) fn put_when_down(&self, netns: u64) -> Result<(), KernelError> {
        let mut map = self
            .when_down
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = map.get(&0, 0).map_or(0, |before| before.era);
        let now = WhenDown {
            netns,
            era: before.wrapping_add(1),
            reserved: 0,
        };
        map.set(0, now, 0)
            .map_err(KernelError::map("saying what holds without a daemon"))
    }

    /// What went direct since this was last asked, by cgroup.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn went_direct(&self) -> Result<Vec<(u64, Direct)>, KernelError> {
        let mut map = self
            .went_direct
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known: Vec<u64> = map.keys().filter_map(Result::ok).collect();
        let mut went = Vec::new();
        for id in known {
            let values = map
                .get(&id, 0)
                .map_err(KernelError::map("reading what went direct"))?;
            went.push((id, sum(values.iter())));
            map.remove(&id)
                .map_err(KernelError::map("forgetting what went direct"))?;
        }
        Ok(went)
    }
}

/// All CPUs together.
fn sum<'a>(values: impl Iterator<Item = &'a Direct>) -> Direct {
    values
        .filter(|one| one.count > 0)
        .copied()
        .reduce(|one, other| Direct {
            count: one.count + other.count,
            since: one.since.min(other.since),
            until: one.until.max(other.until),
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_on_which_nothing_went_says_nothing_of_when() {
        let direct = |count, since, until| Direct {
            count,
            since,
            until,
        };
        let cpus = [direct(2, 50, 60), Direct::default(), direct(1, 40, 40)];
        assert_eq!(sum(cpus.iter()), direct(3, 40, 60));
    }
}

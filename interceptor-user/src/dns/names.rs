//! What agents were told that names are.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::handover::Told;

/// How long an answer counts. Programs keep addresses for longer than they were told to.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Most answers that are kept.
const MOST: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// Names by who asked for them, and what was answered.
#[derive(Debug)]
pub struct Names(Mutex<Answered>);

/// Name and moment, by cgroup and address.
type Answered = LruCache<(u64, IpAddr), (Arc<str>, Instant)>;

impl Default for Names {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Names {
    /// Keeps that the agents of a cgroup were told that `name` is at `address`.
    pub fn told(&self, cgroup: u64, address: IpAddr, name: &Arc<str>, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.put((cgroup, address.to_canonical()), (Arc::clone(name), now));
    }

    /// The name that was last answered with `address` to that cgroup.
    #[must_use]
    pub fn of(&self, cgroup: u64, address: IpAddr, now: Instant) -> Option<Arc<str>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, since) = all.get(&(cgroup, address.to_canonical()))?;
        (now.saturating_duration_since(*since) < KEPT).then(|| Arc::clone(name))
    }
}

impl Names {
    /// What was answered, for the next daemon; the oldest first.
    #[must_use]
    pub fn hand_over(&self, now: Instant) -> Vec<Told> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told =
            |((cgroup, address), (name, since)): (&(u64, IpAddr), &(Arc<str>, Instant))| Told {
                cgroup: *cgroup,
                address: *address,
                name: name.to_string(),
                age: now.saturating_duration_since(*since),
            };
        all.iter().rev().map(told).collect()
    }

    /// Takes over what the daemon before answered.
    pub fn take_over(&self, told: Vec<Told>, now: Instant) {
        for one in told {
            let since = now.checked_sub(one.age).unwrap_or(now);
            self.told(one.cgroup, one.address, &one.name.into(), since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_to_who_asked_for_it_and_not_for_ever() {
        let names = Names::default();
        let (now, name) = (Instant::now(), Arc::from("db.internal"));
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        names.told(1, address, &name, now);
        assert_eq!(names.of(1, address, now).as_deref(), Some("db.internal"));
        let mapped = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(names.of(1, mapped, now).as_deref(), Some("db.internal"));
        assert_eq!(names.of(2, address, now), None);
        assert_eq!(names.of(1, address, now + KEPT), None);
    }
}

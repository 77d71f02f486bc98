//! What is remembered between exchanges: points, tags, counts, bans.
//!
//! Two holders: the session, and the principal over all of its sessions. Time
//! is an argument. Memory is bounded for any number of principals.

use std::sync::Arc;
use std::time::Duration;

use crate::Principal;

/// A point in time, as the shell read its clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Microseconds of a monotonic clock, from a start that all sessions of one
    /// process share.
    pub monotonic: u64,
    /// Seconds since 1970-01-01T00:00:00Z, for rules that ask for the `time`.
    pub unix: i64,
}

impl Moment {
    /// So many microseconds later.
    #[must_use]
    pub const fn after(self, micros: u64) -> Self {
        Self {
            monotonic: self.monotonic.saturating_add(micros),
            unix: self.unix.saturating_add_unsigned(micros / 1_000_000),
        }
    }
}

/// What is remembered of all principals. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    inner: Arc<()>,
}

/// What is remembered of one session and its principal.
#[derive(Debug, Default)]
pub struct Standing {
    memory: Memory,
}

impl Memory {
    /// A memory of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a session of this principal stands as it begins.
    #[must_use]
    pub fn standing(&self, principal: &Principal, now: Moment) -> Standing {
        let _ = (principal, now, &self.inner);
        Standing {
            memory: self.clone(),
        }
    }

    /// Whether this principal may have no session now, and for how much longer.
    #[must_use]
    pub fn banned(&self, principal: &Principal, now: Moment) -> Option<Duration> {
        let _ = (principal, now);
        None
    }
}

impl Standing {
    /// The memory that it is part of.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

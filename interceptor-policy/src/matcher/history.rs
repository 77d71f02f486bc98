//! Fields that ask of earlier exchanges: `after`, `rate`, `risk`.
//!
//! What they ask is certain, so that the [`Mode`](super::Mode) of a question is
//! of no matter to them.

use std::sync::Arc;

use super::circumstances::Circumstances;
use super::session::Number;
use super::{Matcher, Mode};
use crate::state::Past;

/// Whose history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum By {
    /// This session's.
    Session,
    /// That of all sessions of its principal, so that a new session is no way
    /// around a rule.
    #[default]
    Principal,
}

impl By {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Principal => "principal",
        }
    }

    fn of<'p>(self, now: &Circumstances<'p>) -> &'p Past {
        match self {
            Self::Session => now.session,
            Self::Principal => now.principal,
        }
    }
}

/// What an earlier exchange did.
#[derive(Clone, Debug)]
pub(crate) enum Trace {
    /// It left one of these tags.
    Tags(Vec<Arc<str>>),
    /// One of these rules applied to it.
    Rules(Vec<Arc<str>>),
}

/// `after`: an earlier exchange did something.
#[derive(Debug)]
pub(crate) struct After {
    pub(crate) trace: Trace,
    /// At most so many microseconds ago; `None` for as long as it is remembered.
    pub(crate) within: Option<u64>,
    pub(crate) by: By,
}

impl After {
    pub(crate) fn holds(&self, now: &Circumstances<'_>) -> bool {
        match (self.last(now), self.within) {
            (Some(ago), Some(within)) => ago < within,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// How long ago, in microseconds.
    fn last(&self, now: &Circumstances<'_>) -> Option<u64> {
        let past = self.by.of(now);
        let last = match &self.trace {
            Trace::Tags(tags) => tags.iter().filter_map(|tag| past.tagged(tag)).max(),
            Trace::Rules(rules) => rules.iter().filter_map(|rule| past.met(rule)).max(),
        };
        last.map(|at| now.moment.monotonic.saturating_sub(at))
    }

    /// What there was, for a person.
    pub(crate) fn is(&self, now: &Circumstances<'_>) -> String {
        match self.last(now) {
            None => format!("not seen from this {}", self.by.name()),
            Some(ago) => format!("{} s ago from this {}", ago / 1_000_000, self.by.name()),
        }
    }
}

/// `rate`: more than so many exchanges in so much time.
#[derive(Debug)]
pub(crate) struct Rate {
    /// By which it is counted: the rule's name, and whether in `unless`.
    pub(crate) key: Arc<str>,
    pub(crate) over: u64,
    /// Microseconds.
    pub(crate) per: u64,
    pub(crate) by: By,
}

impl Rate {
    /// Whether there were too many, this exchange counted in.
    pub(crate) fn holds(&self, now: &Circumstances<'_>) -> bool {
        self.by.of(now).is_over(self, now.moment)
    }
}

/// `risk`: the principal's score before this exchange.
#[derive(Debug)]
pub(crate) struct Risk(pub(crate) Matcher<Number>);

impl Risk {
    pub(crate) fn holds(&self, now: &Circumstances<'_>) -> bool {
        self.0
            .holds(Mode::Must, &|number, _| number.holds(u64::from(now.score)))
    }
}

//! What is asked once all that a statement says of itself holds.
//!
//! These fields say one thing of one exchange now and may say another of the
//! next, so their answers are never kept.

use super::clock::Clock;
use super::history::{After, Rate, Risk};
use crate::Moment;
use crate::diagnostic::At;
use crate::state::Past;

/// What is known of the moment, and of what was before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'p> {
    pub(crate) moment: Moment,
    /// The principal's score before this exchange.
    pub(crate) score: u32,
    pub(crate) session: &'p Past,
    pub(crate) principal: &'p Past,
}

/// One field.
#[derive(Debug)]
pub(crate) struct CircumstanceField {
    /// `after`
    pub(crate) name: &'static str,
    /// What it asks for, as it was written.
    pub(crate) shown: String,
    /// Where it stands, for faults that only all files together show.
    pub(crate) at: At,
    pub(crate) asks: Asks,
}

/// What one field asks for. In the order of what it costs to ask.
#[derive(Debug)]
pub(crate) enum Asks {
    Risk(Risk),
    Time(Clock),
    After(After),
}

impl CircumstanceField {
    pub(crate) fn holds(&self, now: &Circumstances<'_>) -> bool {
        match &self.asks {
            Asks::Risk(risk) => risk.holds(now),
            Asks::Time(clock) => clock.holds(now.moment),
            Asks::After(after) => after.holds(now),
        }
    }

    /// What it is, for a person.
    pub(crate) fn is(&self, now: &Circumstances<'_>) -> String {
        match &self.asks {
            Asks::Risk(_) => now.score.to_string(),
            Asks::Time(clock) => clock.is(now.moment),
            Asks::After(after) => after.is(now),
        }
    }

    const fn cost(&self) -> u8 {
        match self.asks {
            Asks::Risk(_) => 0,
            Asks::Time(_) => 1,
            Asks::After(_) => 2,
        }
    }
}

/// All of them, cheapest first. `rate` is apart, since what it counts is what
/// everything else holds for.
#[derive(Debug, Default)]
pub(crate) struct CircumstanceMatch {
    pub(crate) fields: Vec<CircumstanceField>,
    pub(crate) rate: Option<RateField>,
}

/// The `rate` of a match.
#[derive(Debug)]
pub(crate) struct RateField {
    pub(crate) shown: String,
    pub(crate) rate: Rate,
}

impl CircumstanceMatch {
    pub(crate) fn new(mut fields: Vec<CircumstanceField>, rate: Option<RateField>) -> Self {
        fields.sort_by_key(CircumstanceField::cost);
        Self { fields, rate }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.rate.is_none()
    }

    /// Whether all but the rate hold.
    pub(crate) fn hold(&self, now: &Circumstances<'_>) -> bool {
        self.fields.iter().all(|field| field.holds(now))
    }
}

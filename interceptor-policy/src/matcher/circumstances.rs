//! What is asked once all that a statement says of itself holds.
//!
//! These fields say one thing of one exchange now and may say another of the
//! next, so their answers are never kept. An expression is among them: it may
//! ask for the score, and it costs the most.

use super::clock::Clock;
use super::expression::{About, Expression, Fault};
use super::history::{After, Rate, Risk};
use crate::diagnostic::At;
use crate::matcher::Asked;
use crate::state::Past;
use crate::{Moment, Subject};

/// What is known of the moment, of what was before, and of what is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'p> {
    pub(crate) moment: Moment,
    /// The principal's score before this exchange.
    pub(crate) score: u32,
    pub(crate) session: &'p Past,
    pub(crate) principal: &'p Past,
    pub(crate) subject: &'p Subject,
    pub(crate) asked: Asked<'p>,
}

impl Circumstances<'_> {
    fn about(&self) -> About<'_> {
        About {
            subject: self.subject,
            asked: self.asked,
            score: self.score,
        }
    }
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
    If(Box<Expression>),
}

impl CircumstanceField {
    /// # Errors
    /// Why it has no answer.
    pub(crate) fn holds(&self, now: &Circumstances<'_>) -> Result<bool, Fault> {
        Ok(match &self.asks {
            Asks::Risk(risk) => risk.holds(now),
            Asks::Time(clock) => clock.holds(now.moment),
            Asks::After(after) => after.holds(now),
            Asks::If(expression) => return expression.holds(&now.about()),
        })
    }

    /// What it is, for a person.
    pub(crate) fn is(&self, now: &Circumstances<'_>) -> String {
        match &self.asks {
            Asks::Risk(_) => now.score.to_string(),
            Asks::Time(clock) => clock.is(now.moment),
            Asks::After(after) => after.is(now),
            Asks::If(expression) => match expression.holds(&now.about()) {
                Ok(answer) => answer.to_string(),
                Err(fault) => format!("without an answer ({fault})"),
            },
        }
    }

    const fn cost(&self) -> u8 {
        match self.asks {
            Asks::Risk(_) => 0,
            Asks::Time(_) => 1,
            Asks::After(_) => 2,
            Asks::If(_) => 3,
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
    ///
    /// # Errors
    /// Why one has no answer, when those before it hold.
    pub(crate) fn hold(&self, now: &Circumstances<'_>) -> Result<bool, Fault> {
        for field in &self.fields {
            if !field.holds(now)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it asks what was before.
    pub(crate) fn asks_past(&self) -> bool {
        self.rate.is_some()
            || self.fields.iter().any(|field| match &field.asks {
                Asks::Risk(_) | Asks::After(_) => true,
                Asks::Time(_) => false,
                Asks::If(expression) => expression.asks_past(),
            })
    }

    /// Its expressions.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.fields.iter().filter_map(|field| match &field.asks {
            Asks::If(expression) => Some(&**expression),
            _ => None,
        })
    }
}
